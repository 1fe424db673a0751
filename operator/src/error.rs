//! What all errors have in common: a chain of causes, and whether another try can help.

use std::error::Error;

/// `error` and all that caused it, outermost first, on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let line = error.to_string();
        if !text.ends_with(&line) {
            text = format!("{text}: {line}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to apply ConfigMap a/b")]
    struct Outer(#[source] std::fmt::Error);

    #[test]
    fn the_chain_names_every_cause_once() {
        let text = chain(&Outer(std::fmt::Error));

        assert_eq!(text, "failed to apply ConfigMap a/b: an error occurred when formatting an argument");
    }
}
