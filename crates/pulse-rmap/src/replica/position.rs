//! Whether a commit is the next one.

use pulse_core::{Incarnation, MapCommit, Revision, Version};

/// Where a replica stands in the history of its map.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position {
    version: Option<Version>,
    /// How the version is known.
    origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// It was read from the backend. Commits up to it may still be on their way through the feed.
    Read,
    /// The feed itself led here. Whatever it brings next must continue exactly.
    Feed,
}

/// What to do with a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Apply it.
    Next,
    /// It was made before the version that was read, which includes it.
    Included,
}

/// Why a replica cannot go on with the feed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// The commit does not continue from where the replica stands: something was missed, went back, or began anew.
    #[error("a commit on revision {} of {} does not continue from {}", before, incarnation, or_none(.at))]
    Discontinuous { at: Option<Version>, incarnation: Incarnation, before: Revision },
    /// The commit holds a kind of change that this version of the crate does not know.
    #[error("a commit holds a change of an unknown kind")]
    Unknown,
}

fn or_none(version: &Option<Version>) -> String {
    version.map_or_else(|| "no map".to_owned(), |version| version.to_string())
}

impl Position {
    /// At a version that was read from the backend.
    pub(crate) fn read(version: Option<Version>) -> Self {
        Self { version, origin: Origin::Read }
    }

    pub(crate) fn version(&self) -> Option<Version> {
        self.version
    }

    /// Moves past the commit if it is the next one.
    pub(crate) fn step(&mut self, commit: &MapCommit) -> Result<Step, Broken> {
        if commit.continues(self.version) {
            *self = Self { version: commit.version(), origin: Origin::Feed };
            return Ok(Step::Next);
        }
        if self.origin == Origin::Read {
            if commit.version() == self.version {
                // The commit that made the version which was read: from here on the feed must continue.
                self.origin = Origin::Feed;
                return Ok(Step::Included);
            }
            let older =
                |version: Version| commit.incarnation == version.incarnation && commit.after <= version.revision;
            if self.version.is_some_and(older) {
                return Ok(Step::Included);
            }
        }
        let MapCommit { incarnation, before, .. } = *commit;
        Err(Broken::Discontinuous { at: self.version, incarnation, before })
    }
}
