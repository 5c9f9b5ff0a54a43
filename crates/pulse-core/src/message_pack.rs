//! Values as MessagePack: how the crates above encode what their users give them, and decode what anybody may have
//! written.
//!
//! Structs are maps from field names to values, so that fields can be added later. Decoding never panics by itself and
//! never overflows the stack; see [`nesting`](crate::nesting).

use std::sync::Arc;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{Source, nesting::too_deep};

const TOO_DEEP: &str = "arrays and maps nest deeper than 128 levels";

/// Encodes a value.
///
/// # Errors
///
/// What the type's own code says, or that the value nests deeper than [`MAX_NESTING`](crate::nesting::MAX_NESTING):
/// what nobody would decode must not be stored.
pub fn encode<V: Serialize + ?Sized>(value: &V) -> Result<Bytes, Source> {
    let raw = rmp_serde::to_vec_named(value).map_err(|error| Arc::new(error) as Source)?;
    if too_deep(&raw) { Err(source(TOO_DEEP)) } else { Ok(raw.into()) }
}

/// Decodes a value, which must be all that there is.
///
/// # Errors
///
/// What is wrong with the bytes.
pub fn decode<V: DeserializeOwned>(raw: &[u8]) -> Result<V, Source> {
    if too_deep(raw) {
        return Err(source(TOO_DEEP));
    }
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
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded_and_nothing_may_follow_it() {
        let raw = encode(&("a", 7)).unwrap();
        assert_eq!(decode::<(String, u8)>(&raw).unwrap(), ("a".to_owned(), 7));
        assert!(decode::<u8>(b"7 is text").is_err());
        assert!(decode::<u8>(b"").is_err());
    }
}
