//! The headers of a job, and the entry in which they are stored with its payload.
//!
//! A job without headers is stored as its payload and nothing else. With headers the entry is an envelope: a [`MARK`],
//! how many headers there are, name and value of each after their lengths, and the payload as it is. The mark begins
//! with a byte that begins no text and no MessagePack; a payload that begins with it all the same is put into an
//! envelope without headers, so that what is stored has one meaning only.
//!
//! They lie in that entry because whoever starts a job reads it in any case, and because it is removed, buried and
//! replayed as it is. A map of their own would have to be asked at every start, of jobs without headers too, and be
//! kept in step with the payloads by every transaction. In the job's record every node would hold them in memory.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What an envelope begins with; the last byte is the version of its form.
const MARK: [u8; 8] = *b"\xc1pulseh\x01";

/// What an envelope of whatever version begins with.
const KIN: &[u8] = b"\xc1pulseh";

/// How long a length is.
const LENGTH: usize = 4;

/// Names and values, each name once, in the order in which they were first set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Headers(Vec<(String, String)>);

impl Headers {
    /// Sets a header, in place of the one of that name if there is one.
    pub(crate) fn set(&mut self, name: String, value: String) {
        match self.0.iter_mut().find(|(of, _)| *of == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    #[cfg(feature = "opentelemetry")]
    pub(crate) fn remove(&mut self, name: &str) {
        self.0.retain(|(of, _)| of != name);
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(of, _)| of == name).map(|(_, value)| &**value)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// How much longer an entry is with one more header.
    #[cfg(feature = "opentelemetry")]
    pub(crate) fn size_of(name: &str, value: &str) -> usize {
        2 * LENGTH + name.len() + value.len()
    }

    /// How long the entry of a job with these headers is.
    pub(crate) fn entry_size(&self, payload: &[u8]) -> usize {
        let headers: usize = self.0.iter().map(|(name, value)| 2 * LENGTH + name.len() + value.len()).sum();
        MARK.len() + LENGTH + headers + payload.len()
    }

    /// A payload with these headers as it is stored.
    pub(crate) fn seal(&self, payload: &Bytes) -> Bytes {
        if self.0.is_empty() && !payload.starts_with(KIN) {
            return payload.clone();
        }
        let mut entry = BytesMut::with_capacity(self.entry_size(payload));
        entry.put_slice(&MARK);
        put_length(&mut entry, self.0.len());
        for part in self.0.iter().flat_map(|(name, value)| [name, value]) {
            put_length(&mut entry, part.len());
            entry.put_slice(part.as_bytes());
        }
        entry.put_slice(payload);
        entry.freeze()
    }
}

// What is longer than that does not fit into any entry.
fn put_length(entry: &mut BytesMut, length: usize) {
    entry.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

/// What a job was dispatched with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) payload: Bytes,
    pub(crate) headers: Arc<Headers>,
}

/// An entry is an envelope that this version of the crate cannot open: a stranger has damaged it, or a later version
/// written it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its headers are damaged")]
pub(crate) struct Damaged;

impl Content {
    /// Reads an entry.
    pub(crate) fn open(entry: Bytes) -> Result<Self, Damaged> {
        if !entry.starts_with(KIN) {
            return Ok(Self { payload: entry, headers: Arc::default() });
        }
        envelope(entry).ok_or(Damaged)
    }
}

fn envelope(mut entry: Bytes) -> Option<Content> {
    if !entry.starts_with(&MARK) {
        return None;
    }
    entry.advance(MARK.len());
    let count = entry.try_get_u32().ok()?;
    let mut headers = Headers::default();
    // Each takes some bytes, so that a count that is a lie ends with them.
    for _ in 0..count {
        let (name, value) = (text(&mut entry)?, text(&mut entry)?);
        headers.0.push((name, value));
    }
    Some(Content { payload: entry, headers: Arc::new(headers) })
}

fn text(entry: &mut Bytes) -> Option<String> {
    let length = usize::try_from(entry.try_get_u32().ok()?).ok()?;
    if entry.len() < length {
        return None;
    }
    String::from_utf8(entry.split_to(length).to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn headers(all: Vec<(String, String)>) -> Headers {
        let mut headers = Headers::default();
        all.into_iter().for_each(|(name, value)| headers.set(name, value));
        headers
    }

    proptest! {
        #[test]
        fn what_was_sealed_is_opened_whatever_the_payload(
            all in vec((".*", ".*"), 0..4), payload: Vec<u8>, looks_sealed: bool, version: u8,
        ) {
            let headers = headers(all);
            let mark = if looks_sealed { [KIN, &[version]].concat() } else { Vec::new() };
            let payload = Bytes::from([mark, payload].concat());
            let entry = headers.seal(&payload);
            prop_assert!(entry == payload || entry.len() == headers.entry_size(&payload));
            let content = Content { payload, headers: Arc::new(headers) };
            prop_assert_eq!(Content::open(entry), Ok(content));
        }

        #[test]
        fn garbage_is_damaged_or_something_but_no_panic(raw: Vec<u8>, is_marked: bool) {
            let mark: &[u8] = if is_marked { &MARK } else { b"" };
            let _ = Content::open([mark, &raw].concat().into());
        }

        #[test]
        fn what_is_cut_off_within_its_headers_is_damaged(cut in 7..41_usize) {
            let entry = headers(vec![("name".into(), "value".into()), ("n".into(), "v".into())]).seal(&Bytes::new());
            prop_assert_eq!(entry.len(), 39);
            let cut = cut.min(38);
            prop_assert_eq!(Content::open(entry.slice(..cut)), Err(Damaged));
        }
    }

    #[test]
    fn a_job_without_headers_is_stored_as_its_payload_without_a_copy() {
        let payload = Bytes::from_static(b"payload");
        assert_eq!(Headers::default().seal(&payload).as_ptr(), payload.as_ptr());
    }

    #[test]
    fn a_name_that_is_set_again_has_the_later_value() {
        let headers = headers([("a", "1"), ("b", "2"), ("a", "3")].map(|(n, v)| (n.to_owned(), v.to_owned())).into());
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("a", "3"), ("b", "2")]);
        assert_eq!((headers.get("a"), headers.get("c")), (Some("3"), None));
    }

    #[test]
    fn envelopes_are_the_same_in_every_version() {
        // Nodes of different versions share a pool during a rolling deploy: this form must never change under its mark.
        let entry = headers(vec![("a".into(), "bc".into())]).seal(&Bytes::from_static(b"payload"));
        assert_eq!(&entry[..], b"\xc1pulseh\x01\0\0\0\x01\0\0\0\x01a\0\0\0\x02bcpayload");
    }
}
