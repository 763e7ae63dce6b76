//! `cargo xtask bench`: what a connection costs through Ambit, as a ratio of the direct path in the
//! same run, on two nodes and on one; and what the agents spend.

mod course;
mod figures;
mod spending;
mod standing;
mod stretch;
mod tools;

use std::process::ExitCode;

use ambit_tests::{Lab, tear_down_on_signals};
use anyhow::Result;
use serde_json::json;

use crate::process::say;
use course::Course;
use figures::Results;
use spending::Spending;
use standing::Standing;
use stretch::{Path, Span};
use tools::MEASURES;

/// How the figures are printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A table.
    Table,
    /// JSON.
    Json,
}

/// Takes the measures whose name contains `only`, on both paths in turn, `rounds` times.
///
/// # Errors
///
/// If the mesh cannot be built, or a tool fails.
pub(crate) fn run(rounds: usize, only: &str, format: Format) -> Result<ExitCode> {
    tear_down_on_signals()?;
    let lab = Lab::new()?;
    let mut course = Course::build(&lab)?;
    let mut results = Results::default();
    let idle = Spending::of(course.agents())?;
    for round in 1..=rounds {
        for span in Span::ALL {
            say("bench", &format!("round {round} of {rounds}, {span}"));
            for measure in MEASURES.into_iter().filter(|one| one.name().contains(only)) {
                for path in Path::ALL {
                    let before = Spending::of(course.agents())?;
                    let taken = measure.take(&lab, &course.stretch(span, path))?;
                    let spent = Spending::of(course.agents())?.since(&before);
                    results.add(span, measure, path, taken, spent);
                }
            }
        }
    }
    say("bench", "standing connections, and an agent that is killed");
    let standing = Standing::measure(&lab, &mut course, idle)?;
    match format {
        Format::Table => println!("{}\n{standing}", results.table()),
        Format::Json => {
            let all = json!({"measures": results.json(), "standing": standing.json()});
            println!("{all}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
