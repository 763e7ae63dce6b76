//! Values of `requestPrincipals` and `request.auth.principal`.

use std::fmt;

use serde_json::Value;

use super::matcher::StringMatch;
use super::request::VerifiedToken;

/// A pattern for a token's issuer and subject, as Istio reads it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct RequestPrincipalMatch {
    /// The value as the policy has it.
    written: String,
    issuer: StringMatch,
    subject: StringMatch,
}

impl RequestPrincipalMatch {
    /// Reads `<iss>/<sub>`, split at the last slash, because issuers are often URLs.
    ///
    /// Only a `*` at the start or the end of the whole value is a wildcard, and one at the start wins. It
    /// applies to the half that it is in. Without a slash, the other half may be anything that is not
    /// empty. Every other `*` is a literal character.
    pub(super) fn parse(value: &str) -> Self {
        use StringMatch::{Exact, Presence};
        let exact = |text: &str| Exact(text.to_owned());
        let (issuer, subject) = match value.rsplit_once('/') {
            Some((issuer, subject)) if value.starts_with('*') => {
                (StringMatch::parse(issuer), exact(subject))
            }
            Some((issuer, subject)) if value.ends_with('*') => {
                (exact(issuer), StringMatch::parse_tail(subject))
            }
            Some((issuer, subject)) => (exact(issuer), exact(subject)),
            None if value == "*" => (Presence, Presence),
            None if value.starts_with('*') => (Presence, StringMatch::parse(value)),
            None if value.ends_with('*') => (StringMatch::parse(value), Presence),
            None => (exact(value), exact("")),
        };
        Self {
            written: value.to_owned(),
            issuer,
            subject,
        }
    }

    /// Whether it matches a verified token. A claim that is absent, or that is no longer a string because
    /// it was split into a list, matches nothing.
    pub(super) fn matches(&self, token: &VerifiedToken) -> bool {
        let matches = |half: &StringMatch, claim: &str| {
            let text = token.claims.get(claim).and_then(Value::as_str);
            text.is_some_and(|text| half.matches(text))
        };
        matches(&self.issuer, "iss") && matches(&self.subject, "sub")
    }
}

/// Displays the value as the policy has it.
impl fmt::Display for RequestPrincipalMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Map;

    use super::*;

    fn token(issuer: Option<&str>, subject: Option<&str>) -> VerifiedToken {
        let claims = [("iss", issuer), ("sub", subject)];
        let present = claims.iter().filter_map(|(name, text)| {
            let text = (*text)?;
            Some(((*name).to_owned(), Value::from(text)))
        });
        VerifiedToken {
            issuer: issuer.unwrap_or_default().to_owned(),
            subject: subject.unwrap_or_default().to_owned(),
            claims: present.collect::<Map<_, _>>(),
        }
    }

    fn matches(value: &str, issuer: &str, subject: &str) -> bool {
        RequestPrincipalMatch::parse(value).matches(&token(Some(issuer), Some(subject)))
    }

    #[test]
    fn the_forms_of_the_documentation() {
        for (value, matching, other) in [
            ("*", ("i", "s"), ("i", "")),
            ("a/b", ("a", "b"), ("a", "c")),
            ("https://a/b/c", ("https://a/b", "c"), ("https://a", "b/c")),
            ("a/*", ("a", "x"), ("a", "")),
            ("a/b*", ("a", "bc"), ("a", "c")),
            ("a*", ("ab", "x"), ("ab", "")),
            ("*a", ("x", "ba"), ("ba", "x")),
            ("*/b", ("x", "b"), ("", "b")),
            ("*a/b", ("ba", "b"), ("ab", "b")),
            ("a", ("a", ""), ("a", "b")),
        ] {
            assert!(matches(value, matching.0, matching.1), "{value}");
            assert!(!matches(value, other.0, other.1), "{value}");
        }
    }

    /// If each half were read as a pattern of its own, these would let in more than Istio does.
    #[test]
    fn a_star_that_is_not_at_the_outer_start_or_end_is_a_literal() {
        for (value, matching, other) in [
            ("*/*", ("anyone", "*"), ("anyone", "x")),
            ("a*/b", ("a*", "b"), ("ax", "b")),
            ("a/*b", ("a", "*b"), ("a", "xb")),
            ("*a/b*", ("xa", "b*"), ("xa", "bx")),
            ("a*/*", ("a*", "x"), ("ax", "x")),
            (
                "https://a.example*/sub",
                ("https://a.example*", "sub"),
                ("https://a.example.evil", "sub"),
            ),
            ("**", ("x", "y*"), ("x", "y")),
            ("a**", ("a*b", "x"), ("ab", "x")),
            ("a/**", ("a", "*x"), ("a", "x")),
            ("**/b", ("x*", "b"), ("x", "b")),
        ] {
            assert!(matches(value, matching.0, matching.1), "{value}");
            assert!(!matches(value, other.0, other.1), "{value}");
        }
    }

    #[test]
    fn a_claim_that_is_absent_or_not_a_string_matches_nothing() {
        for value in ["*", "a", "a/", "/", "/b", "/*", "*/", "a/*", "*b"] {
            let principal = RequestPrincipalMatch::parse(value);
            for (issuer, subject) in [(None, Some("b")), (Some("a"), None), (None, None)] {
                assert!(!principal.matches(&token(issuer, subject)), "{value}");
            }
        }
        let mut split = token(Some("a"), Some("b"));
        split.claims["sub"] = Value::from(vec!["b"]);
        assert!(!RequestPrincipalMatch::parse("a/b").matches(&split));
        assert!(!RequestPrincipalMatch::parse("*").matches(&split));
    }

    #[test]
    fn it_displays_as_written() {
        for value in ["*", "*/*", "a*", "*a", "a", "https://a/*"] {
            assert_eq!(RequestPrincipalMatch::parse(value).to_string(), value);
        }
    }

    /// What a half has to be, in the words of the table that says what Istio does.
    #[derive(Debug)]
    enum Must {
        BeNonEmpty,
        Equal(String),
        StartWith(String),
        EndWith(String),
    }

    impl Must {
        fn hold(&self, claim: Option<&str>) -> bool {
            let Some(claim) = claim else { return false };
            match self {
                Self::BeNonEmpty => !claim.is_empty(),
                Self::Equal(text) => claim == text,
                Self::StartWith(text) => claim.starts_with(text.as_str()),
                Self::EndWith(text) => claim.ends_with(text.as_str()),
            }
        }
    }

    /// The table, character by character: which rows a value falls into is decided by its first and
    /// last character and by its last slash.
    fn model(value: &str) -> (Must, Must) {
        let letters: Vec<char> = value.chars().collect();
        let text = |letters: &[char]| letters.iter().collect::<String>();
        let slash = letters.iter().rposition(|&letter| letter == '/');
        if letters == ['*'] {
            return (Must::BeNonEmpty, Must::BeNonEmpty);
        }
        let (leads, trails) = (letters.first() == Some(&'*'), letters.last() == Some(&'*'));
        match slash {
            Some(at) => {
                let (issuer, subject) = (&letters[..at], &letters[at + 1..]);
                if leads {
                    let issuer = match &issuer[1..] {
                        [] => Must::BeNonEmpty,
                        rest => Must::EndWith(text(rest)),
                    };
                    (issuer, Must::Equal(text(subject)))
                } else if trails {
                    let subject = match &subject[..subject.len() - 1] {
                        [] => Must::BeNonEmpty,
                        rest => Must::StartWith(text(rest)),
                    };
                    (Must::Equal(text(issuer)), subject)
                } else {
                    (Must::Equal(text(issuer)), Must::Equal(text(subject)))
                }
            }
            None if leads => (Must::BeNonEmpty, Must::EndWith(text(&letters[1..]))),
            None if trails => (
                Must::StartWith(text(&letters[..letters.len() - 1])),
                Must::BeNonEmpty,
            ),
            None => (Must::Equal(text(&letters)), Must::Equal(String::new())),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn it_matches_what_istio_matches(
            value in "[ab*/]{1,6}",
            issuer in prop::option::of("[ab*/]{0,4}"),
            subject in prop::option::of("[ab*]{0,3}"),
        ) {
            let (issuer_must, subject_must) = model(&value);
            let (issuer, subject) = (issuer.as_deref(), subject.as_deref());
            let expected = issuer_must.hold(issuer) && subject_must.hold(subject);
            let principal = RequestPrincipalMatch::parse(&value);
            prop_assert_eq!(principal.matches(&token(issuer, subject)), expected);
        }
    }
}
