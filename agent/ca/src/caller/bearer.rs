//! The token of a call.

use std::fmt;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::CallerError;

/// The longest token, in bytes.
pub(super) const MAX_TOKEN: usize = 16 * 1024;

/// A token as it came. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct BearerToken(String);

impl BearerToken {
    /// The token of a call's headers (RFC 6750, section 2.1). As in istiod, the scheme is spelt
    /// `Bearer`.
    ///
    /// # Errors
    /// [`CallerError`] where there is none, more than one, or something else.
    pub fn of(headers: &HeaderMap) -> Result<Self, CallerError> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = values.next().ok_or(CallerError::NoToken)?;
        if values.next().is_some() {
            return Err(CallerError::SeveralTokens);
        }
        let text = value.to_str().map_err(|_| CallerError::NotBearer)?;
        let token = text.strip_prefix("Bearer ");
        match token {
            Some(token) if is_token(token) => Ok(Self(token.to_owned())),
            _ => Err(CallerError::NotBearer),
        }
    }

    /// The token, for those who check it.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(..)")
    }
}

/// Characters of a JWT in compact serialisation (RFC 7515, section 7.1).
fn is_token(text: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !text.is_empty() && text.len() <= MAX_TOKEN && text.bytes().all(valid)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(values: &[&[u8]]) -> Result<BearerToken, CallerError> {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value).expect("a value");
            headers.append(AUTHORIZATION, value);
        }
        BearerToken::of(&headers)
    }

    #[test]
    fn one_token_is_taken_and_never_printed() {
        let token = of(&[b"Bearer a.b-_.c"]).expect("a token");
        assert_eq!(token.expose(), "a.b-_.c");
        assert!(!format!("{token:?}").contains("a.b"));
        let longest = format!("Bearer {}", "a".repeat(MAX_TOKEN));
        assert!(of(&[longest.as_bytes()]).is_ok());
    }

    #[test]
    fn other_schemes_several_tokens_and_huge_ones_are_refused() {
        assert_eq!(of(&[]), Err(CallerError::NoToken));
        let twice: &[&[u8]] = &[b"Bearer a.b.c", b"Bearer a.b.c"];
        assert_eq!(of(twice), Err(CallerError::SeveralTokens));
        let huge = format!("Bearer {}", "a".repeat(MAX_TOKEN + 1));
        for value in [
            &b""[..],
            b"a.b.c",
            b"Bearer",
            b"Bearer ",
            b"Bearer  a.b.c",
            b"Bearer a.b.c ,",
            b"Bearer a.b.c, Bearer d.e.f",
            b"bearer a.b.c",
            b"BEARER a.b.c",
            b"Basic YTpi",
            b"Token a.b.c",
            b"Bearer a.b.\xff",
            b"Bearer a.b.c==",
            huge.as_bytes(),
        ] {
            assert_eq!(of(&[value]), Err(CallerError::NotBearer));
        }
    }
}
