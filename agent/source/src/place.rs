//! Places: a field in an object, a line in a file.

use std::fmt;

/// The path of a field in an object. Displays as `status.podIPs[0].ip`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct FieldPath(Vec<FieldStep>);

/// One step of a [`FieldPath`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum FieldStep {
    /// Into a mapping.
    Key(String),
    /// Into a sequence.
    Index(usize),
}

impl FieldPath {
    /// The path of keys that are separated by dots.
    pub(crate) fn at(keys: &str) -> Self {
        Self(
            keys.split('.')
                .map(|key| FieldStep::Key(key.to_owned()))
                .collect(),
        )
    }

    /// Parses a path such as `spec.rules[0].to`. A key with a dot in it counts as several keys, which
    /// do not exist.
    pub(crate) fn parse(text: &str) -> Self {
        let steps = text.split(['.', '[']).filter(|step| !step.is_empty());
        let step = |step: &str| match step.strip_suffix(']') {
            Some(index) => match index.parse() {
                Ok(index) => FieldStep::Index(index),
                Err(_) => FieldStep::Key(index.to_owned()),
            },
            None => FieldStep::Key(step.to_owned()),
        };
        Self(steps.map(step).collect())
    }

    /// The field `key` of this one.
    pub(crate) fn key(&self, key: &str) -> Self {
        self.then(FieldStep::Key(key.to_owned()))
    }

    /// The element `index`, from 0, of this one.
    pub(crate) fn index(&self, index: usize) -> Self {
        self.then(FieldStep::Index(index))
    }

    /// `inner`, as a path within this field.
    pub(crate) fn join(&self, inner: &Self) -> Self {
        Self([self.0.as_slice(), inner.0.as_slice()].concat())
    }

    /// The steps, outermost first.
    pub(crate) fn steps(&self) -> &[FieldStep] {
        &self.0
    }

    fn then(&self, step: FieldStep) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

/// The place at which a typed reader failed.
impl From<&serde_path_to_error::Path> for FieldPath {
    fn from(path: &serde_path_to_error::Path) -> Self {
        use serde_path_to_error::Segment;
        let step = |segment: &Segment| match segment {
            Segment::Seq { index } => Some(FieldStep::Index(*index)),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                Some(FieldStep::Key(key.clone()))
            }
            Segment::Unknown => None,
        };
        Self(path.iter().map_while(step).collect())
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |key: &str| {
            !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        for (depth, step) in self.0.iter().enumerate() {
            match step {
                FieldStep::Index(index) => write!(f, "[{index}]")?,
                FieldStep::Key(key) if !plain(key) => write!(f, "[{key:?}]")?,
                FieldStep::Key(key) if depth == 0 => f.write_str(key)?,
                FieldStep::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

/// A place in a file; lines and columns count from 1. Displays as `line 3, column 5`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Location {
    /// The line.
    pub(super) line: usize,
    /// The column, in characters.
    pub(super) column: usize,
}

impl Location {
    /// The place of a reader's error, if the error has one.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_look_as_people_write_them() {
        let pod_ip = FieldPath::at("status.podIPs").index(0).key("ip");
        let label = FieldPath::at("metadata.labels").key("istio.io/rev");
        for (path, text) in [
            (pod_ip.clone(), "status.podIPs[0].ip"),
            (label, r#"metadata.labels["istio.io/rev"]"#),
            (
                FieldPath::at("items").index(2).join(&pod_ip),
                "items[2].status.podIPs[0].ip",
            ),
            (FieldPath::default(), ""),
        ] {
            assert_eq!(path.to_string(), text);
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in [
            "spec",
            "spec.rules[0].to[12].operation",
            "items[2].spec",
            "",
        ] {
            assert_eq!(FieldPath::parse(text).to_string(), text);
        }
    }
}
