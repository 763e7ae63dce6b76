//! Limits how deep YAML may nest, checked before it is read.
//!
//! For each token, the reader's scanner visits every open collection again, and it reads all of a
//! document before anything can refuse it: a small file that nests deeply would block the agent for
//! seconds. This check walks the same scanner event by event, and stops at the first collection that is
//! too deep. The scanner is at most one simple key (1,024 bytes) ahead of its events.

use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

use unsafe_libyaml_norway as unsafe_yaml;

use super::place::Location;
use ambit_input::work;

/// The deepest nesting of collections, which is also the reader's limit.
pub(super) const DEEPEST: usize = 128;

/// The most `%TAG` lines in a text. Each is compared with all before it; objects need none.
const MOST_TAG_LINES: usize = 16;

/// Why YAML is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct YamlRefusal {
    /// The document, from 1.
    pub(super) document: usize,
    /// Where in the text.
    pub(super) location: Location,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Depth,
    TagLines,
}

impl YamlRefusal {
    /// A sentence without its full stop.
    pub(super) fn problem(&self) -> String {
        match self.what {
            What::Depth => format!(
                "sequences and mappings are nested deeper than {DEEPEST} levels, which is not allowed"
            ),
            What::TagLines => {
                format!("there are more than {MOST_TAG_LINES} %TAG directives; remove them")
            }
        }
    }
}

impl fmt::Display for YamlRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.location, self.problem())
    }
}

/// Checks all documents of a text, up to the first error of the scanner, which the reader finds too.
///
/// # Errors
/// [`YamlRefusal`].
pub(super) fn check(text: &str) -> Result<(), YamlRefusal> {
    check_tag_lines(text)?;
    let (mut document, mut depth) = (0, 0_usize);
    for (event, location) in Events::of(text) {
        work::spend(1 + depth);
        match event {
            Event::Document => (document, depth) = (document + 1, 0),
            Event::Opens => depth += 1,
            Event::Closes => depth = depth.saturating_sub(1),
            Event::Other => {}
        }
        if depth > DEEPEST {
            return Err(YamlRefusal {
                document,
                location,
                what: What::Depth,
            });
        }
    }
    Ok(())
}

/// A directive begins its line. Lines within strings may look like one, but hardly this many.
fn check_tag_lines(text: &str) -> Result<(), YamlRefusal> {
    work::spend(text.len());
    let lines = text.split(['\n', '\r']).enumerate();
    let mut directives = lines.filter(|(_, line)| line.starts_with("%TAG"));
    match directives.nth(MOST_TAG_LINES) {
        Some((line, _)) => Err(YamlRefusal {
            document: 1,
            location: Location {
                line: line + 1,
                column: 1,
            },
            what: What::TagLines,
        }),
        None => Ok(()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Event {
    /// A document begins.
    Document,
    /// A sequence or mapping begins.
    Opens,
    /// One ends.
    Closes,
    Other,
}

/// The scanner's events, up to the end or an error.
struct Events<'a> {
    /// On the heap, because it contains pointers to itself.
    parser: Box<MaybeUninit<unsafe_yaml::yaml_parser_t>>,
    has_ended: bool,
    text: PhantomData<&'a str>,
}

impl<'a> Events<'a> {
    fn of(text: &'a str) -> Self {
        let mut parser = Box::new(MaybeUninit::uninit());
        let bare: *mut unsafe_yaml::yaml_parser_t = parser.as_mut_ptr();
        // SAFETY: `bare` points to memory for a parser, which does not move until it is dropped. The
        // lifetime makes the text outlive it. A parser whose initialisation failed is not used.
        let has_ended = unsafe {
            let initialised = unsafe_yaml::yaml_parser_initialize(bare);
            if initialised.ok {
                unsafe_yaml::yaml_parser_set_encoding(bare, unsafe_yaml::YAML_UTF8_ENCODING);
                unsafe_yaml::yaml_parser_set_input_string(bare, text.as_ptr(), text.len() as u64);
            }
            initialised.fail
        };
        Self {
            parser,
            has_ended,
            text: PhantomData,
        }
    }
}

impl Iterator for Events<'_> {
    type Item = (Event, Location);

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let mut event = MaybeUninit::<unsafe_yaml::yaml_event_t>::uninit();
        // SAFETY: the parser is initialised. It fills the event, from which only plain numbers are
        // taken before it is deleted; if it fails there is no event.
        let (kind, mark) = unsafe {
            if unsafe_yaml::yaml_parser_parse(self.parser.as_mut_ptr(), event.as_mut_ptr()).fail {
                self.has_ended = true;
                return None;
            }
            let told = event.assume_init_mut();
            let told_of = (told.type_, told.start_mark);
            unsafe_yaml::yaml_event_delete(told);
            told_of
        };
        let event = match kind {
            unsafe_yaml::YAML_NO_EVENT | unsafe_yaml::YAML_STREAM_END_EVENT => {
                self.has_ended = true;
                return None;
            }
            unsafe_yaml::YAML_DOCUMENT_START_EVENT => Event::Document,
            unsafe_yaml::YAML_SEQUENCE_START_EVENT | unsafe_yaml::YAML_MAPPING_START_EVENT => {
                Event::Opens
            }
            unsafe_yaml::YAML_SEQUENCE_END_EVENT | unsafe_yaml::YAML_MAPPING_END_EVENT => {
                Event::Closes
            }
            _ => Event::Other,
        };
        let place = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let location = Location {
            line: place(mark.line).saturating_add(1),
            column: place(mark.column).saturating_add(1),
        };
        Some((event, location))
    }
}

impl Drop for Events<'_> {
    fn drop(&mut self) {
        // SAFETY: the parser was initialised, or filled with zeros by the failed try, and is not used
        // any more.
        unsafe { unsafe_yaml::yaml_parser_delete(self.parser.as_mut_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::tree::{self, AliasBudget};
    use ambit_input::work::{linear, steps_of};

    fn depth_of(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(depth_of).max().unwrap_or(0),
            Value::Object(fields) => 1 + fields.values().map(depth_of).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// The depth of the deepest event.
    fn events_depth(text: &str) -> usize {
        let (mut depth, mut deepest) = (0_usize, 0);
        for (event, _) in Events::of(text) {
            match event {
                Event::Opens => depth += 1,
                Event::Closes => depth -= 1,
                Event::Document | Event::Other => {}
            }
            deepest = deepest.max(depth);
        }
        deepest
    }

    #[test]
    fn what_the_reader_accepts_is_not_refused() {
        let flow = format!("{}{}", "[".repeat(DEEPEST), "]".repeat(DEEPEST));
        assert_eq!(check(&flow), Ok(()));
        let block: String = (0..DEEPEST)
            .map(|level| format!("{}a:\n", " ".repeat(level)))
            .collect();
        assert_eq!(check(&block), Ok(()));
        for text in [
            "a: |\n  [[[[\n  {{{{\nb: >-\n  - - - -\n",
            "a: \"[[[[\\\" [[[[\"\nb: '{{{{ '' {{{{'\n# [[[[[[\nc: a[[[[\n",
            "%TAG ! tag:x,2000:\n---\na: 1\n",
            "",
            "\u{feff}a: [",
        ] {
            let brackets = text.replace("[[[[", &"[".repeat(1_000));
            assert_eq!(
                check(&brackets.replace("{{{{", &"{".repeat(1_000))),
                Ok(()),
                "{text}"
            );
        }
        let many = "---\n[[[[a, {b: c}]]]]\n".repeat(1_000);
        assert_eq!(check(&many), Ok(()));
    }

    #[test]
    fn tag_directives_are_counted_before_they_are_read() {
        let text = |count: usize| {
            let line = |n: usize| format!("%TAG !{n}! tag:x,2000:\n");
            (0..count).map(line).collect::<String>() + "---\na: 1\n"
        };
        assert_eq!(check(&text(MOST_TAG_LINES)), Ok(()));
        let refused = check(&text(MOST_TAG_LINES + 1)).expect_err("too many");
        assert_eq!(
            refused.location,
            Location {
                line: 17,
                column: 1
            }
        );
    }

    #[test]
    fn twice_the_text_costs_no_more_than_twice_the_steps() {
        for part in [
            "[",
            "{a: ",
            "- ",
            "? ",
            "[\n",
            "%TAG !a! b\n",
            "a: b\n",
            "[a]\n---\n",
            "'",
            "|\n a\n",
        ] {
            let steps = |times: usize| {
                let text = part.repeat(times);
                steps_of(|| check(&text)).1
            };
            let (once, twice) = (steps(5_000), steps(10_000));
            assert!(twice <= linear(once), "{part:?}: {once}, {twice}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        /// The events are those of the reader.
        #[test]
        fn the_events_are_as_deep_as_what_is_read(text in "([-?:,|>'\"#&*! \\[\\]{}ab]|\n|\n |\n  ){0,40}") {
            let mut documents = serde_norway::Deserializer::from_str(&text);
            let read = documents.next().map(|first| tree::read(first, &AliasBudget::of(&text)));
            if let Some(Ok(value)) = read && documents.next().is_none() && !text.contains('*') {
                prop_assert_eq!(events_depth(&text), depth_of(&value), "{:?}", text);
            }
        }
    }
}
