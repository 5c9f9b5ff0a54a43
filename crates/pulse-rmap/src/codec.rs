//! How values become bytes and back.
//!
//! A [`Codec`] is chosen when the map is joined and erases the type's serde bounds, so that nothing behind it needs
//! them. Decoding never panics and never trusts what it reads: whoever can write to the server can put anything there.
//!
//! Where the bytes follow from the value, a replica keeps the value alone. An entry has no room to say how they follow,
//! so the plain kinds are told by their type, and the [`Packed`] ones stand in a register.

use std::{
    any::{Any, TypeId},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use pulse_core::{
    Source,
    list::{decode_list, encode_list},
    message_pack,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::kind::{Counter, List, Packed};

/// Both directions for one type.
pub(crate) struct Codec<V> {
    encode: fn(&V) -> Result<Bytes, Source>,
    decode: fn(&Bytes) -> Result<V, Source>,
    bytes: Follow<V>,
}

/// Whether the bytes follow from the value, by [`own_bytes`].
enum Follow<V> {
    Always,
    /// If nobody has put them in another form. How they are read without any being kept, and whether they follow.
    Usually {
        unpack: fn(&[u8]) -> Result<V, Source>,
        packs_to: fn(&V, &[u8]) -> bool,
    },
    Never,
}

impl<V> Clone for Follow<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Follow<V> {}

impl<V> Clone for Codec<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Codec<V> {}

impl<V> fmt::Debug for Codec<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codec").finish_non_exhaustive()
    }
}

impl<V: Serialize + DeserializeOwned> Codec<V> {
    /// MessagePack, with structs as maps from field names to values, so that fields can be added later.
    pub(crate) fn message_pack() -> Self {
        Self { encode: message_pack::encode, decode: decode_message_pack, bytes: Follow::Never }
    }
}

impl Codec<Bytes> {
    /// The bytes themselves.
    pub(crate) fn raw() -> Self {
        Self { encode: |value| Ok(value.clone()), decode: |raw| Ok(raw.clone()), bytes: Follow::Always }
    }
}

impl Codec<String> {
    /// UTF-8 without anything around it.
    pub(crate) fn text() -> Self {
        Self {
            encode: |value| Ok(own_bytes(value)),
            decode: |raw| Ok(std::str::from_utf8(raw).map_err(|error| Arc::new(error) as Source)?.to_owned()),
            bytes: Follow::Always,
        }
    }
}

impl Codec<Counter> {
    /// Decimal digits, as the backend counts.
    pub(crate) fn counter() -> Self {
        Self {
            encode: |value| Ok(own_bytes(value)),
            decode: |raw| {
                let text = std::str::from_utf8(raw).map_err(|error| Arc::new(error) as Source)?;
                let counter = text.parse().map(Counter);
                let counter = counter.map_err(|error: std::num::ParseIntError| Arc::new(error) as Source)?;
                // `+1` and `01` are what nobody but a stranger writes, and no counter to the backend.
                if own_bytes(&counter) == raw { Ok(counter) } else { Err(source("not in the form of a counter")) }
            },
            bytes: Follow::Always,
        }
    }
}

impl Codec<List> {
    /// A MessagePack array of byte strings, as the backend keeps lists.
    pub(crate) fn list() -> Self {
        Self {
            encode: |value| Ok(own_bytes(value)),
            decode: |raw| decode_list(raw).map(List::from).map_err(|error| Arc::new(error) as Source),
            // A list has more than one form that reads.
            bytes: Follow::Never,
        }
    }
}

impl<V: Packed> Codec<V> {
    /// The type's own form.
    pub(crate) fn packed() -> Self {
        let pack: PackAny = |value| value.downcast_ref::<V>().map(V::pack).unwrap_or_default();
        REGISTER.rcu(|register| {
            let mut register = Vec::clone(register);
            if !register.iter().any(|(kind, _)| *kind == TypeId::of::<V>()) {
                register.push((TypeId::of::<V>(), pack));
            }
            register
        });
        let unpack = |raw: &[u8]| V::unpack(raw).map_err(Source::from);
        Self {
            encode: |value| Ok(value.pack()),
            decode: |raw| V::unpack(raw).map_err(Source::from),
            bytes: Follow::Usually { unpack, packs_to: V::packs_to },
        }
    }
}

type PackAny = fn(&dyn Any) -> Bytes;

/// How values of the types are packed for which somebody has made a codec: few, and none ever goes.
static REGISTER: LazyLock<ArcSwap<Vec<(TypeId, PackAny)>>> = LazyLock::new(ArcSwap::default);

impl<V> Codec<V> {
    pub(crate) fn encode(&self, value: &V) -> Result<Bytes, Source> {
        (self.encode)(value)
    }

    /// What is decoded may share the memory of the bytes.
    pub(crate) fn decode(&self, raw: &Bytes) -> Result<V, Source> {
        contained(|| (self.decode)(raw))
    }
}

/// Runs a type's own code on bytes that a stranger may have chosen. Its panic must cost the replica this value and
/// nothing else; the value under construction is dropped by the unwinding, so nothing broken is seen.
fn contained<V>(decode: impl FnOnce() -> Result<V, Source>) -> Result<V, Source> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| Err(source("decoding panicked")))
}

/// The bytes of a value of a plain kind, which is stored as what it is, or of one that packs itself.
pub(crate) fn own_bytes<V: 'static>(value: &V) -> Bytes {
    let value = value as &dyn Any;
    if let Some(bytes) = value.downcast_ref::<Bytes>() {
        bytes.clone()
    } else if let Some(text) = value.downcast_ref::<String>() {
        Bytes::copy_from_slice(text.as_bytes())
    } else if let Some(counter) = value.downcast_ref::<Counter>() {
        counter.0.to_string().into()
    } else if let Some(list) = value.downcast_ref::<List>() {
        encode_list(list)
    } else {
        let register = REGISTER.load();
        let packer = register.iter().find(|(kind, _)| *kind == TypeId::of::<V>());
        // No codec says of any other kind that its bytes follow from it.
        packer.map_or_else(Bytes::new, |(_, pack)| pack(value))
    }
}

fn decode_message_pack<V: DeserializeOwned>(raw: &Bytes) -> Result<V, Source> {
    message_pack::decode(raw)
}

/// A value and the bytes that must be kept beside it; or why there is none, and the bytes.
type Taken<V> = Result<(V, Option<Bytes>), (Source, Bytes)>;

impl<V: 'static> Codec<V> {
    /// Decodes bytes that are often a slice of a large buffer. What is kept of them is a copy.
    pub(crate) fn take(&self, raw: &[u8]) -> Taken<V> {
        let own = || Bytes::copy_from_slice(raw);
        match self.bytes {
            Follow::Always if TypeId::of::<V>() == TypeId::of::<Bytes>() => {
                // With the handle moved: a copy of it would cost some memory for good.
                let mut raw = Some(own());
                let value = (&mut raw as &mut dyn Any).downcast_mut::<Option<V>>().and_then(Option::take);
                value.map(|value| (value, None)).ok_or_else(|| (source("not bytes"), Bytes::new()))
            }
            Follow::Usually { unpack, packs_to } => match contained(|| unpack(raw)) {
                Ok(value) => {
                    // The type's own code, as in decoding.
                    let follow = catch_unwind(AssertUnwindSafe(|| packs_to(&value, raw))).unwrap_or(false);
                    debug_assert!(!follow || own_bytes(&value) == raw, "`packs_to` must say what `pack` writes");
                    Ok((value, (!follow).then(own)))
                }
                Err(error) => Err((error, own())),
            },
            Follow::Always | Follow::Never => {
                let raw = own();
                match self.decode(&raw) {
                    Ok(value) => {
                        let kept = matches!(self.bytes, Follow::Never).then_some(raw);
                        Ok((value, kept))
                    }
                    Err(error) => Err((error, raw)),
                }
            }
        }
    }
}

fn source(reason: &'static str) -> Source {
    Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(reason))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Old {
        name: String,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct New {
        name: String,
        #[serde(default)]
        tags: Vec<String>,
    }

    #[test]
    fn fields_can_be_added_to_a_struct_in_both_directions() {
        let (old, new) = (Codec::<Old>::message_pack(), Codec::<New>::message_pack());
        let from_old = old.encode(&Old { name: "a".into() }).unwrap();
        assert_eq!(new.decode(&from_old).unwrap(), New { name: "a".into(), tags: vec![] });
        let from_new = new.encode(&New { name: "a".into(), tags: vec!["x".into()] }).unwrap();
        assert_eq!(old.decode(&from_new).unwrap(), Old { name: "a".into() });
    }

    #[test]
    fn text_is_not_taken_for_the_integer_that_its_first_byte_is() {
        assert!(Codec::<i64>::message_pack().decode(&Bytes::from_static(b"abc")).is_err());
        assert_eq!(Codec::<i64>::message_pack().decode(&Bytes::from_static(b"a")).unwrap(), 97);
    }

    #[test]
    fn no_bytes_at_all_are_an_error_not_a_value() {
        assert!(Codec::<String>::message_pack().decode(&Bytes::new()).is_err());
    }

    #[test]
    fn counters_and_lists_read_what_the_backend_writes_and_nothing_else() {
        let counter = Codec::counter();
        for value in [0, -1, i64::MAX, i64::MIN] {
            let encoded = counter.encode(&Counter(value)).unwrap();
            assert_eq!(encoded, value.to_string().as_bytes());
            assert_eq!(counter.decode(&encoded).unwrap(), Counter(value));
        }
        for garbage in ["", "1.5", "+1", "01", "-0", "9223372036854775808", "\u{661}"] {
            assert!(counter.decode(&Bytes::from(garbage)).is_err(), "{garbage:?}");
        }
        let list = List::from_iter(["a", "b"]);
        let encoded = Codec::list().encode(&list).unwrap();
        assert_eq!(Codec::list().decode(&encoded).unwrap(), list);
        assert!(Codec::list().decode(&Bytes::from_static(b"a,b")).is_err());
    }

    #[test]
    fn a_panic_in_the_types_own_code_is_an_error() {
        #[derive(Debug)]
        struct Panics;
        impl<'de> Deserialize<'de> for Panics {
            fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                panic!("a defect in the user's code")
            }
        }
        impl Serialize for Panics {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_unit()
            }
        }
        assert!(Codec::<Panics>::message_pack().decode(&Bytes::from_static(b"\xc0")).is_err());
    }

    /// One byte, which may be followed by others that say nothing.
    #[derive(Debug, PartialEq)]
    struct First(u8);

    impl Packed for First {
        fn pack(&self) -> Bytes {
            Bytes::copy_from_slice(&[self.0])
        }

        fn unpack(raw: &[u8]) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
            raw.first().copied().map(First).ok_or_else(|| "nothing there".into())
        }
    }

    #[test]
    fn a_packed_value_keeps_its_bytes_only_where_they_do_not_follow_from_it() {
        let codec = Codec::<First>::packed();
        let (value, kept) = codec.take(b"a").unwrap();
        assert_eq!((&value, kept, own_bytes(&value)), (&First(b'a'), None, Bytes::from_static(b"a")));
        let (value, kept) = codec.take(b"ab").unwrap();
        assert_eq!((value, kept), (First(b'a'), Some(Bytes::from_static(b"ab"))));
        assert!(codec.take(b"").is_err());
    }

    /// Reads anything but `!`, and cannot compare `?`.
    #[derive(Debug, PartialEq)]
    struct Touchy(u8);

    impl Packed for Touchy {
        fn pack(&self) -> Bytes {
            Bytes::copy_from_slice(&[self.0])
        }

        fn packs_to(&self, raw: &[u8]) -> bool {
            assert_ne!(self.0, b'?');
            raw == [self.0]
        }

        fn unpack(raw: &[u8]) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
            assert_ne!(raw, b"!");
            raw.first().copied().map(Touchy).ok_or_else(|| "nothing there".into())
        }
    }

    #[test]
    fn a_packed_type_that_panics_costs_its_value_or_the_room_for_its_bytes() {
        let codec = Codec::<Touchy>::packed();
        let (error, kept) = codec.take(b"!").unwrap_err();
        assert_eq!((error.to_string().as_str(), kept), ("decoding panicked", Bytes::from_static(b"!")));
        assert_eq!(codec.take(b"?").unwrap(), (Touchy(b'?'), Some(Bytes::from_static(b"?"))));
        assert_eq!(codec.take(b"a").unwrap(), (Touchy(b'a'), None));
    }

    #[derive(Debug, Serialize, Deserialize)]
    enum Tree {
        Leaf(u8),
        Not(Box<Self>),
        Inner { name: String, weight: f64, children: Vec<Self> },
    }

    #[test]
    fn nesting_without_end_is_an_error_and_does_not_overflow_the_stack() {
        let codec = Codec::<Tree>::message_pack();
        for around in [&b"\x81\xa3Not"[..], b"\x81\xa5Inner\x93\xa0\xca\0\0\0\0\x91"] {
            let nested = |depth| Bytes::from([around.repeat(depth), b"\x81\xa4Leaf\x01".to_vec()].concat());
            codec.decode(&nested(40)).unwrap();
            assert!(codec.decode(&nested(100_000)).is_err());
        }
        // What a program that is newer than this one has in a field that is unknown here.
        let unknown = [&b"\x82\xa4name\xa0\xa3new"[..], &[0x91; 100_000], &[0x90]].concat();
        assert!(Codec::<Old>::message_pack().decode(&unknown.into()).is_err());
    }

    #[test]
    fn what_nests_too_deep_to_be_decoded_is_not_encoded() {
        let nested = |depth| (0..depth).fold(Tree::Leaf(1), |tree, _| Tree::Not(Box::new(tree)));
        let codec = Codec::<Tree>::message_pack();
        codec.decode(&codec.encode(&nested(127)).unwrap()).unwrap();
        assert!(codec.encode(&nested(128)).is_err());
    }
}
