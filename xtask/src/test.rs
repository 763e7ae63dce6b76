//! `cargo xtask test`: the unit tests, then the end-to-end tests, and one count of both.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::process::{say, show};
use crate::setup::{ENVOY, peers};
use crate::workspace;

/// How many tests passed, failed and were skipped.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    passed: u32,
    failed: u32,
    skipped: u32,
}

/// What is run of the tests: what it is called, and how cargo is told.
type Part = (&'static str, &'static [&'static str]);

/// Needs nothing that Debian and PyPI do not have ready.
const ORDINARY: [Part; 2] = [
    ("unit tests", &["--workspace", "--exclude", "ambit-tests"]),
    ("end-to-end tests", &["--package", "ambit-tests"]),
];

/// Needs a cluster's control plane.
const CLUSTER: [Part; 1] = [(
    "end-to-end tests with a control plane",
    &[
        "--package",
        "ambit-tests",
        "--features",
        "cluster",
        "--test",
        "cluster",
    ],
)];

/// Runs the tests whose names contain one of `names`, or all, but those of [`run_cluster`].
///
/// # Errors
///
/// Where cargo cannot be run.
pub(crate) fn run(names: &[String]) -> Result<ExitCode> {
    run_parts(&ORDINARY, names)
}

/// Runs those with a real API server and istiod whose names contain one of `names`, or all.
///
/// # Errors
///
/// Where cargo cannot be run.
pub(crate) fn run_cluster(names: &[String]) -> Result<ExitCode> {
    run_parts(&CLUSTER, names)
}

fn run_parts(parts: &[Part], names: &[String]) -> Result<ExitCode> {
    let mut total = Counts::default();
    let mut succeeded = true;
    for (what, selection) in parts {
        say("test", what);
        let mut cargo = Command::new("cargo");
        cargo
            .current_dir(workspace::root())
            .env("AMBIT_BINARY", workspace::agent_binary())
            .env("AMBIT_ENVOY", ENVOY.path())
            .env("AMBIT_PEERS", peers())
            .args(["test", "--no-fail-fast"])
            .args(*selection)
            .arg("--")
            .args(names);
        succeeded &= run_counting(&mut cargo, &mut total)?;
    }
    println!("{total}");
    Ok(if succeeded {
        total.exit_code()
    } else {
        ExitCode::FAILURE
    })
}

impl Counts {
    /// Adds what a line of a test program counts.
    pub(crate) fn add_line(&mut self, line: &str) {
        if let Some(counts) = counts_of(line) {
            self.passed += counts.passed;
            self.failed += counts.failed;
            self.skipped += counts.skipped;
        }
    }

    /// Success where none failed; and in CI, where none was skipped.
    pub(crate) fn exit_code(&self) -> ExitCode {
        let complete = self.skipped == 0 || !in_ci();
        if !complete {
            eprintln!(
                "error: in CI every test must run, and {} did not",
                self.skipped
            );
        }
        if self.failed == 0 && complete {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

/// Passes the output on, and adds up the counts in it.
fn run_counting(cargo: &mut Command, total: &mut Counts) -> Result<bool> {
    let shown = show(cargo);
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let output = child.stdout.take().context("no output to read")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        total.add_line(&line);
    }
    Ok(child.wait()?.success())
}

/// Reads libtest's closing line, which the end-to-end tests print too:
/// `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out`.
fn counts_of(line: &str) -> Option<Counts> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |word: &str| {
        counts
            .split("; ")
            .find_map(|part| part.strip_suffix(word)?.trim().parse().ok())
    };
    Some(Counts {
        passed: count("passed")?,
        failed: count("failed")?,
        skipped: count("ignored")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtests_closing_line_is_counted() {
        let line = "test result: FAILED. 5 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; \
                    finished in 0.01s";
        let counts = Counts {
            passed: 5,
            failed: 2,
            skipped: 1,
        };
        assert_eq!(counts_of(line), Some(counts));
        assert_eq!(counts_of("test tests::a ... ok"), None);
        assert_eq!(counts_of("test result: ok. nothing"), None);
    }
}
