//! How senders write the names of header lines. Names are compared without their case, but some HTTP/1
//! programs know one spelling only, so that a message's own is kept.

use std::cmp::Ordering;

/// The names of a message's header lines as they were written: those that are not in lower case, ordered
/// without their case. Of lines with the same name, the first counts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Spelling(Vec<Box<str>>);

impl Spelling {
    /// The spelling of these names.
    pub(super) fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let is_spelled = |name: &&str| name.bytes().any(|byte| byte.is_ascii_uppercase());
        let mut spelled: Vec<Box<str>> = names.filter(is_spelled).map(Box::from).collect();
        // The order of equal names is kept.
        spelled.sort_by(|one, other| without_case(one, other));
        spelled.dedup_by(|later, first| later.eq_ignore_ascii_case(first));
        Self(spelled)
    }

    /// A name as the sender wrote it, or unchanged.
    pub(super) fn spell<'a>(&'a self, name: &'a str) -> &'a str {
        let found = self.0.binary_search_by(|known| without_case(known, name));
        found.map_or(name, |index| &self.0[index])
    }
}

fn without_case(one: &str, other: &str) -> Ordering {
    let one = one.bytes().map(|byte| byte.to_ascii_lowercase());
    one.cmp(other.bytes().map(|byte| byte.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_spelled_as_it_was_first_written() {
        let names = ["X-B", "SOAPAction", "x-lower", "x-b", "soapaction", "Host"];
        let spelling = Spelling::of(names.into_iter());
        for (name, spelled) in [
            ("host", "Host"),
            ("soapaction", "SOAPAction"),
            ("x-b", "X-B"),
            ("x-lower", "x-lower"),
            ("x-other", "x-other"),
        ] {
            assert_eq!(spelling.spell(name), spelled);
        }
    }
}
