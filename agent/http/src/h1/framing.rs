//! Where a message's body ends (RFC 9112, section 6.3).

use http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Version};

use super::fields::single;
use super::malformed::Malformed;

/// How the end of a body is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// By its last chunk.
    Chunked,
    /// By the end of the connection; of a response only.
    UntilClose,
}

/// What the headers say, which is `None` where they say nothing. The headers are put into the one
/// way of saying it.
///
/// # Errors
/// [`Malformed`] where they could be read in two ways.
pub(super) fn declared(
    headers: &mut HeaderMap,
    version: Version,
) -> Result<Option<Framing>, Malformed> {
    let length = single(headers, CONTENT_LENGTH, Malformed::ContentLength)?;
    let encoding = single(headers, TRANSFER_ENCODING, Malformed::TransferEncoding)?;
    match (length, encoding) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Malformed::TwoLengths),
        (Some(length), None) => {
            let length = decimal(length.as_bytes()).ok_or(Malformed::ContentLength)?;
            headers.insert(CONTENT_LENGTH, length.into());
            Ok(Some(Framing::Length(length)))
        }
        (None, Some(encoding)) => {
            let is_chunked = encoding.as_bytes().eq_ignore_ascii_case(b"chunked");
            if !is_chunked || version != Version::HTTP_11 {
                return Err(Malformed::TransferEncoding);
            }
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            Ok(Some(Framing::Chunked))
        }
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}
