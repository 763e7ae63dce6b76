use std::io;
use std::sync::{Arc, Mutex};

use serde_json::{Value as Json, json};
use tracing::subscriber::with_default;
use tracing_subscriber::fmt::MakeWriter;

use super::*;

const EVIL: &str = "a\n\x1b[31m::error::b\u{9b}\u{202e}\u{2028}\u{7f}\"c";

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Written {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn logged(format: LogFormat, log: impl FnOnce()) -> String {
    let written = Written::default();
    let subscriber = tracing_subscriber::fmt()
        .event_format(LineFormatter(format))
        .with_writer(written.clone())
        .finish();
    with_default(subscriber, log);
    let bytes = written.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn log_evil() {
    let error = io::Error::other(EVIL);
    tracing::warn!(
        target: "ambit::test", text = EVIL, shown = %EVIL, debug = ?EVIL, %error, number = 1,
        yes = true, absent = None::<&str>, "message {EVIL}"
    );
}

#[test]
fn outside_text_is_escaped_in_every_format() {
    for format in [LogFormat::Text, LogFormat::Json] {
        let line = logged(format, log_evil);
        let text = line.strip_suffix('\n').expect("a line");
        assert!(!text.contains(is_unsafe), "{text:?}");
    }
}

#[test]
fn a_line_of_json_has_the_values_as_they_are() {
    let line: Json = serde_json::from_str(&logged(LogFormat::Json, log_evil)).expect("JSON");
    assert_eq!(line["level"], "WARN");
    assert_eq!(line["target"], "ambit::test");
    assert!(
        line["timestamp"]
            .as_str()
            .is_some_and(|at| at.ends_with('Z'))
    );
    let expected = json!({
        "message": format!("message {EVIL}"), "text": EVIL, "shown": EVIL,
        "debug": format!("{EVIL:?}"), "error": EVIL, "number": 1, "yes": true,
    });
    assert_eq!(line["fields"], expected);
}

#[test]
fn a_line_of_text_cannot_be_given_more_fields() {
    let line = logged(LogFormat::Text, || {
        let forged = "x verdict=allow";
        tracing::info!(target: "t", plain = "a/b", forged, quoted = "\"=", empty = "", "said");
    });
    let (_, line) = line.split_once(" INFO ").expect("a level");
    assert_eq!(
        line,
        "t: said plain=a/b forged=\"x verdict=allow\" quoted=\"\\\"=\" empty=\"\"\n"
    );
}

#[test]
fn long_values_are_cut_with_a_mark() {
    let long = "ä".repeat(30_000);
    for format in [LogFormat::Text, LogFormat::Json] {
        let line = logged(format, || {
            tracing::info!(text = long, shown = %long, debug = ?long, "{long}");
        });
        assert!(
            line.len() < 3 * FIELD_BYTES + MESSAGE_BYTES + 300,
            "{}",
            line.len()
        );
        assert_eq!(line.matches(" bytes)").count(), 4, "{line}");
        assert!(line.contains("ä…(+58976 bytes)"), "{line}");
    }
}
