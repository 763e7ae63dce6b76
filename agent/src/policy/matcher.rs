//! How values of a policy match attributes of a connection.

use std::net::IpAddr;

use ipnet::IpNet;

/// Istio's string match. The form of the value decides: `*` is presence, a leading `*` a suffix,
/// a trailing `*` a prefix, anything else exact. Further `*` are literal characters.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum StringMatch {
    /// Any non-empty value.
    Presence,
    /// Values that end so.
    Suffix(String),
    /// Values that begin so.
    Prefix(String),
    /// This value.
    Exact(String),
}

impl StringMatch {
    pub(super) fn parse(value: &str) -> Self {
        if value == "*" {
            return Self::Presence;
        }
        if let Some(suffix) = value.strip_prefix('*') {
            return Self::Suffix(suffix.to_owned());
        }
        match value.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.to_owned()),
            None => Self::Exact(value.to_owned()),
        }
    }

    pub(super) fn matches(&self, value: &str) -> bool {
        match self {
            Self::Presence => !value.is_empty(),
            Self::Suffix(suffix) => value.ends_with(suffix.as_str()),
            Self::Prefix(prefix) => value.starts_with(prefix.as_str()),
            Self::Exact(exact) => value == exact,
        }
    }
}

/// A field and its `not` twin: one of the positives, where there are any, and none of the
/// negatives.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Field<M> {
    pub(super) positive: Vec<M>,
    pub(super) negative: Vec<M>,
}

impl<M> Default for Field<M> {
    fn default() -> Self {
        Self {
            positive: Vec::new(),
            negative: Vec::new(),
        }
    }
}

impl<M> Field<M> {
    /// Whether neither the field nor its twin is set.
    pub(super) fn is_empty(&self) -> bool {
        self.positive.is_empty() && self.negative.is_empty()
    }

    /// Whether an attribute satisfies the field. An absent one satisfies no positive and every
    /// negative.
    pub(super) fn admits<V: ?Sized>(
        &self,
        value: Option<&V>,
        matches: impl Fn(&M, &V) -> bool,
    ) -> bool {
        let any = |list: &[M]| value.is_some_and(|value| list.iter().any(|m| matches(m, value)));
        (self.positive.is_empty() || any(&self.positive)) && !any(&self.negative)
    }
}

impl Field<StringMatch> {
    pub(super) fn admits_text(&self, value: Option<&str>) -> bool {
        self.admits(value, |m, value| m.matches(value))
    }
}

impl Field<IpNet> {
    pub(super) fn admits_address(&self, address: IpAddr) -> bool {
        self.admits(Some(&address.to_canonical()), |net, address| {
            net.contains(address)
        })
    }
}

impl Field<u16> {
    pub(super) fn admits_port(&self, port: u16) -> bool {
        self.admits(Some(&port), |own, port| own == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_the_value_decides() {
        for (value, matching, other) in [
            ("*", "a", ""),
            ("*foo*", "xfoo*", "foo"),
            ("abc*", "abc", "ab"),
            ("*.x", "a.x", "a.y"),
            ("a*c", "a*c", "abc"),
            ("ns.prod", "ns.prod", "nsXprod"),
        ] {
            let matcher = StringMatch::parse(value);
            assert!(matcher.matches(matching), "{value} {matching}");
            assert!(!matcher.matches(other), "{value} {other}");
        }
    }

    #[test]
    fn an_absent_attribute_satisfies_only_negatives() {
        let only = |positive: &[&str], negative: &[&str]| Field {
            positive: positive.iter().map(|v| StringMatch::parse(v)).collect(),
            negative: negative.iter().map(|v| StringMatch::parse(v)).collect(),
        };
        assert!(!only(&["*"], &[]).admits_text(None));
        assert!(only(&[], &["foo"]).admits_text(None));
        assert!(!only(&["*"], &["foo"]).admits_text(Some("foo")));
        assert!(only(&["*"], &["foo"]).admits_text(Some("bar")));
    }
}
