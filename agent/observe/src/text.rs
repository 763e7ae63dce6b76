//! Makes text from outside safe to show: escapes control characters, and cuts long text.
//!
//! Names, kinds, paths, file names and error messages come from people and programs that the mesh
//! does not trust. On a terminal, or in the log of a CI system, a control character in them could
//! move the cursor, hide a row, forge another one or give a command.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Whether a character must not reach a terminal or a line-based log as it is: control characters
/// (C0, DEL, C1), line and paragraph separators, and invisible characters that reorder or hide text.
pub const fn is_unsafe(character: char) -> bool {
    matches!(
        character,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// The text with its unsafe characters escaped as Rust escapes them: `\n`, `\u{1b}`.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    // Writing to a string does not fail.
    let _ = Escaping(&mut safe).write_str(text);
    Cow::Owned(safe)
}

/// A writer that escapes unsafe characters.
pub struct Escaping<'a, W: ?Sized>(pub &'a mut W);

impl<W: Write + ?Sized> Write for Escaping<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_unsafe) {
            let (safe, tail) = rest.split_at(at);
            self.0.write_str(safe)?;
            let mut characters = tail.chars();
            if let Some(character) = characters.next() {
                write!(self.0, "{}", character.escape_default())?;
            }
            rest = characters.as_str();
        }
        self.0.write_str(rest)
    }
}

/// The beginning of a text, of at most `bytes` bytes, and a mark that says how much is left out.
pub fn cut(text: &str, bytes: usize) -> Cow<'_, str> {
    match excess(text, bytes) {
        None => Cow::Borrowed(text),
        Some((kept, left_out)) => Cow::Owned(format!("{kept}{}", Mark(left_out))),
    }
}

/// The mark at the end of a text of which this many bytes were cut off.
pub(super) struct Mark(pub(super) usize);

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "…(+{} bytes)", self.0)
    }
}

/// The part of a text that fits, and how many bytes do not; `None` if all of it fits.
pub(super) fn excess(text: &str, bytes: usize) -> Option<(&str, usize)> {
    if text.len() <= bytes {
        return None;
    }
    let end = (0..=bytes).rev().find(|&end| text.is_char_boundary(end))?;
    Some((&text[..end], text.len() - end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_a_terminal_would_obey_are_escaped() {
        for (raw, shown) in [
            ("plain ä 漢 🦀 \\ \"", "plain ä 漢 🦀 \\ \""),
            ("a\n::error::b", r"a\n::error::b"),
            ("\x1b[2J\x07\r\t\x7f", r"\u{1b}[2J\u{7}\r\t\u{7f}"),
            ("\u{9b}31m\u{85}", r"\u{9b}31m\u{85}"),
            ("\u{202e}gpj\u{2066}\u{61c}", r"\u{202e}gpj\u{2066}\u{61c}"),
            ("\u{2028}\u{2029}\u{feff}", r"\u{2028}\u{2029}\u{feff}"),
        ] {
            assert_eq!(escaped(raw), shown);
            assert!(!escaped(raw).contains(is_unsafe));
        }
        assert!(matches!(escaped("plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn long_text_is_cut_between_characters_with_a_mark() {
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("longer", 5), "longe…(+1 bytes)");
        assert_eq!(cut("ääää", 3), "ä…(+6 bytes)");
        assert_eq!(cut("ä", 0), "…(+2 bytes)");
    }
}
