//! `cargo xtask bench`: what a connection costs through Ambit, and through others on request, as a ratio of
//! the direct path in the same rounds, on two nodes and on one; and what the proxies spend.

mod beside;
mod calls;
mod course;
mod figures;
mod lane;
mod relays;
mod spending;
mod standing;
mod stretch;
mod table;
mod tools;

use std::process::ExitCode;

use ambit_tests::{Lab, SameNode, tear_down_on_signals};
use anyhow::{Context, Result};
use serde_json::json;

use crate::process::say;
pub(crate) use beside::Beside;
use calls::{CallCounter, Calls};
use course::Course;
use figures::{Results, Sample};
use spending::Spending;
use standing::Standing;
use stretch::{Path, Span};
use tools::{MEASURES, Measure};

/// How the figures are printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A table.
    Table,
    /// JSON.
    Json,
}

/// What is measured.
pub(crate) struct Choice {
    /// How often each path is.
    pub(crate) rounds: usize,
    /// Part of the span and name of each measure that is taken.
    pub(crate) only: String,
    /// How the agents carry connections between two pods of one node.
    pub(crate) same_node: SameNode,
}

impl Choice {
    /// The measures to take on a span.
    fn measures(&self, span: Span) -> Vec<Measure> {
        let is_chosen = |measure: &Measure| {
            let words = format!("{span}, {}", measure.name());
            words.contains(&self.only)
        };
        MEASURES.into_iter().filter(is_chosen).collect()
    }
}

/// Takes the chosen measures on all paths in turn, in each round.
///
/// # Errors
///
/// If the mesh cannot be built, or a tool or a proxy fails.
pub(crate) fn run(choice: &Choice, format: Format, beside: &Beside) -> Result<ExitCode> {
    tear_down_on_signals()?;
    let lab = Lab::new()?;
    lab.set_same_node(choice.same_node);
    let mut course = Course::build(&lab, beside)?;
    let idle = Spending::of(&course.agents()?)?;
    let results = measure(&lab, &course, choice).map_err(|error| course.explain(error))?;
    let standing = if choice.only.is_empty() {
        say("bench", "standing connections, and an agent that is killed");
        Some(Standing::measure(&lab, &mut course, &idle)?)
    } else {
        None
    };
    match format {
        Format::Table => {
            println!("{}", results.table());
            if let Some(standing) = &standing {
                println!("{standing}");
            }
        }
        Format::Json => {
            let standing = standing.as_ref().map(Standing::json);
            println!(
                "{}",
                json!({"measures": results.json(), "standing": standing})
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(lab: &Lab, course: &Course, choice: &Choice) -> Result<Results> {
    let mut results = Results::default();
    let rounds = choice.rounds;
    for round in 1..=rounds {
        for span in Span::ALL {
            say("bench", &format!("round {round} of {rounds}, {span}"));
            for measure in choice.measures(span) {
                for path in course.paths() {
                    let sample = sample(lab, course, span, measure, path);
                    let sample = sample.with_context(|| format!("{path}, {span}"))?;
                    results.add(span, measure, path, sample);
                }
            }
        }
    }
    say("bench", "system calls");
    for span in Span::ALL {
        for measure in choice.measures(span) {
            for path in course
                .paths()
                .into_iter()
                .filter(|path| *path != Path::Direct)
            {
                let calls = count(lab, course, span, measure, path);
                let calls = calls.with_context(|| format!("counting calls: {path}, {span}"))?;
                results.add_calls(span, measure, path, calls);
            }
        }
    }
    Ok(results)
}

fn sample(lab: &Lab, course: &Course, span: Span, measure: Measure, path: Path) -> Result<Sample> {
    let proxies = course.proxies(span, path)?;
    let before = Spending::of(&proxies)?;
    let taken = measure.take(lab, &course.stretch(span, path)?)?;
    let after = Spending::of(&proxies)?;
    Ok(Sample {
        value: taken.value,
        processor: after.since(&before)? / taken.work,
        resident: after.resident,
    })
}

/// Counts for each piece of the measure's work.
fn count(lab: &Lab, course: &Course, span: Span, measure: Measure, path: Path) -> Result<Calls> {
    let counter = CallCounter::start(&course.proxies(span, path)?)?;
    let taken = measure.take(lab, &course.stretch(span, path)?)?;
    let counted = counter.read()?;
    let pieces = taken.work * measure.pieces();
    Ok(Calls {
        calls: counted.calls / pieces,
        copied: counted.copied / pieces,
    })
}
