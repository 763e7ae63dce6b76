//! JSON that is safe on a terminal. Characters that `serde_json` leaves as they are (DEL, C1, and those
//! that reorder or hide text) are escaped as JSON allows, so that programs read the same value.

use std::fmt;
use std::io;

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{Formatter, PrettyFormatter};

use super::text::is_unsafe;

/// A formatter that escapes everything unsafe in strings.
struct Safe(PrettyFormatter<'static>);

/// A value on several lines, for people.
///
/// # Errors
/// If the value cannot be JSON, for example a map whose keys are not strings.
pub fn pretty(value: &impl Serialize) -> serde_json::Result<String> {
    let mut bytes = Vec::new();
    let formatter = Safe(PrettyFormatter::new());
    value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter))?;
    String::from_utf8(bytes).map_err(serde::ser::Error::custom)
}

/// Writes a string as JSON has it, with its quotes.
pub(super) fn string(out: &mut (impl fmt::Write + ?Sized), text: &str) -> fmt::Result {
    out.write_char('"')?;
    fragment(out, text)?;
    out.write_char('"')
}

/// Writes a part of a string.
pub(super) fn fragment(out: &mut (impl fmt::Write + ?Sized), text: &str) -> fmt::Result {
    let is_special = |character| matches!(character, '"' | '\\') || is_unsafe(character);
    let mut rest = text;
    while let Some(at) = rest.find(is_special) {
        let (safe, tail) = rest.split_at(at);
        out.write_str(safe)?;
        let mut characters = tail.chars();
        match characters.next() {
            Some('"') => out.write_str("\\\"")?,
            Some('\\') => out.write_str("\\\\")?,
            Some('\n') => out.write_str("\\n")?,
            Some('\r') => out.write_str("\\r")?,
            Some('\t') => out.write_str("\\t")?,
            Some(other) => escape(out, other)?,
            None => {}
        }
        rest = characters.as_str();
    }
    out.write_str(rest)
}

/// Writes a character as JSON's escape, or as two beyond the basic plane (RFC 8259, section 7).
fn escape(out: &mut (impl fmt::Write + ?Sized), character: char) -> fmt::Result {
    let mut units = [0; 2];
    for unit in character.encode_utf16(&mut units) {
        write!(out, "\\u{unit:04x}")?;
    }
    Ok(())
}

impl Formatter for Safe {
    /// `serde_json` has escaped quotes, backslashes and C0 when it calls this.
    fn write_string_fragment<W>(&mut self, writer: &mut W, text: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        if !text.contains(is_unsafe) {
            return writer.write_all(text.as_bytes());
        }
        let mut safe = String::with_capacity(text.len() + 16);
        for character in text.chars() {
            if is_unsafe(character) {
                escape(&mut safe, character).map_err(io::Error::other)?;
            } else {
                safe.push(character);
            }
        }
        writer.write_all(safe.as_bytes())
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const RAW: &str = "a\"\\\n\x1b\x7f\u{9b}\u{202e}\u{2028}\u{e0041}ä";

    #[test]
    fn nothing_unsafe_is_left_and_the_value_is_the_same() {
        let value = json!({ RAW: [RAW, 1, null, {"b": RAW}] });
        let text = pretty(&value).unwrap();
        assert!(!text.contains(|c| c != '\n' && is_unsafe(c)), "{text:?}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        assert_eq!(
            pretty(&json!({"a": [1]})).unwrap(),
            "{\n  \"a\": [\n    1\n  ]\n}"
        );
    }

    #[test]
    fn a_string_is_read_back() {
        let mut text = String::new();
        string(&mut text, RAW).unwrap();
        assert!(!text.contains(is_unsafe), "{text:?}");
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), RAW);
    }
}
