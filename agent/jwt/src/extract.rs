//! Finds the tokens of a request: all of them, because one that is overlooked would reach the
//! application unverified.

use std::borrow::Cow;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName};

use super::authenticate::RequestToAuthenticate;
use super::unauthenticated::Unauthenticated;
use ambit_policy::{JwtRule, TokenLocation};

/// The most different tokens that a request may have.
pub(super) const MAX_TOKENS: usize = 8;

/// A token and the places where it was found.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Found<'a> {
    /// The token as received.
    pub(super) text: Cow<'a, str>,
    /// The places where it was found, each once.
    pub(super) places: Vec<&'a TokenLocation>,
    /// The rules that look at one of these places, in order.
    pub(super) rules: Vec<&'a JwtRule>,
}

/// The different tokens of a request, in the order of rules and of their locations.
pub(super) fn extract<'a>(
    rules: &'a [JwtRule],
    request: &RequestToAuthenticate<'a>,
) -> Result<Vec<Found<'a>>, Unauthenticated> {
    let mut found: Vec<Found<'a>> = Vec::new();
    for rule in rules {
        for place in &rule.locations {
            for text in tokens_at(place, request) {
                if let Some(token) = found.iter_mut().find(|token| token.text == text) {
                    token.is_also(place, rule);
                    continue;
                }
                if found.len() == MAX_TOKENS {
                    return Err(Unauthenticated::TooManyTokens);
                }
                found.push(Found {
                    text,
                    places: vec![place],
                    rules: vec![rule],
                });
            }
        }
    }
    Ok(found)
}

impl<'a> Found<'a> {
    fn is_also(&mut self, place: &'a TokenLocation, rule: &'a JwtRule) {
        if !self.places.contains(&place) {
            self.places.push(place);
        }
        if !self.rules.iter().any(|&known| std::ptr::eq(known, rule)) {
            self.rules.push(rule);
        }
    }
}

fn tokens_at<'a>(place: &TokenLocation, request: &RequestToAuthenticate<'a>) -> Vec<Cow<'a, str>> {
    match place {
        TokenLocation::Header { name, prefix } => in_header(request.headers, name, prefix),
        TokenLocation::Parameter(name) => in_query(request.target, name),
        TokenLocation::Cookie(name) => in_cookies(request.headers, name),
    }
}

fn in_header<'a>(headers: &'a HeaderMap, name: &HeaderName, prefix: &str) -> Vec<Cow<'a, str>> {
    let lines = headers.get_all(name).into_iter();
    lines
        .flat_map(|line| tokens_in(line.as_bytes(), prefix))
        .collect()
}

/// The tokens in one line of a header: what follows the first occurrence of the prefix anywhere in the
/// line, as in Envoy (`Basic x, Bearer y`); and what follows the prefix at the start of the line in any
/// case of letters, because the name of an authentication scheme has no case (RFC 9110, section 11.1).
pub(super) fn tokens_in<'a>(value: &'a [u8], prefix: &str) -> Vec<Cow<'a, str>> {
    match String::from_utf8_lossy(value) {
        Cow::Borrowed(text) => after_prefix(text, prefix).map(Cow::Borrowed).collect(),
        Cow::Owned(text) => after_prefix(&text, prefix)
            .map(|token| Cow::Owned(token.to_owned()))
            .collect(),
    }
}

fn after_prefix<'a>(text: &'a str, prefix: &str) -> impl Iterator<Item = &'a str> {
    let anywhere = text.find(prefix);
    let start = text.as_bytes().get(..prefix.len());
    let is_scheme = start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()));
    let scheme = (is_scheme && anywhere != Some(0)).then_some(0);
    let length = prefix.len();
    [scheme, anywhere].into_iter().flatten().map(move |found| {
        if length == 0 {
            return text.trim();
        }
        let rest = text.get(found + length..).unwrap_or_default();
        match rest.find(is_of_tokens) {
            Some(start) => rest[start..].trim_end(),
            // As in Envoy: after the prefix there has to be a token, so the whole line counts as one.
            None => text,
        }
    })
}

/// Whether a token can have this character (base64url and dots). Others before the token are skipped.
fn is_of_tokens(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.')
}

fn in_query<'a>(target: &'a str, name: &str) -> Vec<Cow<'a, str>> {
    let (_, query, _) = split_query(target);
    let pairs = query.split('&');
    pairs
        .filter_map(|pair| parameter_value(pair, name))
        .collect()
}

/// The value of a parameter, if it has this name. Without a value it is an empty token, as in Envoy. A `+`
/// in its name may be a space, as in forms, or a plus, as in Envoy.
pub(super) fn parameter_value<'a>(pair: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    let is_name = percent_decoded(key) == name || percent_decoded(&key.replace('+', " ")) == name;
    (is_name && !pair.is_empty()).then(|| percent_decoded(value))
}

fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.first_chunk().filter(|_| first == b'%');
        let decoded = digits.and_then(|[high, low]| Some((hex(*high)?, hex(*low)?)));
        let (byte, next) = match decoded {
            Some((high, low)) => (high << 4 | low, &after[2..]),
            None => (first, after),
        };
        bytes.push(byte);
        rest = next;
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

/// Path, query (without `?`) and fragment; the latter two may be empty.
pub(super) fn split_query(target: &str) -> (&str, &str, &str) {
    let end = target.find('#').unwrap_or(target.len());
    let (target, fragment) = target.split_at(end);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    (path, query, fragment)
}

fn in_cookies<'a>(headers: &'a HeaderMap, name: &str) -> Vec<Cow<'a, str>> {
    let lines = headers.get_all(COOKIE).into_iter();
    let cookies = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b';'));
    let values = cookies.filter_map(|cookie| cookie_value(cookie, name));
    values.map(String::from_utf8_lossy).collect()
}

/// The value of a cookie, if it has this name, without quotes. An empty value is an empty token, as in
/// Envoy.
pub(super) fn cookie_value<'a>(cookie: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let equals = cookie.iter().position(|&byte| byte == b'=')?;
    let (key, value) = (
        cookie[..equals].trim_ascii(),
        cookie[equals + 1..].trim_ascii(),
    );
    let inner = value
        .strip_prefix(b"\"")
        .and_then(|value| value.strip_suffix(b"\""));
    let value = inner.unwrap_or(value);
    (key == name.as_bytes()).then_some(value)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};

    use super::*;
    use crate::testing;

    fn found(rules: &[JwtRule], target: &str, lines: &[(&str, &str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::try_from(*name).expect("a name");
            headers.append(name, HeaderValue::try_from(*value).expect("a value"));
        }
        let request = RequestToAuthenticate {
            method: &Method::GET,
            target,
            headers: &headers,
        };
        let tokens = extract(rules, &request).expect("few tokens");
        tokens
            .into_iter()
            .map(|token| token.text.into_owned())
            .collect()
    }

    fn rule_at(locations: Vec<TokenLocation>) -> [JwtRule; 1] {
        [JwtRule {
            locations,
            ..testing::rule("issuer")
        }]
    }

    #[test]
    fn by_default_a_bearer_token_and_a_parameter_are_found() {
        let rules = [testing::rule("issuer")];
        for (target, lines, expected) in [
            ("/", &[("authorization", "Bearer a")][..], &["a"][..]),
            ("/", &[("Authorization", "bEARER   a ")], &["a"]),
            ("/?access_token=a&x=y", &[], &["a"]),
            ("/?x&access%5Ftoken=a", &[], &["a"]),
            ("/?access_token=a#access_token=b", &[], &["a"]),
            (
                "/?access_token=b",
                &[("authorization", "Bearer a")],
                &["a", "b"],
            ),
            ("/?access_token=a", &[("authorization", "Bearer a")], &["a"]),
            ("/?access_token=a&access_token=b", &[], &["a", "b"]),
            (
                "/",
                &[("authorization", "Bearer a"), ("authorization", "Bearer b")],
                &["a", "b"],
            ),
            ("/", &[("authorization", "Basic a")], &[]),
            ("/", &[("authorization", "Bearer")], &[]),
            (
                "/?Access_token=a",
                &[("x-token", "Bearer a"), ("cookie", "access_token=a")],
                &[],
            ),
            ("/access_token=a#?access_token=a", &[], &[]),
        ] {
            assert_eq!(found(&rules, target, lines), expected, "{target} {lines:?}");
        }
    }

    #[test]
    fn configured_places_are_looked_at_and_no_others() {
        let header = |name, prefix: &str| TokenLocation::Header {
            name: HeaderName::from_static(name),
            prefix: prefix.into(),
        };
        let rules = rule_at(vec![
            header("x-token", "Value "),
            header("raw", ""),
            TokenLocation::Parameter("token".into()),
            TokenLocation::Cookie("session".into()),
        ]);
        for (target, lines, expected) in [
            ("/", &[("x-token", "Value a")][..], &["a"][..]),
            ("/", &[("x-token", "Other a")], &[]),
            ("/", &[("raw", "a b")], &["a b"]),
            ("/?token=a", &[], &["a"]),
            ("/", &[("cookie", "x=1; session=a; session=b")], &["a", "b"]),
            (
                "/",
                &[("cookie", "x=1"), ("cookie", "session=\"a\"")],
                &["a"],
            ),
            ("/", &[("cookie", "Session=a; xsession=a; session")], &[]),
            ("/?access_token=a", &[("authorization", "Bearer a")], &[]),
        ] {
            assert_eq!(found(&rules, target, lines), expected, "{target} {lines:?}");
        }
    }

    #[test]
    fn tokens_are_found_as_in_envoy() {
        let authorization = |value| [("authorization", value)];
        let rules = [testing::rule("issuer")];
        for (value, expected) in [
            ("Basic x, Bearer y", &["y"][..]),
            ("Basic x,Bearer y", &["y"]),
            ("xBearer y", &["y"]),
            ("Bearer y, Basic x", &["y, Basic x"]),
            ("Bearer a, Bearer b", &["a, Bearer b"]),
            ("Bearer   a", &["a"]),
            ("Bearer \t\"a.b.c\"", &["a.b.c\""]),
            ("Bearer {a}", &["a}"]),
            ("Bearer .a", &[".a"]),
            ("Bearer ,", &["Bearer ,"]),
            ("Basic x, Bearer =", &["Basic x, Bearer ="]),
            ("Bearer", &[]),
            ("Bearer\ta", &[]),
            ("Basic x, bearer y", &[]),
            ("bearer y", &["y"]),
            ("bearer x, Bearer y", &["x, Bearer y", "y"]),
        ] {
            let tokens = found(&rules, "/", &authorization(value));
            assert_eq!(tokens, expected, "{value}");
        }
        let header = |prefix: &str| {
            rule_at(vec![TokenLocation::Header {
                name: http::header::AUTHORIZATION,
                prefix: prefix.into(),
            }])
        };
        for (prefix, value, expected) in [
            ("Bearer", "Bearer a", &["a"][..]),
            ("Bearer", "Bearera", &["a"]),
            ("Bearer", "Bearer", &["Bearer"]),
            ("jwt=", "user=x; jwt=a.b.c", &["a.b.c"]),
            ("jwt=", "user=x", &[]),
            ("", "Bearer a", &["Bearer a"]),
            ("", "", &[""]),
        ] {
            let tokens = found(&header(prefix), "/", &authorization(value));
            assert_eq!(tokens, expected, "{prefix:?} {value:?}");
        }
        let named = rule_at(vec![
            TokenLocation::Parameter("a token".into()),
            TokenLocation::Parameter("b+token".into()),
            TokenLocation::Cookie("session".into()),
        ]);
        for (target, cookie, expected) in [
            ("/?a%20token=x", "", &["x"][..]),
            ("/?a+token=x", "", &["x"]),
            ("/?b+token=x", "", &["x"]),
            ("/?b%2btoken=x", "", &["x"]),
            ("/?b%2Btoken=x%2ey", "", &["x.y"]),
            ("/?b%2Btoken=x%2&y", "", &["x%2"]),
            ("/?b+token=x=y", "", &["x=y"]),
            ("/?b+token", "", &[""]),
            ("/?b+token=&b+token=x", "", &["", "x"]),
            ("/?&&=&", "", &[]),
            ("/", "session=x", &["x"]),
            ("/", "a=b;session=x;c=d", &["x"]),
            ("/", " session=\"x\"", &["x"]),
            ("/", "session=x=y", &["x=y"]),
            ("/", "session=", &[""]),
            ("/", "session=\"\"", &[""]),
            ("/", "session=\"", &["\""]),
            ("/", "session", &[]),
        ] {
            let tokens = found(&named, target, &[("cookie", cookie)]);
            assert_eq!(tokens, expected, "{target} {cookie:?}");
        }
    }

    #[test]
    fn a_token_that_is_not_utf_8_is_found() {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_bytes(b"Bearer a\xffb").expect("a value");
        headers.append(http::header::AUTHORIZATION, value);
        let request = RequestToAuthenticate {
            method: &Method::GET,
            target: "/",
            headers: &headers,
        };
        let rules = [testing::rule("issuer")];
        assert_eq!(extract(&rules, &request).expect("one").len(), 1);
    }

    #[test]
    fn a_token_knows_the_rules_that_look_where_it_was() {
        let mut rules = [testing::rule("a"), testing::rule("b"), testing::rule("c")];
        rules[1].locations = vec![TokenLocation::Cookie("c".into())];
        let headers = HeaderMap::new();
        let request = RequestToAuthenticate {
            method: &Method::GET,
            target: "/?access_token=t",
            headers: &headers,
        };
        let found = extract(&rules, &request).expect("one");
        let [token] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!(token.rules, [&rules[0], &rules[2]]);
        assert_eq!(
            token.places,
            [&TokenLocation::Parameter("access_token".into())]
        );
    }

    #[test]
    fn the_number_of_tokens_of_a_request_is_limited() {
        let parameters = |count: usize| {
            let pairs: Vec<_> = (0..count).map(|n| format!("access_token={n}")).collect();
            format!("/?{}", pairs.join("&"))
        };
        let (rules, headers) = ([testing::rule("issuer")], HeaderMap::new());
        let count = |target: &str| {
            let request = RequestToAuthenticate {
                method: &Method::GET,
                target,
                headers: &headers,
            };
            extract(&rules, &request).map(|found| found.len())
        };
        assert_eq!(count(&parameters(MAX_TOKENS)), Ok(MAX_TOKENS));
        let error = count(&parameters(MAX_TOKENS + 1));
        assert_eq!(error, Err(Unauthenticated::TooManyTokens));
    }
}
