//! How values become bytes and back.
//!
//! A [`Codec`] is chosen when the map is joined and erases the type's serde bounds, so that nothing behind it needs
//! them. Decoding never panics and never trusts what it reads: whoever can write to the server can put anything there.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;
use pulse_core::Source;
use serde::{Serialize, de::DeserializeOwned};

/// Both directions for one type.
pub(crate) struct Codec<V> {
    encode: fn(&V) -> Result<Vec<u8>, Source>,
    decode: fn(&[u8]) -> Result<V, Source>,
}

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
        Self { encode: encode_message_pack, decode: decode_message_pack }
    }
}

impl<V> Codec<V> {
    pub(crate) fn encode(&self, value: &V) -> Result<Bytes, Source> {
        (self.encode)(value).map(Bytes::from)
    }

    pub(crate) fn decode(&self, raw: &[u8]) -> Result<V, Source> {
        // The type's own code runs here on bytes that a stranger may have chosen. Its panic must cost the replica this
        // value and nothing else; the value under construction is dropped by the unwinding, so nothing broken is seen.
        catch_unwind(AssertUnwindSafe(|| (self.decode)(raw))).unwrap_or_else(|_| Err(source("decoding panicked")))
    }
}

fn encode_message_pack<V: Serialize>(value: &V) -> Result<Vec<u8>, Source> {
    rmp_serde::to_vec_named(value).map_err(|error| Arc::new(error) as Source)
}

fn decode_message_pack<V: DeserializeOwned>(raw: &[u8]) -> Result<V, Source> {
    let mut rest = raw;
    let value = rmp_serde::from_read(&mut rest).map_err(|error| Arc::new(error) as Source)?;
    // Plain text often begins with a byte that is a whole MessagePack integer; only the rest of it gives it away.
    if !rest.is_empty() {
        return Err(source("bytes follow the value"));
    }
    Ok(value)
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
        assert!(Codec::<i64>::message_pack().decode(b"abc").is_err());
        assert_eq!(Codec::<i64>::message_pack().decode(b"a").unwrap(), 97);
    }

    #[test]
    fn no_bytes_at_all_are_an_error_not_a_value() {
        assert!(Codec::<String>::message_pack().decode(b"").is_err());
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
        assert!(Codec::<Panics>::message_pack().decode(b"\xc0").is_err());
    }
}
