//! `cargo xtask test --all`: every check that there is, one after the other.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::Command;
use crate::process::say;

/// The oldest kernel that is supported, on which every end-to-end test runs again.
const OLDEST_KERNEL: &str = "6.1";

/// How long each fuzz target runs, in seconds.
const FUZZ_SECONDS: u32 = 60;

/// How long the soak runs.
const SOAK_MINUTES: u32 = 10;

/// The checks, the quickest to fail first.
fn steps() -> [(&'static str, Command); 8] {
    let test = |kernel: Option<&str>, cluster| Command::Test {
        kernel: kernel.map(str::to_owned),
        cluster,
        same_node: false,
        all: false,
        names: Vec::new(),
    };
    let same_node = Command::Test {
        kernel: None,
        cluster: false,
        same_node: true,
        all: false,
        names: Vec::new(),
    };
    [
        ("lint", Command::Lint),
        ("miri", Command::Miri),
        ("test", test(None, false)),
        ("test --same-node", same_node),
        ("test --cluster", test(None, true)),
        (
            "fuzz",
            Command::Fuzz {
                seconds: FUZZ_SECONDS,
                only: String::new(),
            },
        ),
        (
            "soak",
            Command::Soak {
                minutes: SOAK_MINUTES,
            },
        ),
        ("test --kernel", test(Some(OLDEST_KERNEL), false)),
    ]
}

/// How a step ended.
struct Ended {
    name: &'static str,
    took: Duration,
    result: Result<ExitCode>,
}

impl Ended {
    fn passed(&self) -> bool {
        matches!(self.result, Ok(code) if code == ExitCode::SUCCESS)
    }
}

/// Runs every step with `run`, goes on after a failure, and ends with a line for each step.
pub(crate) fn run(run: fn(Command) -> Result<ExitCode>) -> ExitCode {
    let mut ended = Vec::new();
    for (name, command) in steps() {
        say("all", name);
        let start = Instant::now();
        let result = run(command);
        ended.push(Ended {
            name,
            took: start.elapsed(),
            result,
        });
    }
    print!("{}", summary(&ended));
    if ended.iter().all(Ended::passed) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A line for each step, and a count of the steps.
fn summary(ended: &[Ended]) -> String {
    let mut text = String::new();
    for step in ended {
        let outcome = match &step.result {
            Ok(_) if step.passed() => "passed".to_owned(),
            Ok(_) => "failed".to_owned(),
            Err(error) => format!("failed: {error:#}"),
        };
        let seconds = step.took.as_secs();
        let _ = writeln!(text, "{:<16} {seconds:>6} s  {outcome}", step.name);
    }
    let passed = ended.iter().filter(|step| step.passed()).count();
    let failed = ended.len() - passed;
    let _ = writeln!(text, "steps: {passed} passed, {failed} failed");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_is_named_and_counted() {
        let ended = |name, result| Ended {
            name,
            took: Duration::from_secs(5),
            result,
        };
        let text = summary(&[
            ended("lint", Ok(ExitCode::SUCCESS)),
            ended("fuzz", Ok(ExitCode::FAILURE)),
            ended("soak", Err(anyhow::anyhow!("no root"))),
        ]);
        assert_eq!(
            text,
            "lint                  5 s  passed\n\
             fuzz                  5 s  failed\n\
             soak                  5 s  failed: no root\n\
             steps: 1 passed, 2 failed\n"
        );
    }
}
