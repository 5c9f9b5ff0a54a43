//! The messages of change feeds.
//!
//! A message is a sequence of MessagePack values: incarnation (16 hexadecimal digits), the revision before and after,
//! then the changes. A change is a key followed by its value, or by `false` if it is deleted; 1 if the map is cleared; 2
//! if it is destroyed.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::streams::take_string;
use crate::{Change, Incarnation, MapCommit, Revision};

/// Reads a message; anybody may have sent it.
pub(super) fn decode(mut message: Bytes) -> Result<MapCommit, String> {
    let incarnation = take_string(&mut message).ok_or("the incarnation is missing")?;
    let incarnation = std::str::from_utf8(&incarnation)
        .ok()
        .filter(|digits| digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or("the incarnation is not 16 hexadecimal digits")?;
    let before = take_number(&mut message).ok_or("the revision before is missing")?;
    let after = take_number(&mut message).ok_or("the revision after is missing")?;
    if before.checked_add(1) != Some(after) {
        return Err(format!("the revision goes from {before} to {after}"));
    }
    let mut changes = Vec::new();
    while let Some(marker) = message.first() {
        changes.push(match marker {
            1 => {
                message.advance(1);
                Change::Cleared
            }
            2 => {
                message.advance(1);
                Change::Destroyed
            }
            _ => take_entry(&mut message)?,
        });
    }
    let last = changes.len().checked_sub(1).ok_or("it holds no change")?;
    if changes[..last].contains(&Change::Destroyed) {
        return Err("changes follow the end of the map".to_owned());
    }
    Ok(MapCommit::new(Incarnation(incarnation), Revision(before), Revision(after), changes))
}

fn take_entry(message: &mut Bytes) -> Result<Change, String> {
    let key = take_string(message).ok_or("a key is missing or no string")?;
    let key: Arc<str> = std::str::from_utf8(&key).map_err(|_| "a key is not UTF-8")?.into();
    if let Some(0xc0 | 0xc2) = message.first() {
        message.advance(1);
        return Ok(Change::Deleted { key });
    }
    let value = take_string(message).ok_or("a value is missing or no string")?;
    // The message is a slice of what the connection read; a value must not keep all of that alive.
    Ok(Change::Put { key, value: Bytes::copy_from_slice(&value) })
}

fn take_number(message: &mut Bytes) -> Option<u64> {
    let mut rest = &message[..];
    let number: u64 = rmp::decode::read_int(&mut rest).ok()?;
    message.advance(message.len() - rest.len());
    Some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(parts: &[&[u8]]) -> Bytes {
        parts.concat().into()
    }

    const START: &[u8] = b"\xb000000000000000ff\x04\x05";

    #[test]
    fn a_commit_is_read_with_its_changes_in_order() {
        let commit = decode(message(&[START, b"\xa1a\xa1x", b"\xa1b\xc2", b"\x01", b"\xa1c\xa0"])).unwrap();
        let put = |key: &str, value: &'static [u8]| Change::Put { key: key.into(), value: value.into() };
        let changes = vec![put("a", b"x"), Change::Deleted { key: "b".into() }, Change::Cleared, put("c", b"")];
        assert_eq!(commit, MapCommit::new(Incarnation(255), Revision(4), Revision(5), changes));
        let commit = decode(message(&[START, b"\x02"])).unwrap();
        assert_eq!(commit.version(), None);
    }

    #[test]
    fn what_is_no_commit_is_refused() {
        for parts in [
            &[&b""[..]][..],
            &[START],
            &[b"\xb0000000000000zzzz\x04\x05", b"\x01"],
            &[b"\xb000000000000000ff\x04\x06", b"\x01"],
            &[START, b"\xa1a"],
            &[START, b"\xa1a\x07"],
            &[START, b"\xa1\xff\xa1x"],
            &[START, b"\x02", b"\xa1a\xa1x"],
            &[START, b"\xc6\xff\xff\xff\xff"],
        ] {
            assert!(decode(message(parts)).is_err(), "{parts:?}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(garbage in proptest::collection::vec(any::<u8>(), 0..200), valid in any::<bool>()) {
            let start: &[u8] = if valid { START } else { b"" };
            let _ = decode(message(&[start, &garbage]));
        }
    }
}
