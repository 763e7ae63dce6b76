use std::collections::BTreeSet;

use http::header::{AUTHORIZATION, COOKIE, Entry};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::is_shown;
use ambit_model::{AuthorizerApi, ExtensionProvider, HeaderPattern, HttpApi, folded};

/// Changes to the headers of a request or response that an authorizer asks for. None of them concerns
/// pseudo-headers, Host, or framing.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct HeaderMutations {
    changes: Vec<HeaderChange>,
    removed: Vec<HeaderName>,
}

/// A change of one header.
#[derive(Clone, PartialEq, Debug)]
pub struct HeaderChange {
    name: HeaderName,
    value: HeaderValue,
    placement: HeaderPlacement,
}

/// How a header combines with existing ones of its name (`HeaderAppendAction`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderPlacement {
    /// Replaces all existing values.
    Set,
    /// Is added after the existing values.
    Append,
    /// Is added only if there is none.
    AddIfAbsent,
    /// Replaces the existing values, and is left out if there are none.
    SetIfPresent,
}

/// A change that an authorizer may not make.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    /// Not a valid header name. Pseudo-headers are not valid names either.
    #[error("{0:?} is not the name of a header that an authorizer may change")]
    Name(String),
    /// Not a valid header value.
    #[error("the value for the header {0} contains characters that a header cannot contain")]
    Value(HeaderName),
    /// The header belongs to HTTP itself.
    #[error("an authorizer may not change the header {0}, which belongs to HTTP itself")]
    Reserved(HeaderName),
}

impl HeaderMutations {
    /// Adds a change.
    ///
    /// # Errors
    /// [`HeaderError`] if an authorizer may not make it.
    pub fn change(
        &mut self,
        name: &[u8],
        value: &[u8],
        placement: HeaderPlacement,
    ) -> Result<(), HeaderError> {
        let (name, value) = header(name, value)?;
        self.changes.push(HeaderChange {
            name,
            value,
            placement,
        });
        Ok(())
    }

    /// Adds the removal of a header. Headers that belong to HTTP itself stay, as in Envoy.
    ///
    /// # Errors
    /// [`HeaderError::Name`] if it is not a valid header name.
    pub fn remove(&mut self, name: &[u8]) -> Result<(), HeaderError> {
        if name.starts_with(b":") {
            return Ok(());
        }
        let name = parse_name(name)?;
        if !is_reserved(&name) {
            self.removed.push(name);
        }
        Ok(())
    }

    /// Adds a header of an HTTP response, with all its values, to replace existing ones. Headers that
    /// belong to HTTP itself are ignored: they describe the authorizer's own response.
    pub(super) fn set_all(&mut self, headers: &HeaderMap, name: &HeaderName) {
        if is_reserved(name) {
            return;
        }
        let placements =
            std::iter::once(HeaderPlacement::Set).chain(std::iter::repeat(HeaderPlacement::Append));
        let values = headers.get_all(name).iter().zip(placements);
        self.changes
            .extend(values.map(|(value, placement)| HeaderChange {
                name: name.clone(),
                value: value.clone(),
                placement,
            }));
    }

    /// Whether there are no changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.removed.is_empty()
    }

    /// The names of all headers that are changed or removed.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        let changed = self.changes.iter().map(|change| &change.name);
        changed.chain(&self.removed)
    }

    /// Applies the changes to a request. Headers of the client that an application could mistake for
    /// one of the changed headers are removed first.
    pub fn apply_to_request(&self, headers: &mut HeaderMap) {
        let own: BTreeSet<String> = self.names().map(|name| folded(name.as_str())).collect();
        let exact: BTreeSet<&str> = self.names().map(HeaderName::as_str).collect();
        let is_lookalike = |name: &&HeaderName| {
            !exact.contains(name.as_str()) && own.contains(&folded(name.as_str()))
        };
        let lookalikes: Vec<_> = headers.keys().filter(is_lookalike).cloned().collect();
        for name in lookalikes {
            headers.remove(name);
        }
        self.apply(headers);
    }

    /// Applies the changes in order, and then the removals.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for change in &self.changes {
            change.apply(headers);
        }
        for name in &self.removed {
            headers.remove(name);
        }
    }
}

impl HeaderChange {
    fn apply(&self, headers: &mut HeaderMap) {
        let value = self.value.clone();
        match (headers.entry(&self.name), self.placement) {
            (Entry::Vacant(_), HeaderPlacement::SetIfPresent)
            | (Entry::Occupied(_), HeaderPlacement::AddIfAbsent) => {}
            (Entry::Vacant(vacant), _) => {
                vacant.insert(value);
            }
            (Entry::Occupied(mut present), HeaderPlacement::Append) => present.append(value),
            (
                Entry::Occupied(mut present),
                HeaderPlacement::Set | HeaderPlacement::SetIfPresent,
            ) => {
                present.insert(value);
            }
        }
    }
}

/// Whether a header concerns framing, the destination host, or the connection.
pub(super) fn is_reserved(name: &HeaderName) -> bool {
    is_reserved_text(name.as_str())
}

/// The same for a name in lower case.
pub(super) fn is_reserved_text(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "content-length"
            | "transfer-encoding"
            | "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "upgrade"
            | "http2-settings"
            | "expect"
    )
}

fn header(name: &[u8], value: &[u8]) -> Result<(HeaderName, HeaderValue), HeaderError> {
    let name = parse_name(name)?;
    if is_reserved(&name) {
        return Err(HeaderError::Reserved(name));
    }
    match HeaderValue::from_bytes(value) {
        Ok(value) => Ok((name, value)),
        Err(_) => Err(HeaderError::Value(name)),
    }
}

fn parse_name(name: &[u8]) -> Result<HeaderName, HeaderError> {
    HeaderName::from_bytes(name)
        .map_err(|_| HeaderError::Name(String::from_utf8_lossy(name).into_owned()))
}

/// Removes those headers of a request that only the authorizer may set, but that it would not be shown.
/// To be called before the check.
pub fn withhold_unseen(provider: &ExtensionProvider, headers: &mut HeaderMap) {
    if let AuthorizerApi::Http(api) = &provider.api {
        withhold(api, headers, |name| !is_shown(api, name));
    }
}

/// Removes those headers of a request that only the authorizer may set, if it was let through without
/// an answer. The client's own credentials stay, since applications verify them.
pub fn withhold_unjudged(provider: &ExtensionProvider, headers: &mut HeaderMap) {
    if let AuthorizerApi::Http(api) = &provider.api {
        withhold(api, headers, |name| ![AUTHORIZATION, COOKIE].contains(name));
    }
}

/// Removes lookalikes of headers that the provider outputs, and those headers themselves if the provider
/// names them in full and they are `unvouched`. A header that only matches a pattern may be the
/// client's own, such as `x-request-id` for `x-*`.
fn withhold(api: &HttpApi, headers: &mut HeaderMap, unvouched: impl Fn(&HeaderName) -> bool) {
    let is_withheld = |name: &&HeaderName| {
        let name: &HeaderName = name;
        let mut means = false;
        let mut resembles = false;
        for pattern in &api.to_upstream_on_allow {
            let is_named = matches!(pattern, HeaderPattern::Exact(exact) if exact == name);
            if is_named && unvouched(name) {
                return true;
            }
            means |= pattern.matches(name);
            resembles |= pattern.resembles(name);
        }
        resembles && !means
    };
    let withheld: Vec<HeaderName> = headers.keys().filter(is_withheld).cloned().collect();
    for name in withheld {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ambit_model::{OnError, ProviderService};

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn changed(placement: HeaderPlacement) -> HeaderMap {
        let mut mutations = HeaderMutations::default();
        for name in [b"X-There".as_slice(), b"X-New"] {
            mutations.change(name, b"new", placement).expect("valid");
        }
        let mut found = headers(&[("x-there", "one"), ("x-there", "two")]);
        mutations.apply(&mut found);
        found
    }

    #[test]
    fn placements() {
        let old = [("x-there", "one"), ("x-there", "two")];
        let new = ("x-new", "new");
        for (placement, expected) in [
            (HeaderPlacement::Set, vec![("x-there", "new"), new]),
            (
                HeaderPlacement::Append,
                vec![old[0], old[1], ("x-there", "new"), new],
            ),
            (HeaderPlacement::AddIfAbsent, vec![old[0], old[1], new]),
            (HeaderPlacement::SetIfPresent, vec![("x-there", "new")]),
        ] {
            assert_eq!(changed(placement), headers(&expected), "{placement:?}");
        }
    }

    #[test]
    fn lookalikes_of_changed_headers_are_removed() {
        let mut mutations = HeaderMutations::default();
        let set = mutations.change(b"x-auth-user", b"alice", HeaderPlacement::AddIfAbsent);
        set.expect("valid");
        mutations.remove(b"x-old").expect("valid");
        let mut found = headers(&[
            ("x_auth_user", "mallory"),
            ("x-auth_user", "mallory"),
            ("x.auth.user", "mallory"),
            ("x_old", "1"),
            ("x-auth-users", "2"),
        ]);
        mutations.apply_to_request(&mut found);
        let expected = headers(&[("x-auth-users", "2"), ("x-auth-user", "alice")]);
        assert_eq!(found, expected);
    }

    #[test]
    fn removals_are_applied_last() {
        let mut mutations = HeaderMutations::default();
        mutations.remove(b"X-Secret").expect("valid");
        let set = mutations.change(b"x-secret", b"again", HeaderPlacement::Set);
        set.expect("valid");
        let mut found = headers(&[("x-secret", "one"), ("x-other", "two")]);
        mutations.apply(&mut found);
        assert_eq!(found, headers(&[("x-other", "two")]));
    }

    #[test]
    fn headers_of_http_itself_are_neither_set_nor_removed() {
        for name in [
            "Host",
            "content-length",
            "Transfer-Encoding",
            "connection",
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
            "upgrade",
            "http2-settings",
            "expect",
        ] {
            let mut mutations = HeaderMutations::default();
            let set = mutations.change(name.as_bytes(), b"1", HeaderPlacement::Set);
            assert!(matches!(set, Err(HeaderError::Reserved(_))), "{name}");
            assert_eq!(mutations.remove(name.as_bytes()), Ok(()));
            assert!(mutations.is_empty(), "{name}");
        }
        let mut mutations = HeaderMutations::default();
        assert_eq!(mutations.remove(b":path"), Ok(()));
        assert!(mutations.is_empty());
    }

    #[test]
    fn invalid_names_and_values_are_refused() {
        let mut mutations = HeaderMutations::default();
        for name in [":path", ":authority", "", "a b", "x\r\nhost", "x:"] {
            let set = mutations.change(name.as_bytes(), b"1", HeaderPlacement::Set);
            assert!(matches!(set, Err(HeaderError::Name(_))), "{name:?}");
        }
        for value in ["a\r\nx-admin: yes", "a\0", "a\nb"] {
            let set = mutations.change(b"x-user", value.as_bytes(), HeaderPlacement::Append);
            assert!(matches!(set, Err(HeaderError::Value(_))), "{value:?}");
        }
        assert!(mutations.remove(b"a b").is_err());
        assert!(mutations.is_empty());
    }

    fn provider(shown: &[&str], outputs: &[&str]) -> ExtensionProvider {
        let patterns = |texts: &[&str]| {
            let pattern = |text: &&str| HeaderPattern::new(text).expect("a pattern");
            texts.iter().map(pattern).collect()
        };
        ExtensionProvider {
            name: "authz".into(),
            service: ProviderService {
                namespace: None,
                host: "authz".into(),
                port: 80,
            },
            timeout: Duration::from_secs(1),
            on_error: OnError::LetThrough,
            request_body: None,
            api: AuthorizerApi::Http(HttpApi {
                request_headers: patterns(shown),
                to_upstream_on_allow: patterns(outputs),
                ..HttpApi::default()
            }),
        }
    }

    /// The names that remain after withholding.
    fn left(
        withhold: fn(&ExtensionProvider, &mut HeaderMap),
        provider: &ExtensionProvider,
        names: &[&'static str],
    ) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(*name, HeaderValue::from_static("1"));
        }
        withhold(provider, &mut headers);
        let mut left: Vec<String> = headers
            .keys()
            .map(|name| name.as_str().to_owned())
            .collect();
        left.sort();
        left
    }

    #[test]
    fn a_clients_header_stays_only_if_the_authorizer_sees_it() {
        let names = ["x-user", "x_user", "authorization", "x-other"];
        let unseen = provider(&[], &["x-user", "authorization"]);
        let stands = left(withhold_unseen, &unseen, &names);
        assert_eq!(stands, ["authorization", "x-other"]);
        let seen = provider(&["x-user"], &["x-user", "authorization"]);
        let stands = left(withhold_unseen, &seen, &names);
        assert_eq!(stands, ["authorization", "x-other", "x-user"]);
        let stands = left(withhold_unjudged, &seen, &names);
        assert_eq!(stands, ["authorization", "x-other"]);
    }

    #[test]
    fn headers_that_match_a_pattern_stay_and_lookalikes_do_not() {
        let provider = provider(&[], &["x-*"]);
        let names = ["x-request-id", "x_user", "x-a_b", "y"];
        for withhold in [withhold_unseen, withhold_unjudged] {
            assert_eq!(
                left(withhold, &provider, &names),
                ["x-a_b", "x-request-id", "y"]
            );
        }
    }
}
