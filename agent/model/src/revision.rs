use std::fmt;
use std::sync::Arc;

/// The label that makes an object one for a single revision of the control plane.
pub const REVISION_LABEL: &str = "istio.io/rev";

/// The longest value of a label, in bytes.
const LONGEST: usize = 63;

/// The revision of the control plane that this agent counts as: istiod's `REVISION`, which Istio's
/// charts set to `default` where nothing else is said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revision(Arc<str>);

/// A text is no [`Revision`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0:?} is no revision, for no label can have it: up to 63 letters, digits, '-', '_' and '.', with \
     a letter or digit at both ends"
)]
pub struct RevisionError(String);

impl Revision {
    /// A revision from its text, which may be empty.
    ///
    /// # Errors
    /// Where no label can have this value: nothing that is for a revision would apply.
    pub fn new(text: &str) -> Result<Self, RevisionError> {
        let bytes = text.as_bytes();
        let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        let is_end = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
        let is_value = bytes.len() <= LONGEST && bytes.iter().all(is_inner);
        if !is_value || !is_end(bytes.first()) || !is_end(bytes.last()) {
            return Err(RevisionError(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// Whether an object with this value of [`REVISION_LABEL`] applies: always without the label,
    /// else where the two are equal. As in Istio, `default` is a revision like others, whose control
    /// plane takes no object that is for another one; one without any revision takes all.
    pub fn takes(&self, label: Option<&str>) -> bool {
        self.0.is_empty() || label.is_none_or(|label| *label == *self.0)
    }
}

impl Default for Revision {
    fn default() -> Self {
        Self("default".into())
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_to_be_equal_where_there_is_one() {
        for (own, label, is_taken) in [
            ("default", None, true),
            ("default", Some("default"), true),
            ("default", Some("canary"), false),
            ("default", Some(""), false),
            ("default", Some("Default"), false),
            ("canary", None, true),
            ("canary", Some("canary"), true),
            ("canary", Some("default"), false),
            ("canary", Some("canary-2"), false),
            ("", None, true),
            ("", Some("canary"), true),
        ] {
            let revision = Revision::new(own).expect(own);
            assert_eq!(revision.takes(label), is_taken, "{own:?} {label:?}");
        }
        assert_eq!(Revision::default().to_string(), "default");
    }

    #[test]
    fn what_no_label_can_have_is_refused() {
        let longest = "a".repeat(LONGEST);
        for text in ["", "1-29-1", "a", "A_b.c", &longest] {
            assert!(Revision::new(text).is_ok(), "{text:?}");
        }
        let longer = "a".repeat(LONGEST + 1);
        for text in ["a,b", " ", "a b", "-a", "a.", "é", &longer] {
            assert!(Revision::new(text).is_err(), "{text:?}");
        }
    }
}
