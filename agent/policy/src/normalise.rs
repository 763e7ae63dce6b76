//! Normalises the path that policies see and the application receives. Escapes stay as they are, except
//! those of unreserved characters (RFC 3986, section 6.2.2) and those that the mode names.
//!
//! Each step is taken once and in order, on the part before the query. No octet is decoded twice.

use ambit_input::work;
use ambit_model::PathNormalization;

/// The path is one that no application should see.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the path has a NUL, or a character that a path cannot have")]
pub struct BadPath;

/// Normalises a request target in origin form. The query stays as it is.
///
/// # Errors
/// [`BadPath`] if the path has `%00` or an octet outside of printable ASCII; the answer is then 400.
pub fn normalise_path(mode: PathNormalization, target: &str) -> Result<String, BadPath> {
    let whole = target.split_once('#').map_or(target, |(before, _)| before);
    let (path, query) = match whole.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (whole, None),
    };
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) || path.contains("%00") {
        return Err(BadPath);
    }
    let mut path = without_query(mode, path);
    if let Some(query) = query {
        path.push('?');
        path.push_str(query);
    }
    Ok(path)
}

fn without_query(mode: PathNormalization, path: &str) -> String {
    let slashes_are_decoded = mode == PathNormalization::DecodeAndMergeSlashes;
    let slashes_are_merged = slashes_are_decoded || mode == PathNormalization::MergeSlashes;
    if mode == PathNormalization::None {
        return path.to_owned();
    }
    let decoded = if slashes_are_decoded {
        decode_slashes(path)
    } else {
        path.to_owned()
    };
    // As in Envoy, a \ after dots with parameters is part of those parameters.
    let bare: Vec<&str> = decoded.split('/').map(without_parameters).collect();
    let escaped = decode_unreserved(&escape(&bare.join("/").replace('\\', "/")));
    let normal = without_dot_segments(&escaped);
    if slashes_are_merged {
        merged(&normal)
    } else {
        normal
    }
}

fn decode_slashes(path: &str) -> String {
    decode(path, |octet| matches!(octet, b'/' | b'\\'))
}

fn decode_unreserved(path: &str) -> String {
    decode(path, |octet| {
        octet.is_ascii_alphanumeric() || b"-._~".contains(&octet)
    })
}

/// Escapes characters that a path cannot have (RFC 3986, appendix A), except `[` and `]`, as in Envoy.
fn escape(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for character in path.chars() {
        match character {
            '"' | '<' | '>' | '^' | '`' | '{' | '|' | '}' => {
                escaped.push_str(&format!("%{:02X}", u32::from(character)));
            }
            other => escaped.push(other),
        }
    }
    escaped
}

/// Decodes the escapes of certain octets, each once. A `%` that does not begin an escape, but would
/// after what follows it is decoded, is escaped itself.
fn decode(path: &str, is_decoded: impl Fn(u8) -> bool) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut strays = Vec::new();
    let mut rest = path;
    work::spend(path.len());
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        decoded.push_str(before);
        let octet = escape.get(1..3).and_then(hexadecimal);
        if octet.is_none() {
            strays.push(decoded.len());
        }
        rest = match octet.filter(|octet| is_decoded(*octet)) {
            Some(octet) => {
                decoded.push(char::from(octet));
                &escape[3..]
            }
            None => {
                decoded.push('%');
                &escape[1..]
            }
        };
    }
    decoded.push_str(rest);
    with_strays_escaped(&decoded, &strays)
}

/// Escapes the stray `%` at these places that now begin an escape. Each can be judged by itself, because
/// escaping one does not change the two characters after another.
fn with_strays_escaped(path: &str, strays: &[usize]) -> String {
    let mut escaped = String::with_capacity(path.len());
    let mut done = 0;
    for &stray in strays {
        let digits = path.get(stray + 1..stray + 3);
        if digits.and_then(hexadecimal).is_some() {
            escaped.push_str(&path[done..=stray]);
            escaped.push_str("25");
            work::spend(stray + 1 - done + 2);
            done = stray + 1;
        }
    }
    escaped.push_str(&path[done..]);
    work::spend(path.len() - done);
    escaped
}

fn hexadecimal(digits: &str) -> Option<u8> {
    let are_digits = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    are_digits
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}

/// Removes `.` and `..` segments (RFC 3986, section 5.2.4). The result begins with a slash.
fn without_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments = path.strip_prefix('/').unwrap_or(path).split('/');
    let mut ends_in_slash = false;
    for segment in segments.map(without_parameters) {
        ends_in_slash = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    if ends_in_slash {
        kept.push("");
    }
    format!("/{}", kept.join("/"))
}

/// A dot segment stays one if it has parameters, because applications ignore them (CVE-2026-73551).
fn without_parameters(segment: &str) -> &str {
    match segment.split_once(';') {
        Some((dots @ ("." | ".."), _)) => dots,
        _ => segment,
    }
}

fn merged(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !merged.ends_with('/') {
            merged.push(character);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use PathNormalization::{Base, DecodeAndMergeSlashes, MergeSlashes, None};

    use super::*;
    use ambit_input::work::{linear, steps_of};

    #[test]
    fn each_mode_normalises_as_in_istio() {
        // As received, then normalised by NONE, BASE, MERGE_SLASHES and DECODE_AND_MERGE_SLASHES.
        for [path, none, base, merge, decode] in [
            ["/app#foo", "/app", "/app", "/app", "/app"],
            [
                "/app/../admin",
                "/app/../admin",
                "/admin",
                "/admin",
                "/admin",
            ],
            ["/app//", "/app//", "/app//", "/app/", "/app/"],
            ["/app/%2f", "/app/%2f", "/app/%2f", "/app/%2f", "/app/"],
            [
                "/xyz%30..//abc",
                "/xyz%30..//abc",
                "/xyz0..//abc",
                "/xyz0../abc",
                "/xyz0../abc",
            ],
            [
                "/app/%2E./admin",
                "/app/%2E./admin",
                "/admin",
                "/admin",
                "/admin",
            ],
            [
                "/app\\admin",
                "/app\\admin",
                "/app/admin",
                "/app/admin",
                "/app/admin",
            ],
            [
                "/app/\\/\\/\\admin",
                "/app/\\/\\/\\admin",
                "/app//////admin",
                "/app/admin",
                "/app/admin",
            ],
            [
                "/%2Fapp%5cadmin%5Cabc",
                "/%2Fapp%5cadmin%5Cabc",
                "/%2Fapp%5cadmin%5Cabc",
                "/%2Fapp%5cadmin%5Cabc",
                "/app/admin/abc",
            ],
            [
                "/%5Capp%2f%5c%2F%2e%2e%2fadmin%5c\\abc",
                "/%5Capp%2f%5c%2F%2e%2e%2fadmin%5c\\abc",
                "/%5Capp%2f%5c%2F..%2fadmin%5c/abc",
                "/%5Capp%2f%5c%2F..%2fadmin%5c/abc",
                "/app/admin/abc",
            ],
            [
                "/app//../admin",
                "/app//../admin",
                "/app/admin",
                "/app/admin",
                "/app/admin",
            ],
            [
                "/app//../../admin",
                "/app//../../admin",
                "/admin",
                "/admin",
                "/admin",
            ],
            [
                "/%c0%2fadmin",
                "/%c0%2fadmin",
                "/%c0%2fadmin",
                "/%c0%2fadmin",
                "/%c0/admin",
            ],
        ] {
            for (mode, expected) in [
                (None, none),
                (Base, base),
                (MergeSlashes, merge),
                (DecodeAndMergeSlashes, decode),
            ] {
                assert_eq!(
                    normalise_path(mode, path).as_deref(),
                    Ok(expected),
                    "{mode:?} {path}"
                );
            }
        }
    }

    #[test]
    fn nothing_is_decoded_twice_and_the_query_is_left_alone() {
        for (path, expected) in [
            ("/%2561dmin", "/%2561dmin"),
            ("/%252e%252e/admin", "/%252e%252e/admin"),
            ("/%c0%ae%c0%ae/admin", "/%c0%ae%c0%ae/admin"),
            ("/..;/admin", "/admin"),
            ("/x/..;a=b/admin", "/admin"),
            ("/x/.;/admin", "/x/admin"),
            ("/x/%2e%2E;a/admin", "/admin"),
            ("/x/..;\\y/admin", "/admin"),
            ("/x/y/..;", "/x/"),
            ("/x/...;/admin", "/x/...;/admin"),
            ("/x/..%3b/admin", "/x/..%3b/admin"),
            ("/x;y/;/admin;", "/x;y/;/admin;"),
            ("/a/..", "/"),
            ("/a/b/.", "/a/b/"),
            ("/../..", "/"),
            ("admin", "/admin"),
            ("", "/"),
            ("/%", "/%"),
            ("/%6", "/%6"),
            ("/%+1", "/%+1"),
            ("/x/%2%65%2%65/admin", "/x/%252e%252e/admin"),
            ("/%0%30", "/%2500"),
            ("/%%36%31dmin", "/%2561dmin"),
            ("/a\"<>^`{|}b", "/a%22%3C%3E%5E%60%7B%7C%7Db"),
            ("/a[0]!$&'()*+,:;=@", "/a[0]!$&'()*+,:;=@"),
            ("/admin?x=/../%61#y", "/admin?x=/../%61"),
            ("/admin%23frag", "/admin%23frag"),
        ] {
            assert_eq!(
                normalise_path(Base, path).as_deref(),
                Ok(expected),
                "{path}"
            );
        }
    }

    #[test]
    fn twice_the_path_costs_no_more_than_twice_the_steps() {
        for part in [
            "%", "%%%30", "%3%30", "/..", "/.;x", "//", "%2f", "%5c..", "{\\", "a",
        ] {
            for mode in [Base, MergeSlashes, DecodeAndMergeSlashes] {
                let steps = |times: usize| {
                    let path = format!("/{}", part.repeat(times));
                    steps_of(|| normalise_path(mode, &path)).1
                };
                let (once, twice) = (steps(5_000), steps(10_000));
                assert!(twice <= linear(once), "{mode:?} {part}: {once}, {twice}");
            }
        }
    }

    #[test]
    fn a_nul_is_refused_in_every_mode() {
        for mode in [None, Base, MergeSlashes, DecodeAndMergeSlashes] {
            for path in ["/admin%00", "/\0", "/a b", "/ä"] {
                assert_eq!(
                    normalise_path(mode, path),
                    Err(BadPath),
                    "{mode:?} {path:?}"
                );
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// No step leaves work for another one.
        #[test]
        fn normalising_again_changes_nothing(path in "[/\\\\.%2-6a-fEF;{|\\[?]{0,16}") {
            for mode in [None, Base, MergeSlashes, DecodeAndMergeSlashes] {
                let once = normalise_path(mode, &path).expect("printable, without NUL");
                prop_assert_eq!(normalise_path(mode, &once), Ok(once.clone()), "{:?} {}", mode, path);
            }
        }
    }
}
