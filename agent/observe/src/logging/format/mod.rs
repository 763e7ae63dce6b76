//! Formats events as lines: the only place that escapes and cuts outside text in the log.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::LogFormat;
use crate::json;
use crate::text::{Escaping, Mark, excess, is_unsafe};

/// The most bytes of a field's value that are shown, counted before escaping.
const FIELD_BYTES: usize = 1024;

/// The same for a message.
const MESSAGE_BYTES: usize = 4096;

/// The name of the field that holds the message.
const MESSAGE: &str = "message";

/// Events of the `log` crate have this target, and their own in a field.
const LOG_TARGET: &str = "log";

/// The prefix of these fields; all but the target are left out.
const LOG_PREFIX: &str = "log.";

/// Formats each event as one line.
pub(super) struct LineFormatter(pub(super) LogFormat);

impl<S, N> FormatEvent<S, N> for LineFormatter
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut target = LogTarget::default();
        if metadata.target() == LOG_TARGET {
            event.record(&mut target);
        }
        let target = target.0.as_deref().unwrap_or(metadata.target());
        let level = metadata.level();
        match self.0 {
            LogFormat::Text => text(&mut writer, event, *level, target),
            LogFormat::Json => json(&mut writer, event, *level, target),
        }
    }
}

/// `TIME LEVEL TARGET: MESSAGE NAME=VALUE ...`
fn text(out: &mut Writer<'_>, event: &Event<'_>, level: Level, target: &str) -> fmt::Result {
    SystemTime.format_time(out)?;
    write!(out, " {level:>5} {target}:")?;
    let mut message = Fields::new(|name, value: Value<'_>| match name {
        MESSAGE => value.write_bare(out),
        _ => Ok(()),
    });
    event.record(&mut message);
    message.result?;
    let mut fields = Fields::new(|name, value: Value<'_>| match name {
        MESSAGE => Ok(()),
        _ => {
            write!(out, " {name}=")?;
            value.write_text(out)
        }
    });
    event.record(&mut fields);
    fields.result?;
    out.write_char('\n')
}

/// `{"timestamp": ..., "level": ..., "fields": {"message": ..., NAME: VALUE, ...}, "target": ...}`
fn json(out: &mut Writer<'_>, event: &Event<'_>, level: Level, target: &str) -> fmt::Result {
    out.write_str("{\"timestamp\":\"")?;
    SystemTime.format_time(out)?;
    write!(out, "\",\"level\":\"{level}\",\"fields\":{{")?;
    let mut separator = "";
    let mut fields = Fields::new(|name, value: Value<'_>| {
        out.write_str(separator)?;
        separator = ",";
        json::string(out, name)?;
        out.write_char(':')?;
        value.write_json(out)
    });
    event.record(&mut fields);
    fields.result?;
    out.write_str("},\"target\":")?;
    json::string(out, target)?;
    out.write_str("}\n")
}

/// A field's value.
enum Value<'a> {
    /// A number or a boolean, as it is.
    Plain(&'a dyn fmt::Display),
    /// A text, and how many bytes of it were cut off.
    Text(&'a str, usize),
}

impl Value<'_> {
    /// After a blank, without quotes.
    fn write_bare(&self, out: &mut Writer<'_>) -> fmt::Result {
        out.write_char(' ')?;
        match self {
            Self::Plain(value) => write!(out, "{value}"),
            Self::Text(text, left_out) => {
                Escaping(out).write_str(text)?;
                mark(out, *left_out)
            }
        }
    }

    /// In quotes if it could be taken for more than one value.
    fn write_text(&self, out: &mut Writer<'_>) -> fmt::Result {
        match self {
            Self::Plain(value) => write!(out, "{value}"),
            Self::Text(text, left_out) => {
                let is_odd = |c: char| c.is_whitespace() || c == '"' || c == '=' || is_unsafe(c);
                let quote = if text.is_empty() || text.contains(is_odd) {
                    "\""
                } else {
                    ""
                };
                out.write_str(quote)?;
                let mut parts = text.split('"');
                Escaping(out).write_str(parts.next().unwrap_or_default())?;
                for part in parts {
                    out.write_str("\\\"")?;
                    Escaping(out).write_str(part)?;
                }
                mark(out, *left_out)?;
                out.write_str(quote)
            }
        }
    }

    fn write_json(&self, out: &mut Writer<'_>) -> fmt::Result {
        match self {
            Self::Plain(value) => write!(out, "{value}"),
            Self::Text(text, left_out) => {
                out.write_char('"')?;
                json::fragment(out, text)?;
                mark(out, *left_out)?;
                out.write_char('"')
            }
        }
    }
}

fn mark(out: &mut Writer<'_>, left_out: usize) -> fmt::Result {
    match left_out {
        0 => Ok(()),
        _ => write!(out, "{}", Mark(left_out)),
    }
}

/// Calls a function with each field, whose value is cut to its limit.
struct Fields<F> {
    each: F,
    result: fmt::Result,
}

impl<F: FnMut(&str, Value<'_>) -> fmt::Result> Fields<F> {
    fn new(each: F) -> Self {
        Self {
            each,
            result: Ok(()),
        }
    }

    fn field(&mut self, field: &Field, value: Value<'_>) {
        let name = field.name();
        if name.starts_with(LOG_PREFIX) || self.result.is_err() {
            return;
        }
        let name = name.strip_prefix("r#").unwrap_or(name);
        self.result = (self.each)(name, value);
    }
}

impl<F: FnMut(&str, Value<'_>) -> fmt::Result> Visit for Fields<F> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.field(field, Value::Plain(&value));
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, Value::Plain(&value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, Value::Plain(&value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field, Value::Plain(&value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let (kept, left_out) = excess(value, most(field)).unwrap_or((value, 0));
        self.field(field, Value::Text(kept, left_out));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut limited = Limited::new(most(field));
        // If a value's own formatting fails, what it has written is shown.
        let _ = write!(limited, "{value:?}");
        self.field(field, Value::Text(&limited.kept, limited.left_out));
    }
}

fn most(field: &Field) -> usize {
    match field.name() {
        MESSAGE => MESSAGE_BYTES,
        _ => FIELD_BYTES,
    }
}

/// Keeps the beginning of what is written, and counts the rest.
struct Limited {
    kept: String,
    left_out: usize,
    most: usize,
}

impl Limited {
    fn new(most: usize) -> Self {
        Self {
            kept: String::new(),
            left_out: 0,
            most,
        }
    }
}

impl Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.left_out > 0 {
            self.left_out += text.len();
            return Ok(());
        }
        let room = self.most - self.kept.len();
        let (kept, left_out) = excess(text, room).unwrap_or((text, 0));
        self.kept.push_str(kept);
        self.left_out = left_out;
        Ok(())
    }
}

/// The target of an event of the `log` crate.
#[derive(Default)]
struct LogTarget(Option<String>);

impl Visit for LogTarget {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name().strip_prefix(LOG_PREFIX) == Some("target") {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

#[cfg(test)]
mod tests;
