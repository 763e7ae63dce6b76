//! The attributes of an HTTP request that policies depend on.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, header};
use serde_json::{Map, Value};

/// Claims that hold a list in one string, separated by spaces (RFC 8693, section 4.2).
const SPACE_DELIMITED: [&str; 2] = ["scope", "permission"];

/// The attributes of a request, in the form in which the proxy passes it on.
#[derive(Clone, Debug)]
pub struct RequestAttributes {
    /// The method.
    pub method: String,
    /// `:authority`, or the Host header, as received; empty if there is neither.
    pub authority: String,
    /// The normalised path without query.
    pub path: String,
    /// The normalised path with its query.
    pub path_and_query: String,
    /// The headers, without pseudo-headers and Host.
    pub headers: HeaderMap,
    /// The client, from the last X-Forwarded-For line; `None` if that names none.
    pub forwarded_for: Option<IpAddr>,
    /// The verified token, if there is one.
    pub token: Option<Arc<VerifiedToken>>,
}

/// A verified JWT.
#[derive(Clone, Debug)]
pub struct VerifiedToken {
    /// `iss`.
    pub issuer: String,
    /// `sub`; empty if it is absent.
    pub subject: String,
    /// The whole payload.
    pub claims: Map<String, Value>,
}

/// Which header a condition is about.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum HeaderKey {
    /// An ordinary header.
    Named(HeaderName),
    /// `:method`.
    Method,
    /// `:authority`, which is `host` in HTTP/1.
    Authority,
    /// `:path` as it is passed on: normalised, with its query.
    Path,
}

impl HeaderKey {
    /// Reads a name from a policy; `None` if no header can have it.
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            ":method" => Some(Self::Method),
            ":authority" => Some(Self::Authority),
            ":path" => Some(Self::Path),
            _ => match HeaderName::try_from(name).ok()? {
                header::HOST => Some(Self::Authority),
                named => Some(Self::Named(named)),
            },
        }
    }

    /// The separator with which several lines of this header are joined (RFC 9110, section 5.3; for
    /// cookies RFC 9113, section 8.2.3).
    pub(super) fn separator(&self) -> &'static [u8] {
        match self {
            Self::Named(name) if *name == header::COOKIE => b"; ",
            Self::Named(_) | Self::Method | Self::Authority | Self::Path => b",",
        }
    }
}

/// Displays the name as the policy has it.
impl fmt::Display for HeaderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Named(name) => name.as_str(),
            Self::Method => ":method",
            Self::Authority => ":authority",
            Self::Path => ":path",
        })
    }
}

impl RequestAttributes {
    /// The authority; `None` if it is empty.
    pub(super) fn host(&self) -> Option<&str> {
        Some(self.authority.as_str()).filter(|authority| !authority.is_empty())
    }

    /// The lines of a header; empty if it is absent.
    pub(super) fn lines(&self, key: &HeaderKey) -> Vec<Cow<'_, [u8]>> {
        match key {
            HeaderKey::Named(name) => {
                let lines = self.headers.get_all(name).into_iter();
                lines.map(|line| Cow::Borrowed(line.as_bytes())).collect()
            }
            HeaderKey::Method => vec![Cow::Borrowed(self.method.as_bytes())],
            HeaderKey::Authority => {
                let host = self.host().into_iter();
                host.map(|host| Cow::Borrowed(host.as_bytes())).collect()
            }
            HeaderKey::Path => vec![Cow::Borrowed(self.path_and_query.as_bytes())],
        }
    }
}

/// The client of a request: the last address in the last X-Forwarded-For line. The caller wrote it, or
/// passed it on. `None` if that is not an address.
pub fn forwarded_for(headers: &HeaderMap) -> Option<IpAddr> {
    let line = headers.get_all("x-forwarded-for").into_iter().next_back()?;
    let last = line.to_str().ok()?.rsplit(',').next()?;
    let address: IpAddr = last.trim().parse().ok()?;
    Some(address.to_canonical())
}

impl VerifiedToken {
    /// The strings of a claim, by the names that lead to it: the string itself, or the strings in a
    /// list. `None` if there is no such claim, or if it is a number, a boolean or an object.
    pub(super) fn texts(&self, path: &[String]) -> Option<Vec<&str>> {
        let (first, rest) = path.split_first()?;
        let mut value = self.claims.get(first)?;
        for name in rest {
            value = value.as_object()?.get(name)?;
        }
        let is_delimited = rest.is_empty() && SPACE_DELIMITED.contains(&first.as_str());
        match value {
            Value::String(text) if is_delimited => Some(text.split(' ').collect()),
            Value::String(text) => Some(vec![text]),
            Value::Array(list) => Some(list.iter().filter_map(Value::as_str).collect()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_client_is_the_last_address_of_x_forwarded_for() {
        for (lines, client) in [
            (&["10.0.0.1, 10.0.0.2"][..], Some("10.0.0.2")),
            (&["10.0.0.1", "fd00::1"], Some("fd00::1")),
            (&["::ffff:10.0.0.1"], Some("10.0.0.1")),
            (&["10.0.0.1, unknown"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for &line in lines {
                headers.append("x-forwarded-for", line.parse().expect("valid"));
            }
            let client = client.map(|text| text.parse().expect("valid"));
            assert_eq!(forwarded_for(&headers), client, "{lines:?}");
        }
    }

    #[test]
    fn claims_are_found_by_their_path_and_only_strings_count() {
        let Value::Object(claims) = json!({
            "aud": ["a", 1, "b"], "n": 5, "scope": "write read", "empty": "",
            "nested": {"key": "value", "scope": "a b"},
        }) else {
            unreachable!("an object")
        };
        let token = VerifiedToken {
            issuer: String::new(),
            subject: String::new(),
            claims,
        };
        let texts = |path: &[&str]| {
            let path: Vec<String> = path.iter().map(|&name| name.to_owned()).collect();
            token
                .texts(&path)
                .map(|texts| texts.into_iter().map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(texts(&["aud"]), Some(vec!["a".into(), "b".into()]));
        assert_eq!(texts(&["scope"]), Some(vec!["write".into(), "read".into()]));
        assert_eq!(texts(&["nested", "key"]), Some(vec!["value".into()]));
        assert_eq!(texts(&["nested", "scope"]), Some(vec!["a b".into()]));
        for absent in [
            &["n"][..],
            &["nested"],
            &["nested", "x"],
            &["aud", "0"],
            &[],
        ] {
            assert_eq!(texts(absent), None, "{absent:?}");
        }
    }
}
