//! Prints what an agent answers.

use std::path::{Path, PathBuf};

use comfy_table::{Table, presets};
use serde_json::Value;

use crate::admin::client;

/// Where to ask, and how to print the answer.
#[derive(clap::Args)]
pub(super) struct Show {
    /// The agent's admin socket.
    #[arg(long, env = "AMBIT_SOCKET", default_value = super::run::DEFAULT_SOCKET)]
    socket: PathBuf,
    /// How to print the answer.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

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

impl Show {
    pub(super) fn print(&self, what: &str) -> anyhow::Result<()> {
        let answer = ask(&self.socket, what)?;
        println!("{}", render(&answer, self.output)?);
        Ok(())
    }
}

/// What an agent answers.
pub(super) fn ask(socket: &Path, what: &str) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(client::get(socket, what))
}

pub(super) fn render(answer: &Value, format: Format) -> anyhow::Result<String> {
    match format {
        Format::Json => Ok(serde_json::to_string_pretty(answer)?),
        Format::Yaml => Ok(serde_norway::to_string(answer)?.trim_end().to_owned()),
        Format::Table => Ok(table(answer)),
    }
}

/// Objects as rows under the names of their fields; one object as a row for each field.
fn table(answer: &Value) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    match answer {
        Value::Array(rows) => {
            let Some(Value::Object(first)) = rows.first() else {
                return "none".to_owned();
            };
            table.set_header(
                first
                    .keys()
                    .map(|name| name.to_uppercase().replace('_', " ")),
            );
            for row in rows {
                table.add_row(first.keys().map(|name| cell(&row[name])));
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                table.add_row([name.replace('_', " "), cell(value)]);
            }
        }
        other => return cell(other),
    }
    let lines: Vec<_> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let shown = fields.iter().filter(|(_, value)| value.as_u64() != Some(0));
            shown
                .map(|(name, value)| format!("{name}={}", cell(value)))
                .collect::<Vec<_>>()
                .join(" ")
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_and_fields_are_readable() {
        let rows = json!([{"pod": "a/b", "policy_set": 3}, {"pod": "c/d", "policy_set": null}]);
        assert_eq!(table(&rows), " POD  POLICY SET\n a/b  3\n c/d  -");
        let fields = json!({"ready": true, "counts": {"denied": 2, "lost": 0}});
        assert_eq!(table(&fields), " ready   true\n counts  denied=2");
        assert_eq!(table(&json!([])), "none");
    }
}
