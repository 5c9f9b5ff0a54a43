//! The messages of change feeds.
//!
//! A message is a sequence of MessagePack values: the version that the commit made, written as in the header of the map
//! (16 hexadecimal digits of incarnation, then the decimal revision), and the changes. A change is a key followed by
//! its value, or by `false` if it is deleted; 1 if the map is cleared; 2 if it is destroyed. If the message begins with
//! 3, each of its changes is a commit of its own, and the version is that of the first.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::{commit::parse_version, streams::take_string};
use crate::{Change, MapCommit, Revision};

/// Reads the commits of a message, of which there is at least one; anybody may have sent it.
pub(super) fn decode(mut message: Bytes) -> Result<Vec<MapCommit>, String> {
    let several = message.first() == Some(&3);
    if several {
        message.advance(1);
    }
    let version = take_string(&mut message).ok_or("the version is missing")?;
    let version = std::str::from_utf8(&version).ok().and_then(parse_version).ok_or("the version is not one")?;
    let before = version.revision.0.checked_sub(1).ok_or("the revision is 0")?;
    let changes = take_changes(&mut message)?;
    if !several {
        return Ok(vec![MapCommit::new(version.incarnation, Revision(before), version.revision, changes)]);
    }
    let last = before.checked_add(changes.len() as u64).ok_or("the revision is too large")?;
    let revisions = (before..last).zip(changes);
    let commits = revisions.map(|(before, change)| {
        MapCommit::new(version.incarnation, Revision(before), Revision(before + 1), vec![change])
    });
    Ok(commits.collect())
}

fn take_changes(message: &mut Bytes) -> Result<Vec<Change>, String> {
    // Most commits are of one change, and wait for their followers as they are.
    let mut changes = Vec::with_capacity(1);
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
            _ => take_entry(message)?,
        });
    }
    let last = changes.len().checked_sub(1).ok_or("it holds no change")?;
    if changes[..last].contains(&Change::Destroyed) {
        return Err("changes follow the end of the map".to_owned());
    }
    Ok(changes)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Incarnation;

    fn message(parts: &[&[u8]]) -> Bytes {
        parts.concat().into()
    }

    const START: &[u8] = b"\xb100000000000000ff5";

    #[test]
    fn a_commit_is_read_with_its_changes_in_order() {
        let message_of_one = message(&[START, b"\xa1a\xa1x", b"\xa1b\xc2", b"\x01", b"\xa1c\xa0"]);
        let commits = decode(message_of_one).unwrap();
        let put = |key: &str, value: &'static [u8]| Change::Put { key: key.into(), value: value.into() };
        let changes = vec![put("a", b"x"), Change::Deleted { key: "b".into() }, Change::Cleared, put("c", b"")];
        assert_eq!(commits, [MapCommit::new(Incarnation(255), Revision(4), Revision(5), changes)]);
        let commits = decode(message(&[START, b"\x02"])).unwrap();
        assert_eq!(commits[0].version(), None);
    }

    #[test]
    fn gathered_commits_are_read_one_by_one() {
        let commits = decode(message(&[b"\x03", START, b"\xa1a\xa1x", b"\xa1a\xa1y"])).unwrap();
        let put = |value: &'static [u8]| vec![Change::Put { key: "a".into(), value: value.into() }];
        assert_eq!(
            commits,
            [
                MapCommit::new(Incarnation(255), Revision(4), Revision(5), put(b"x")),
                MapCommit::new(Incarnation(255), Revision(5), Revision(6), put(b"y")),
            ]
        );
    }

    #[test]
    fn what_is_no_commit_is_refused() {
        for parts in [
            &[&b""[..]][..],
            &[START],
            &[b"\xb1000000000000zzzz5", b"\x01"],
            &[b"\xb100000000000000ff0", b"\x01"],
            &[b"\xb000000000000000ff", b"\x01"],
            &[b"\x04\x05", b"\x01"],
            &[START, b"\xa1a"],
            &[START, b"\xa1a\x07"],
            &[START, b"\xa1\xff\xa1x"],
            &[START, b"\x02", b"\xa1a\xa1x"],
            &[START, b"\xc6\xff\xff\xff\xff"],
            &[b"\x03"],
            &[b"\x03", START],
            &[b"\x03\xd9\x2400000000000000ff18446744073709551615", b"\x01\x01"],
        ] {
            assert!(decode(message(parts)).is_err(), "{parts:?}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(garbage in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..3) {
            let start: &[&[u8]] = match kind {
                0 => &[],
                1 => &[START],
                _ => &[b"\x03", START],
            };
            let _ = decode(message(&[&start.concat(), &garbage]));
        }
    }
}
