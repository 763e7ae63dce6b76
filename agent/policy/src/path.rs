//! Values of `paths`: strings, and templates with `{*}` and `{**}`.

use std::fmt;

use super::matcher::StringMatch;

/// A value of `paths`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum PathMatch {
    /// A value without template operators.
    Text(StringMatch),
    /// One with `{*}` or `{**}`.
    Template(Template),
}

/// A template: literals and operators in turn.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Part {
    Literal(String),
    /// `{*}`: one segment.
    Segment,
    /// `{**}`: anything. Only one literal can follow.
    Anything,
}

/// Which characters the operators of a template match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operators {
    /// Those of a path segment (RFC 3986, pchar), as in Envoy. For matches that let a request in.
    Strict,
    /// Any that a client may send. For matches that keep a request out.
    Lenient,
}

impl PathMatch {
    /// Reads a value.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub(super) fn parse(value: &str) -> Result<Self, String> {
        if value.contains("{*}") || value.contains("{**}") {
            return Template::parse(value).map(Self::Template);
        }
        if value.contains(['{', '}']) {
            return Err("{ and } can only be used in the operators {*} and {**}".to_owned());
        }
        Ok(Self::Text(StringMatch::parse(value)))
    }

    /// Matches a normalised path without query.
    pub(super) fn matches(&self, path: &str, operators: Operators) -> bool {
        match self {
            Self::Text(text) => text.matches(path),
            Self::Template(template) => matches(&template.0, path, operators),
        }
    }
}

/// Displays the value as the policy has it.
impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => text.fmt(f),
            Self::Template(Template(parts)) => parts.iter().try_for_each(|part| match part {
                Part::Literal(literal) => f.write_str(literal),
                Part::Segment => f.write_str("{*}"),
                Part::Anything => f.write_str("{**}"),
            }),
        }
    }
}

impl Template {
    fn parse(value: &str) -> Result<Self, String> {
        let mut seen_anything = false;
        for segment in value.trim_matches('/').split('/') {
            let is_operator = matches!(segment, "{*}" | "{**}");
            if seen_anything && is_operator {
                return Err("only literal segments can follow {**}".to_owned());
            }
            let is_literal = !segment.is_empty() && segment.bytes().all(is_literal);
            if !is_operator && !is_literal {
                return Err(format!(
                    "the segment {segment:?} has to be {{*}}, {{**}} or a literal"
                ));
            }
            seen_anything |= segment == "{**}";
        }
        let mut parts = Vec::new();
        let mut rest = value;
        while let Some(start) = rest.find('{') {
            let (literal, operator) = rest.split_at(start);
            parts.push(Part::Literal(literal.to_owned()));
            if let Some(after) = operator.strip_prefix("{**}") {
                parts.push(Part::Anything);
                rest = after;
            } else {
                parts.push(Part::Segment);
                rest = operator.strip_prefix("{*}").unwrap_or_default();
            }
        }
        parts.push(Part::Literal(rest.to_owned()));
        Ok(Self(parts))
    }
}

fn matches(parts: &[Part], path: &str, operators: Operators) -> bool {
    match parts {
        [] => path.is_empty(),
        [Part::Literal(literal), rest @ ..] => path
            .strip_prefix(literal.as_str())
            .is_some_and(|path| matches(rest, path, operators)),
        [Part::Segment, rest @ ..] => {
            let end = path.find('/').unwrap_or(path.len());
            let (segment, path) = path.split_at(end);
            !segment.is_empty() && operators.admit(segment) && matches(rest, path, operators)
        }
        [Part::Anything, Part::Literal(literal)] => path
            .strip_suffix(literal.as_str())
            .is_some_and(|path| operators.admit(path)),
        // Unreachable: the parser puts one literal, and nothing else, after `{**}`.
        [Part::Anything, ..] => false,
    }
}

impl Operators {
    fn admit(self, text: &str) -> bool {
        let is_character = |byte| b"/*".contains(&byte) || is_literal(byte);
        self == Self::Lenient || text.bytes().all(is_character)
    }
}

fn is_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_match_as_in_istio() {
        for (template, matching, others) in [
            (
                "/allow/admin/{**}",
                &[
                    "/allow/admin/",
                    "/allow/admin/temp",
                    "/allow/admin/foo/t.txt",
                ][..],
                &["/allow/admin", "/allow/admin\"", "/allow/admin/x[0]"][..],
            ),
            (
                "/foo/{*}/bar/{**}",
                &["/foo/buzz/bar/bat.txt", "/foo/buzz/bar/bat/x"],
                &["/foo//bar/x", "/foo/bar/x"],
            ),
            (
                "/store/{**}/cart",
                &["/store//cart", "/store/a/b/cart"],
                &["/store/cart"],
            ),
            (
                "/foo/{*}",
                &["/foo/bar", "/foo/a*b"],
                &["/foo/bar/baz", "/foo/"],
            ),
            ("/foo/{**}/", &["/foo/bar/", "/foo//"], &["/foo/bar"]),
        ] {
            let parsed = PathMatch::parse(template).expect(template);
            assert_eq!(parsed.to_string(), template);
            for path in matching {
                assert!(parsed.matches(path, Operators::Strict), "{template} {path}");
            }
            for path in others {
                assert!(
                    !parsed.matches(path, Operators::Strict),
                    "{template} {path}"
                );
            }
        }
    }

    #[test]
    fn a_template_that_keeps_out_matches_any_character() {
        for (template, path, other) in [
            ("/admin/{*}", "/admin/x[0]", "/admin/x[0]/y"),
            ("/admin/{*}/y", "/admin/\"/y", "/admin//y"),
            ("/admin/{**}", "/admin/x|y/[z]", "/admin"),
            ("/admin/{**}/y", "/admin/[]/y", "/admin/y"),
        ] {
            let parsed = PathMatch::parse(template).expect(template);
            assert!(!parsed.matches(path, Operators::Strict), "{template}");
            assert!(parsed.matches(path, Operators::Lenient), "{template}");
            assert!(!parsed.matches(other, Operators::Lenient), "{template}");
        }
    }

    #[test]
    fn malformed_templates_are_refused() {
        for value in [
            "/a{*}",
            "/{**}/{*}",
            "/{**}/x/{**}",
            "/{*}//{*}",
            "/{a}",
            "/a}",
            "/{*}/a*",
        ] {
            PathMatch::parse(value).expect_err(value);
        }
        for value in ["/a*", "*/a", "/a*b", "/{*}", "{**}"] {
            PathMatch::parse(value).expect(value);
        }
    }
}
