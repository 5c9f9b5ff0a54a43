//! How a list is stored as the value of a map entry: a MessagePack array whose items are of the `bin` family, array and
//! items in their shortest form.
//!
//! Equal lists have equal bytes, whichever backend wrote them. Reading also takes the `str` family and longer forms,
//! and never panics, whatever the bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Why bytes are not a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a list: {0}")]
pub struct NotAList(&'static str);

/// Encodes a list.
#[must_use]
pub fn encode_list(items: &[Bytes]) -> Bytes {
    let size: usize = items.iter().map(|item| item.len() + 5).sum();
    let mut out = BytesMut::with_capacity(size + 5);
    match items.len() {
        count @ 0..=15 => out.put_u8(0x90 | count as u8),
        count @ 16..=0xffff => {
            out.put_u8(0xdc);
            out.put_u16(count as u16);
        }
        count => {
            out.put_u8(0xdd);
            out.put_u32(count as u32);
        }
    }
    for item in items {
        match item.len() {
            size @ 0..=0xff => {
                out.put_u8(0xc4);
                out.put_u8(size as u8);
            }
            size @ 0x100..=0xffff => {
                out.put_u8(0xc5);
                out.put_u16(size as u16);
            }
            size => {
                out.put_u8(0xc6);
                out.put_u32(size as u32);
            }
        }
        out.put_slice(item);
    }
    out.freeze()
}

/// Decodes a list; the items share the memory of the value.
///
/// # Errors
///
/// [`NotAList`] if the value is anything else than one array of byte strings.
pub fn decode_list(value: &Bytes) -> Result<Vec<Bytes>, NotAList> {
    let mut rest = value.clone();
    let count = match take_u8(&mut rest)? {
        byte @ 0x90..=0x9f => usize::from(byte & 0x0f),
        0xdc => take_size(&mut rest, 2)?,
        0xdd => take_size(&mut rest, 4)?,
        _ => return Err(NotAList("it does not begin as an array")),
    };
    // A stranger's count must not make us reserve for more than there turns out to be.
    let mut items = Vec::with_capacity(count.min(rest.len()).min(1024));
    for _ in 0..count {
        let size = match take_u8(&mut rest)? {
            byte @ 0xa0..=0xbf => usize::from(byte & 0x1f),
            0xc4 | 0xd9 => take_size(&mut rest, 1)?,
            0xc5 | 0xda => take_size(&mut rest, 2)?,
            0xc6 | 0xdb => take_size(&mut rest, 4)?,
            _ => return Err(NotAList("an item is no byte string")),
        };
        if size > rest.len() {
            return Err(NotAList("it is cut off"));
        }
        items.push(rest.split_to(size));
    }
    if rest.is_empty() { Ok(items) } else { Err(NotAList("something follows the array")) }
}

fn take_u8(rest: &mut Bytes) -> Result<u8, NotAList> {
    rest.try_get_u8().map_err(|_| NotAList("it is cut off"))
}

fn take_size(rest: &mut Bytes, bytes: usize) -> Result<usize, NotAList> {
    if rest.len() < bytes {
        return Err(NotAList("it is cut off"));
    }
    Ok(rest.get_uint(bytes) as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_take_their_shortest_form() {
        for size in [0, 1, 31, 32, 255, 256, 65_535, 65_536] {
            let items = vec![Bytes::from(vec![7; size])];
            let encoded = encode_list(&items);
            assert_eq!(encoded[1], [0xc4, 0xc5, 0xc6][usize::from(size > 255) + usize::from(size > 65_535)]);
            assert_eq!(decode_list(&encoded).as_ref(), Ok(&items));
        }
        for count in [0, 15, 16, 65_535, 65_536] {
            let items = vec![Bytes::new(); count];
            assert_eq!(decode_list(&encode_list(&items)).as_ref(), Ok(&items));
        }
    }

    #[test]
    fn the_str_family_reads_as_well() {
        assert_eq!(decode_list(&Bytes::from_static(b"\x92\xa1x\xd9\x01y")).unwrap(), ["x", "y"]);
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes(items in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..40)) {
            let items: Vec<Bytes> = items.into_iter().map(Bytes::from).collect();
            prop_assert_eq!(decode_list(&encode_list(&items)), Ok(items));
        }

        #[test]
        fn garbage_never_panics(garbage in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_list(&Bytes::from(garbage));
        }
    }
}
