//! Headers that a request gets from this agent and from authorizers, not from its client.

use std::collections::BTreeSet;

use http::{HeaderMap, HeaderName};

use ambit_model::{HeaderPattern, folded};

/// Names of such headers. Trailers must not bring one, nor one that an application may take for it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InjectedHeaders {
    folded: BTreeSet<String>,
    patterns: Vec<HeaderPattern>,
}

impl InjectedHeaders {
    /// Adds a name.
    pub fn add(&mut self, name: &HeaderName) {
        self.folded.insert(folded(name.as_str()));
    }

    /// Adds all names that a pattern means.
    pub fn add_pattern(&mut self, pattern: &HeaderPattern) {
        self.patterns.push(pattern.clone());
    }

    /// Takes such headers out.
    pub(crate) fn withhold(&self, trailers: &mut HeaderMap) {
        let names: Vec<HeaderName> = trailers.keys().cloned().collect();
        for name in names.iter().filter(|name| self.covers(name)) {
            trailers.remove(name);
        }
    }

    fn covers(&self, name: &HeaderName) -> bool {
        let is_like = |pattern: &HeaderPattern| pattern.resembles(name);
        self.folded.contains(&folded(name.as_str())) || self.patterns.iter().any(is_like)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn an_output_and_what_looks_like_it_are_withheld() {
        let mut injected_headers = InjectedHeaders::default();
        injected_headers.add(&HeaderName::from_static("x-user"));
        injected_headers.add_pattern(&HeaderPattern::new("x-auth-*").expect("a pattern"));
        let mut trailers = HeaderMap::new();
        for name in [
            "x-user",
            "x_user",
            "x.user",
            "x-auth-id",
            "x_auth_id",
            "x-users",
            "x-aut",
        ] {
            trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        injected_headers.withhold(&mut trailers);
        let mut left: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["x-aut", "x-users"]);
    }
}
