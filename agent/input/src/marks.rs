//! Byte order marks, which some editors put in front of text.

use std::borrow::Cow;

/// U+FEFF, which editors on Windows put in front of UTF-8 text.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// The text without a byte order mark in front of it.
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// The same for bytes that may not be UTF-8.
pub fn bytes_without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK.as_bytes())
        .unwrap_or(text)
}

/// The YAML text without byte order marks in front of its documents. Concatenated files contain
/// several. A mark anywhere else is content.
pub fn yaml_without_marks(text: &str) -> Cow<'_, str> {
    const SEPARATOR: &str = "---";
    if !text.contains(BYTE_ORDER_MARK) {
        return Cow::Borrowed(text);
    }
    let mut kept = String::with_capacity(text.len());
    let mut begins_document = true;
    for line in text.split_inclusive('\n') {
        let bare = without_mark(line);
        let is_separator = bare.starts_with(SEPARATOR);
        kept.push_str(if begins_document || is_separator {
            bare
        } else {
            line
        });
        begins_document = is_separator;
    }
    Cow::Owned(kept)
}

/// The PEM text without any byte order marks. Concatenated files may contain one before each block, and
/// a parser would silently skip a block with a mark in front of it.
pub fn pem_without_marks(text: &[u8]) -> Cow<'_, [u8]> {
    let mark = BYTE_ORDER_MARK.as_bytes();
    if !text.windows(mark.len()).any(|part| part == mark) {
        return Cow::Borrowed(text);
    }
    let mut rest = text;
    let mut kept = Vec::with_capacity(text.len());
    while let Some((first, after)) = rest.split_first() {
        match rest.strip_prefix(mark) {
            Some(behind) => rest = behind,
            None => {
                kept.push(*first);
                rest = after;
            }
        }
    }
    Cow::Owned(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_order_marks_are_removed() {
        assert_eq!(without_mark("\u{feff}a: 1"), "a: 1");
        assert_eq!(without_mark("a\u{feff}"), "a\u{feff}");
        assert_eq!(bytes_without_mark(b"\xef\xbb\xbf\xff"), b"\xff");
        assert_eq!(bytes_without_mark(b"\xef\xbb"), b"\xef\xbb");
        for (marked, plain) in [
            ("\u{feff}a: 1\n", "a: 1\n"),
            ("a: 1\n---\r\n\u{feff}b: 2\n", "a: 1\n---\r\nb: 2\n"),
            ("a: 1\n\u{feff}---\nb: 2", "a: 1\n---\nb: 2"),
            ("a: |\n  x\n\u{feff}y", "a: |\n  x\n\u{feff}y"),
        ] {
            assert_eq!(yaml_without_marks(marked), plain);
        }
        let marked = "\u{feff}one\n\u{feff}two\n".as_bytes();
        assert_eq!(*pem_without_marks(marked), *b"one\ntwo\n");
        assert!(matches!(pem_without_marks(b"one"), Cow::Borrowed(_)));
    }
}
