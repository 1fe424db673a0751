//! An error and all its causes, as one line.

use std::error::Error;
use std::iter::successors;

/// `error` and its sources, outermost first, with ": " between.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    successors(Some(error), |error| (*error).source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
