use std::fmt;

/// A place in a file; lines and columns count from 1. Displays as `line 3, column 5`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Location {
    /// The line.
    pub(super) line: usize,
    /// The column, in characters.
    pub(super) column: usize,
}

impl Location {
    /// Where a reader's error stands, if it says.
    pub(super) fn of(error: &serde_norway::Error) -> Option<Self> {
        error.location().map(|place| Self {
            line: place.line(),
            column: place.column(),
        })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}
