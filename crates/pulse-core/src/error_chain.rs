//! The whole story of an error as one text: what failed, and why, down to the first cause.
//!
//! For the crates of this workspace only, hence hidden.

use std::{
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// The most causes that are followed: a chain could lead in circles.
const DEEPEST: usize = 32;

/// An error with its causes, as `outer: middle: inner`. A cause whose text stands in that of the error before it is not
/// said once more. What a stranger's error panics with on being shown is left out.
#[must_use]
pub fn describe(error: &(dyn Error + 'static)) -> String {
    let shown = |error: &dyn Error| catch_unwind(AssertUnwindSafe(|| error.to_string())).ok();
    let mut text = shown(error).unwrap_or_else(|| "an error that panics when it is shown".to_owned());
    let mut last = text.clone();
    let mut cause = source(error);
    for _ in 0..DEEPEST {
        let Some(error) = cause else { break };
        if let Some(shown) = shown(error) {
            if !last.contains(&shown) {
                text.push_str(": ");
                text.push_str(&shown);
            }
            last = shown;
        }
        cause = source(error);
    }
    text
}

fn source<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    catch_unwind(AssertUnwindSafe(|| error.source())).ok().flatten()
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Self>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            assert!(!self.0.is_empty(), "this one cannot be shown");
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|source| source as _)
        }
    }

    fn chain(texts: &[&'static str]) -> String {
        let layered = texts.iter().rev().fold(None, |source, text| Some(Box::new(Layer(text, source))));
        describe(&*layered.expect("there is a text"))
    }

    #[test]
    fn every_cause_is_said_once() {
        assert_eq!(chain(&["outer"]), "outer");
        assert_eq!(chain(&["outer", "middle", "inner"]), "outer: middle: inner");
        assert_eq!(chain(&["outer: inner", "inner", "root"]), "outer: inner: root");
        assert_eq!(chain(&["same", "same", "same"]), "same");
        assert_eq!(chain(&["a: b: c", "b: c", "c"]), "a: b: c");
    }

    #[test]
    fn an_error_that_cannot_be_shown_does_no_harm() {
        assert_eq!(chain(&["outer", "", "inner"]), "outer: inner");
        assert_eq!(chain(&["", "inner"]), "an error that panics when it is shown: inner");
    }
}
