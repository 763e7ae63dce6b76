//! The only place where commands print. Output for people is escaped here, line by line; output for
//! programs is escaped as JSON and YAML do it. No command can forget it.

use std::fmt::Display;
use std::io::{self, Write};

use anyhow::Context;
use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::Value;

use ambit_observe::json;
use ambit_observe::text::{escaped, is_unsafe};

/// How an answer is printed.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Text that is safe to print: a terminal obeys nothing in it except its own line breaks.
pub(super) struct Output(String);

impl Output {
    /// Lines for people.
    pub(super) fn lines<L: AsRef<str>>(lines: impl IntoIterator<Item = L>) -> Self {
        let lines = lines.into_iter();
        let lines: Vec<_> = lines
            .map(|line| escaped(line.as_ref()).into_owned())
            .collect();
        Self(lines.join("\n"))
    }

    /// An answer.
    ///
    /// # Errors
    /// If it cannot be written in that format.
    pub(super) fn of(answer: &impl Serialize, format: Format) -> anyhow::Result<Self> {
        let answer = serde_json::to_value(answer)?;
        match format {
            Format::Table => Ok(Self::lines(table(&answer))),
            // JSON is YAML too, and unlike YAML's other notations it has an escape for everything.
            Format::Yaml if !has_unsafe(&answer) => {
                let text = serde_norway::to_string(&answer)?;
                Ok(Self(text.trim_end().to_owned()))
            }
            Format::Yaml | Format::Json => Ok(Self(json::pretty(&answer)?)),
        }
    }

    /// Prints it. A reader that has closed the pipe is not an error.
    ///
    /// # Errors
    /// If the standard output cannot be written to, for example because a disk is full.
    pub(super) fn print(&self) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        let printed = writeln!(out, "{}", self.0).and_then(|()| out.flush());
        match printed {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            printed => printed.context("the standard output cannot be written to"),
        }
    }
}

/// Prints an error. If the standard error is closed, nothing can be printed.
pub(super) fn print_error(error: impl Display) {
    let line = format!("error: {error}");
    let _ = writeln!(io::stderr(), "{}", escaped(&line));
}

/// Prints what clap says about the arguments, in several lines.
pub(super) fn print_usage_error(text: &str) {
    let lines: Vec<_> = text.lines().map(escaped).collect();
    let _ = writeln!(io::stderr(), "{}", lines.join("\n"));
}

/// A list of objects as rows, with their fields' names as the header; one object as a row for each field.
pub(super) fn table(answer: &Value) -> Vec<String> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    match answer {
        Value::Array(rows) => {
            let Some(Value::Object(first)) = rows.first() else {
                return vec!["none".to_owned()];
            };
            table.set_header(
                first
                    .keys()
                    .map(|name| word(&name.to_uppercase().replace('_', " "))),
            );
            for row in rows {
                table.add_row(first.keys().map(|name| cell(&row[name])));
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                table.add_row([word(&name.replace('_', " ")), cell(value)]);
            }
        }
        other => return vec![cell(other)],
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

/// A line break in a cell would begin a new line.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => word(text),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let shown = fields.iter().filter(|(_, value)| value.as_u64() != Some(0));
            shown
                .map(|(name, value)| format!("{}={}", word(name), cell(value)))
                .collect::<Vec<_>>()
                .join(" ")
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn word(text: &str) -> String {
    escaped(text).into_owned()
}

fn has_unsafe(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => text.contains(is_unsafe),
        Value::Array(items) => items.iter().any(has_unsafe),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| name.contains(is_unsafe) || has_unsafe(value)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_and_fields_are_readable() {
        let rows = json!([{"pod": "a/b", "policy_set": 3}, {"pod": "c/d", "policy_set": null}]);
        let lines = [" POD  POLICY SET", " a/b  3", " c/d  -"];
        assert_eq!(table(&rows), lines);
        let fields = json!({"ready": true, "counts": {"denied": 2, "lost": 0}});
        assert_eq!(table(&fields), [" ready   true", " counts  denied=2"]);
        assert_eq!(table(&json!([])), ["none"]);
    }

    #[test]
    fn no_format_lets_outside_text_move_the_cursor_or_begin_a_line() {
        let evil = "x\n::error::y\x1b[2J\u{9b}\u{202e}\u{2028}";
        let answer = json!([{"pod": evil, evil: [evil, {evil: evil}]}]);
        for format in [Format::Table, Format::Json, Format::Yaml] {
            let text = Output::of(&answer, format).unwrap().0;
            assert!(!text.contains(|c| c != '\n' && is_unsafe(c)), "{text:?}");
            let forged = text.lines().any(|line| line.trim_start().starts_with("::"));
            assert!(!forged, "{text}");
        }
        assert_eq!(table(&answer).len(), 2);
        let yaml = Output::of(&answer, Format::Yaml).unwrap().0;
        assert_eq!(serde_norway::from_str::<Value>(&yaml).unwrap(), answer);
        let lines = Output::lines([format!("object {evil}")]).0;
        assert_eq!(lines.lines().count(), 1);
    }

    #[test]
    fn yaml_is_in_its_usual_notation() {
        let text = Output::of(&json!({"a": ["b"]}), Format::Yaml).unwrap().0;
        assert_eq!(text, "a:\n- b");
    }
}
