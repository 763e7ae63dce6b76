//! The target of a request. In every mode, the path that policy sees has one form, the query is the
//! client's, and the application receives exactly that target.

#![no_main]

use ambit_fuzz::ensure_linear_text;
use ambit_http::{HeadParser, ParsedRequest, write_request};
use ambit_model::PathNormalization::{self, Base, DecodeAndMergeSlashes, MergeSlashes, None};
use ambit_policy::normalise_path;
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

const MODES: [PathNormalization; 4] = [None, Base, MergeSlashes, DecodeAndMergeSlashes];

fuzz_target!(|target: &str| {
    for mode in MODES {
        ensure_linear_text(target, |target| normalise_path(mode, target));
    }
    let request = read(format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes());
    for mode in MODES {
        if let Ok(normal) = normalise_path(mode, target) {
            assert_eq!(
                normalise_path(mode, &normal).as_deref(),
                Ok(&*normal),
                "{mode:?}"
            );
            let ((path, query), (written, unchanged)) = (split(&normal), split(cut(target)));
            assert_eq!(query, unchanged, "{mode:?}");
            assert_normal(mode, path, written);
        }
        if let Some(request) = &request {
            assert_sent(mode, request);
        }
    }
});

/// Removes the fragment.
fn cut(target: &str) -> &str {
    target.split('#').next().unwrap_or_default()
}

/// Splits a target into path and query.
fn split(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        Option::None => (target, Option::None),
    }
}

/// Ensures what a mode promises of a path; `written` is the path as the client wrote it.
fn assert_normal(mode: PathNormalization, path: &str, written: &str) {
    let shown = || format!("{mode:?} {written:?} {path:?}");
    assert!(
        path.bytes().all(|byte| byte.is_ascii_graphic()),
        "{}",
        shown()
    );
    assert!(
        !path.contains('#') && escapes(path).all(|octet| octet != 0),
        "{}",
        shown()
    );
    let (is_merged, is_decoded) = match mode {
        None => {
            assert_eq!(path, written);
            return;
        }
        Base => (false, false),
        MergeSlashes => (true, false),
        DecodeAndMergeSlashes => (true, true),
    };
    assert!(path.starts_with('/'), "{}", shown());
    assert!(
        !path.contains(['\\', '"', '<', '>', '^', '`', '{', '|', '}']),
        "{}",
        shown()
    );
    assert!(!path.split('/').any(is_dots), "{}", shown());
    assert!(!escapes(path).any(is_unreserved), "{}", shown());
    assert!(!is_merged || !path.contains("//"), "{}", shown());
    let mut slashes = escapes(path).filter(|octet| b"/\\".contains(octet));
    assert!(!is_decoded || slashes.next().is_none(), "{}", shown());
}

/// Whether a server may read a segment as `.` or `..`, with or without parameters.
fn is_dots(segment: &str) -> bool {
    matches!(segment.split(';').next(), Some("." | ".."))
}

/// Whether a byte is unreserved (RFC 3986, section 2.3).
fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"-._~".contains(&octet)
}

/// Returns the octets of all escapes.
fn escapes(path: &str) -> impl Iterator<Item = u8> {
    path.split('%').skip(1).filter_map(|rest| {
        let digits = rest.get(..2)?;
        let is_escape = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_escape.then(|| u8::from_str_radix(digits, 16).ok())?
    })
}

/// Ensures that the application reads the target that policy has seen.
fn assert_sent(mode: PathNormalization, request: &ParsedRequest) {
    let Ok(normal) = normalise_path(mode, &request.head.target) else {
        return;
    };
    let mut head = request.head.clone();
    head.target.clone_from(&normal);
    let mut out = BytesMut::new();
    write_request(
        &head,
        &request.spelling,
        request.framing,
        request.persistence,
        &mut out,
    )
    .expect("a target");
    let again = read(&out).expect("well formed and whole");
    assert_eq!(again.head.target, normal, "{mode:?}");
}

fn read(bytes: &[u8]) -> Option<ParsedRequest> {
    HeadParser::new(usize::MAX).parse(bytes).ok()?
}
