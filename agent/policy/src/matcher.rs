//! How values of a policy match attributes of a connection or a request.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use ambit_model::WorkloadIdentity;

/// Istio's string match. The form of the value decides: `*` is presence, a leading `*` makes a suffix, a
/// trailing `*` a prefix, and anything else has to be equal. Further `*` are literal characters.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum StringMatch {
    /// Any non-empty value.
    Presence,
    /// Values with this suffix.
    Suffix(String),
    /// Values with this prefix.
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
        Self::parse_tail(value)
    }

    /// Reads a value in which a `*` at the start is a literal character, unless it is the whole value.
    pub(super) fn parse_tail(value: &str) -> Self {
        match value.strip_suffix('*') {
            Some("") => Self::Presence,
            Some(prefix) => Self::Prefix(prefix.to_owned()),
            None => Self::Exact(value.to_owned()),
        }
    }

    pub(super) fn matches(&self, value: impl AsRef<[u8]>) -> bool {
        let value = value.as_ref();
        match self {
            Self::Presence => !value.is_empty(),
            Self::Suffix(suffix) => value.ends_with(suffix.as_bytes()),
            Self::Prefix(prefix) => value.starts_with(prefix.as_bytes()),
            Self::Exact(exact) => value == exact.as_bytes(),
        }
    }

    /// Matches a line of a header, which is present even if it is empty.
    pub(super) fn matches_line(&self, line: impl AsRef<[u8]>) -> bool {
        *self == Self::Presence || self.matches(line)
    }
}

/// Displays the value as the policy has it.
impl fmt::Display for StringMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Presence => f.write_str("*"),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Exact(exact) => f.write_str(exact),
        }
    }
}

/// A field and its `not` twin. They admit a value that matches one of the positives (or there are none)
/// and none of the negatives.
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

    /// Splits it into the field and its twin, those that are set.
    pub(super) fn halves(&self) -> impl Iterator<Item = Self>
    where
        M: Clone,
    {
        let positive = Self {
            positive: self.positive.clone(),
            negative: Vec::new(),
        };
        let negative = Self {
            positive: Vec::new(),
            negative: self.negative.clone(),
        };
        [positive, negative]
            .into_iter()
            .filter(|half| !half.is_empty())
    }

    /// Whether an attribute satisfies the field and its twin. An absent one matches nothing: it satisfies
    /// every twin, and no field that is set.
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

    /// Whether an attribute that is a list satisfies the field. It matches if one of its elements does.
    pub(super) fn admits_list(&self, values: Option<&[&str]>) -> bool {
        self.admits(values, |m, values| {
            values.iter().any(|value| m.matches(value))
        })
    }
}

impl Field<IpNet> {
    pub(super) fn admits_address(&self, address: IpAddr) -> bool {
        self.admits(Some(&address.to_canonical()), |net, address| {
            net.contains(address)
        })
    }

    /// Whether the twin has an address.
    pub(super) fn excludes_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.negative.iter().any(|net| net.contains(&address))
    }
}

impl Field<u16> {
    pub(super) fn admits_port(&self, port: u16) -> bool {
        self.admits(Some(&port), |own, port| own == port)
    }
}

/// A value of `serviceAccounts`. It matches in any trust domain.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct ServiceAccountMatch {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl ServiceAccountMatch {
    pub(super) fn matches(&self, identity: &WorkloadIdentity) -> bool {
        self.namespace == identity.namespace() && self.name == identity.service_account()
    }
}

impl fmt::Display for ServiceAccountMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A value of `hosts`. Letter case and a dot at the end of the name do not matter.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct HostMatch(StringMatch);

impl HostMatch {
    pub(super) fn parse(value: &str) -> Self {
        let value = value.to_ascii_lowercase();
        Self(match StringMatch::parse(&value) {
            StringMatch::Exact(exact) => StringMatch::Exact(canonical_host(&exact)),
            other => other,
        })
    }

    /// Matches an authority, including the port if the client wrote one, with or without the dot.
    pub(super) fn matches(&self, authority: &str) -> bool {
        self.0.matches_line(authority.to_ascii_lowercase())
            || self.0.matches_line(canonical_host(authority))
    }
}

impl fmt::Display for HostMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The authority in lower case, without the dot at the end of the name.
fn canonical_host(authority: &str) -> String {
    let authority = authority.to_ascii_lowercase();
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{}:{port}", host.strip_suffix('.').unwrap_or(host))
        }
        _ => authority.strip_suffix('.').unwrap_or(&authority).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_the_value_decides_how_it_matches() {
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

    #[test]
    fn hosts_ignore_case_and_a_final_dot_and_keep_their_port() {
        for (value, matching, other) in [
            ("Secret.com", "sECRET.COM", "secret.com:8080"),
            ("secret.com", "secret.com.", "secret.comx"),
            ("secret.com:*", "secret.com.:8080", "secret.com"),
            ("*.suffix.x.com", "deny.SUFFIX.x.com", "suffix.x.com"),
            (
                "*.suffix.x.com",
                "deny.suffix.x.com.",
                "deny.suffix.x.com:80",
            ),
            ("*.suffix.x.com.", "deny.suffix.x.com.", "deny.suffix.x.com"),
            ("secret.com.:*", "secret.com.:80", "secret.com:80"),
            ("secret.com.", "secret.com", "secret.com.:80"),
            ("prefix.x.*", "PREFIX.x.com", "xprefix.x.com"),
            ("[fd00::1]", "[FD00::1]", "[fd00::1]:80"),
        ] {
            let host = HostMatch::parse(value);
            assert!(host.matches(matching), "{value} {matching}");
            assert!(!host.matches(other), "{value} {other}");
        }
    }
}
