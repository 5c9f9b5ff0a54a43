//! How deep MessagePack may nest.
//!
//! Types that contain themselves are decoded by recursion, and bytes from the network say how deep. A stack that
//! overflows ends the process, which nothing can catch, and the decoder's own limit neither counts all nesting
//! (variants of enums are left out) nor fits the stack of a task. So the bytes are looked at before they are decoded.
//!
//! Pure: no recursion, no allocation, one step for each value in the bytes; and none where there are so few bytes that
//! they cannot nest too deep.

/// How many arrays and maps may stand inside each other. The same as in `serde_json`.
pub const MAX_NESTING: usize = 128;

/// Whether the bytes nest deeper than [`MAX_NESTING`]. What else is wrong with them is for the decoder to find.
#[must_use]
pub fn too_deep(raw: &[u8]) -> bool {
    // Each level takes a byte at least.
    raw.len() > MAX_NESTING && measure(raw).is_none()
}

/// Walks through the values; `None` where they nest too deep.
fn measure(mut rest: &[u8]) -> Option<()> {
    // How many values are still to come in each array or map that is open.
    let mut open = [0_u64; MAX_NESTING];
    let mut depth = 0;
    while let Some(head) = head(&mut rest) {
        let skipped = match head {
            Head::Scalar(bytes) => bytes,
            Head::Values(0) => 0,
            Head::Values(count) => {
                *open.get_mut(depth)? = count;
                depth += 1;
                continue;
            }
        };
        let Some(after) = usize::try_from(skipped).ok().and_then(|skipped| rest.get(skipped..)) else { break };
        rest = after;
        // A value is over, and with it each array or map whose last one it was.
        while let Some(last) = depth.checked_sub(1) {
            open[last] -= 1;
            if open[last] > 0 {
                break;
            }
            depth = last;
        }
        if depth == 0 {
            break;
        }
    }
    Some(())
}

/// What the first bytes of a value say.
enum Head {
    /// It has that many more bytes.
    Scalar(u64),
    /// It has that many values.
    Values(u64),
}

/// Takes the first bytes of a value; `None` where they end.
fn head(rest: &mut &[u8]) -> Option<Head> {
    let marker = *rest.split_off_first()?;
    let mut length = |bytes: usize| {
        let taken = rest.split_off(..bytes)?;
        Some(taken.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)))
    };
    Some(match marker {
        0x80..=0x8f => Head::Values(2 * u64::from(marker & 0x0f)),
        0x90..=0x9f => Head::Values((marker & 0x0f).into()),
        0xa0..=0xbf => Head::Scalar((marker & 0x1f).into()),
        // Byte strings and strings, with lengths of one, two and four bytes.
        0xc4 | 0xd9 => Head::Scalar(length(1)?),
        0xc5 | 0xda => Head::Scalar(length(2)?),
        0xc6 | 0xdb => Head::Scalar(length(4)?),
        // Extensions: a length, or one that the marker implies, and a byte for the type.
        0xc7 => Head::Scalar(length(1)? + 1),
        0xc8 => Head::Scalar(length(2)? + 1),
        0xc9 => Head::Scalar(length(4)? + 1),
        0xd4..=0xd8 => Head::Scalar((1 << (marker - 0xd4)) + 1),
        // Numbers.
        0xcc | 0xd0 => Head::Scalar(1),
        0xcd | 0xd1 => Head::Scalar(2),
        0xca | 0xce | 0xd2 => Head::Scalar(4),
        0xcb | 0xcf | 0xd3 => Head::Scalar(8),
        0xdc => Head::Values(length(2)?),
        0xdd => Head::Values(length(4)?),
        0xde => Head::Values(2 * length(2)?),
        0xdf => Head::Values(2 * length(4)?),
        // Nil, booleans, small integers, and the one marker that means nothing.
        0x00..=0x7f | 0xc0..=0xc3 | 0xe0..=0xff => Head::Scalar(0),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Serialize;

    use super::*;

    /// Everything that MessagePack can say, as deep as it is.
    #[derive(Debug, Clone, Serialize)]
    #[serde(untagged)]
    enum Any {
        Nil(()),
        Truth(bool),
        Integer(i64),
        Number(f64),
        Text(String),
        List(Vec<Self>),
        Pairs(Vec<(String, Self)>),
    }

    fn any_value() -> impl Strategy<Value = Any> {
        let scalar = prop_oneof![
            Just(Any::Nil(())),
            any::<bool>().prop_map(Any::Truth),
            any::<i64>().prop_map(Any::Integer),
            any::<f64>().prop_map(Any::Number),
            ".{0,300}".prop_map(Any::Text),
        ];
        scalar.prop_recursive(6, 200, 20, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..20).prop_map(Any::List),
                prop::collection::vec((".{0,40}", inner), 0..20).prop_map(Any::Pairs),
            ]
        })
    }

    fn nested(depth: usize, around: &[u8]) -> Vec<u8> {
        [around.repeat(depth), vec![0xc0]].concat()
    }

    #[test]
    fn nesting_is_counted_exactly_whatever_it_is_made_of() {
        for around in [&b"\x91"[..], b"\x92\x01", b"\x81\xa1k", b"\xdc\0\x01", b"\xdd\0\0\0\x01", b"\x92\xd6\0\0\0\0\0"]
        {
            assert!(!too_deep(&nested(MAX_NESTING, around)), "{around:x?}");
            assert!(too_deep(&nested(MAX_NESTING + 1, around)), "{around:x?}");
        }
    }

    #[test]
    fn values_beside_each_other_do_not_add_up() {
        let many = [&[0xdc, 0x02, 0x00][..], &nested(MAX_NESTING - 1, b"\x91").repeat(512)].concat();
        assert!(!too_deep(&many));
        assert!(!too_deep(&[&[0xdc, 0x02, 0x00][..], &[0x90; 512]].concat()));
        let last = [&[0xdc, 0x02, 0x00][..], &[0x90; 511], &nested(MAX_NESTING, b"\x91")].concat();
        assert!(too_deep(&last));
    }

    #[test]
    fn what_looks_like_nesting_inside_a_string_is_a_string() {
        let text = [&[0xda, 0x04, 0x00][..], &[0x91; 1024]].concat();
        assert!(!too_deep(&text));
    }

    proptest! {
        #[test]
        fn whatever_the_encoder_writes_is_walked_to_its_end(value in any_value()) {
            let raw = rmp_serde::to_vec_named(&value).unwrap();
            // A hundred levels of arrays around it are few enough, and what comes after it is reached.
            let within = [vec![0x91; 100], raw.clone()].concat();
            prop_assert!(!too_deep(&within));
            let beside = [vec![0x92], raw, nested(MAX_NESTING, b"\x91")].concat();
            prop_assert!(too_deep(&beside));
        }

        #[test]
        fn garbage_is_walked_without_a_panic(raw in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = too_deep(&raw);
        }
    }
}
