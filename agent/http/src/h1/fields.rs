//! Header and trailer lines.

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, header};

use super::super::sniff::is_tchar;
use super::malformed::Malformed;
use ambit_model::folded;

/// Lines of a head.
pub(crate) const MOST_FIELDS: usize = 100;

/// The lines of scanned text, without the empty one at its end.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = text
        .strip_suffix(b"\r\n\r\n")
        .or(text.strip_suffix(b"\r\n"));
    let mut rest = text.filter(|text| !text.is_empty());
    std::iter::from_fn(move || {
        let text = rest?;
        match text.windows(2).position(|pair| pair == b"\r\n") {
            Some(end) => {
                rest = Some(&text[end + 2..]);
                Some(&text[..end])
            }
            None => rest.take(),
        }
    })
}

/// Reads header lines. Names become lower case; the white space around values goes.
///
/// # Errors
/// [`Malformed::Field`]: a folded line, white space in or after a name; [`Malformed::TooLarge`].
pub(super) fn parse<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<HeaderMap, Malformed> {
    let mut fields = HeaderMap::new();
    for line in lines {
        if fields.len() >= MOST_FIELDS {
            return Err(Malformed::TooLarge);
        }
        let (name, value) = split(line)?;
        fields.append(name, value);
    }
    Ok(fields)
}

fn split(line: &[u8]) -> Result<(HeaderName, HeaderValue), Malformed> {
    let colon = line.iter().position(|&byte| byte == b':');
    let (name, rest) = line.split_at(colon.ok_or(Malformed::Field)?);
    if name.is_empty() || !name.iter().copied().all(is_tchar) {
        return Err(Malformed::Field);
    }
    let value = trim(&rest[1..]);
    let name = HeaderName::from_bytes(name).map_err(|_| Malformed::Field)?;
    let value = HeaderValue::from_bytes(value).map_err(|_| Malformed::Field)?;
    Ok((name, value))
}

/// Without the white space around it (RFC 9110's OWS, and nothing else).
pub(super) fn trim(value: &[u8]) -> &[u8] {
    let is_text = |&byte: &u8| byte != b' ' && byte != b'\t';
    let start = value.iter().position(is_text).unwrap_or(value.len());
    let end = value
        .iter()
        .rposition(is_text)
        .map_or(start, |last| last + 1);
    &value[start..end]
}

/// The one value of a header; `None` where it is absent.
///
/// # Errors
/// `malformed` where it is there more than once.
pub(super) fn single(
    fields: &HeaderMap,
    name: HeaderName,
    malformed: Malformed,
) -> Result<Option<&HeaderValue>, Malformed> {
    let mut values = fields.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(malformed),
    }
}

/// Leaves only what may come in trailers: nothing about framing, routing, authentication or the
/// content's form (RFC 9110, section 6.5.1), and nothing that says who calls.
pub(crate) fn retain_trailers(mut trailers: HeaderMap) -> HeaderMap {
    let names: Vec<HeaderName> = trailers.keys().cloned().collect();
    for name in names {
        if !may_trail(&name) {
            trailers.remove(name);
        }
    }
    trailers
}

fn may_trail(name: &HeaderName) -> bool {
    const NEVER: [HeaderName; 24] = [
        header::HOST,
        header::TRANSFER_ENCODING,
        header::TRAILER,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::EXPECT,
        header::MAX_FORWARDS,
        header::CACHE_CONTROL,
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::WWW_AUTHENTICATE,
        header::PROXY_AUTHENTICATE,
        header::COOKIE,
        header::SET_COOKIE,
        header::FORWARDED,
        header::VIA,
        header::ORIGIN,
        header::REFERER,
        header::RANGE,
        header::LOCATION,
        header::RETRY_AFTER,
        header::VARY,
        header::DATE,
    ];
    const NEVER_NAMED: [&str; 4] = [
        "keep-alive",
        "proxy-connection",
        "http2-settings",
        "x-real-ip",
    ];
    const NEVER_BEGUN: [&str; 3] = ["content-", "x-forwarded-", "if-"];
    // As an application may see it.
    let text = folded(name.as_str());
    let named = NEVER.iter().any(|never| *never == *text) || NEVER_NAMED.contains(&&*text);
    !named && !NEVER_BEGUN.iter().any(|begin| text.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<HeaderMap, Malformed> {
        parse(lines(text.as_bytes()))
    }

    #[test]
    fn names_are_lowered_and_values_trimmed_and_order_is_kept() {
        let fields = read("X-Role: \t user \t\r\nEmpty:\r\nx-role:admin\r\n\r\n").unwrap();
        let roles: Vec<_> = fields.get_all("x-role").into_iter().collect();
        assert_eq!(roles, ["user", "admin"]);
        assert_eq!(fields["empty"], "");
        assert_eq!(read("\r\n").unwrap().len(), 0);
    }

    #[test]
    fn a_folded_line_is_refused() {
        assert_eq!(read("a: b\r\n c\r\n\r\n"), Err(Malformed::Field));
        assert_eq!(read("a: b\r\n\tc: d\r\n\r\n"), Err(Malformed::Field));
        assert_eq!(read(" a: b\r\n\r\n"), Err(Malformed::Field));
    }

    #[test]
    fn white_space_and_oddities_in_a_name_are_refused() {
        for text in [
            "a : b",
            "a\t: b",
            "a b: c",
            ": b",
            "no colon",
            "a(b): c",
            "\u{e9}: c",
        ] {
            assert_eq!(
                read(&format!("{text}\r\n\r\n")),
                Err(Malformed::Field),
                "{text}"
            );
        }
    }

    #[test]
    fn more_than_a_hundred_lines_are_refused() {
        let text = |count: usize| "a: b\r\n".repeat(count) + "\r\n";
        assert_eq!(read(&text(MOST_FIELDS)).unwrap().len(), MOST_FIELDS);
        assert_eq!(read(&text(MOST_FIELDS + 1)), Err(Malformed::TooLarge));
    }

    #[test]
    fn trailers_cannot_bring_what_decides() {
        let sent = "content-length: 5\r\nhost: a\r\nauthorization: b\r\nx-forwarded-for: c\r\n\
                    content_type: e\r\nx_forwarded_for: c\r\nx.real.ip: c\r\n\
                    transfer-encoding: chunked\r\ncookie: d\r\ngrpc-status: 0\r\n\r\n";
        let kept = retain_trailers(read(sent).unwrap());
        assert_eq!(kept.len(), 1);
        assert_eq!(kept["grpc-status"], "0");
    }
}
