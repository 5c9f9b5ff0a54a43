//! Which keys a subscriber wants to hear of.

use std::sync::Arc;

/// Chooses keys: certain ones, or those that begin alike.
///
/// ```
/// # use pulse_rmap::{KeyFilter, Map};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let client = pulse_rmap::connect("memory:").await?;
/// # let map: Map<u16> = Map::builder("ports").join(&client).await?;
/// let mut changes = map.subscribe().only(KeyFilter::prefix("web/"));
/// map.set("db/1", &5432).await?;
/// let set = map.set("web/1", &80).await?;
/// map.wait_for(set.version).await?;
/// assert!(matches!(changes.try_next(), Some(pulse_rmap::Update::Change(change)) if &*change.key == "web/1"));
/// assert!(changes.try_next().is_none());
/// # map.close().await; client.close().await;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFilter(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Keys(Arc<[Arc<str>]>),
    Prefix(Arc<str>),
    Both(Arc<[KeyFilter; 2]>),
}

impl KeyFilter {
    /// This key alone.
    pub fn key(key: impl AsRef<str>) -> Self {
        Self::keys([key])
    }

    /// These keys.
    pub fn keys<K: AsRef<str>>(keys: impl IntoIterator<Item = K>) -> Self {
        let mut keys: Vec<Arc<str>> = keys.into_iter().map(|key| Arc::from(key.as_ref())).collect();
        keys.sort_unstable();
        Self(Kind::Keys(keys.into()))
    }

    /// Those that begin with this.
    pub fn prefix(prefix: impl AsRef<str>) -> Self {
        Self(Kind::Prefix(prefix.as_ref().into()))
    }

    /// Those that the other one chooses too.
    pub(crate) fn and(self, other: Self) -> Self {
        Self(Kind::Both(Arc::new([self, other])))
    }

    /// Whether the key is among them.
    #[must_use]
    pub fn accepts(&self, key: &str) -> bool {
        match &self.0 {
            Kind::Keys(keys) => keys.binary_search_by(|accepted| (**accepted).cmp(key)).is_ok(),
            Kind::Prefix(prefix) => key.starts_with(&**prefix),
            Kind::Both(both) => both.iter().all(|filter| filter.accepts(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_prefixes_choose_what_they_say() {
        let some = KeyFilter::keys(["b", "a", "c"]);
        assert!(["a", "b", "c"].iter().all(|key| some.accepts(key)));
        assert!(!some.accepts("aa") && !some.accepts(""));
        assert!(KeyFilter::prefix("a/").accepts("a/") && !KeyFilter::prefix("a/").accepts("a"));
        assert!(KeyFilter::prefix("").accepts("anything"));
    }
}
