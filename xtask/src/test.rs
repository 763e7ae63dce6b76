//! `cargo xtask test`: the unit tests, then the end-to-end tests, and one count of both.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::files;
use crate::process::{run as run_command, say, show};
use crate::setup::{ENVOY, peers};
use crate::workspace;

/// Names a file to which tests that cannot run write a line each. libtest counts them as passed.
const SKIPPED_VARIABLE: &str = "AMBIT_SKIPPED_TESTS";

/// The beginning of these lines.
const SKIPPED: &str = "skipped: ";

/// How many tests passed, failed and were skipped.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    passed: u32,
    failed: u32,
    skipped: u32,
}

/// A selection of tests.
struct Part {
    name: &'static str,
    selection: Selection,
    environment: &'static [(&'static str, &'static str)],
}

/// Which tests.
#[derive(Clone, Copy)]
enum Selection {
    /// Those that cargo finds with these arguments.
    Cargo(&'static [&'static str]),
    /// The lab's own, and all files of end-to-end tests.
    AllFiles,
    /// These files of end-to-end tests.
    Files(&'static [&'static str]),
}

/// Needs nothing that Debian and PyPI do not have ready.
const ORDINARY: [Part; 3] = [
    Part {
        name: "unit tests",
        selection: Selection::Cargo(&["--workspace", "--exclude", "ambit-tests"]),
        environment: &[],
    },
    Part {
        name: "end-to-end tests",
        selection: Selection::AllFiles,
        environment: &[],
    },
    Part {
        name: ON_ONE_NODE,
        selection: Selection::Files(&["policy", "redirect", "requests"]),
        environment: HANDOFF,
    },
];

/// The files whose subject is the same whatever is between two pods.
const ON_ONE_NODE: &str = "end-to-end tests with all pods on one node, and --same-node handoff";
const HANDOFF: &[(&str, &str)] = &[("AMBIT_SAME_NODE", "handoff")];

/// The rest of those files.
const SAME_NODE: [Part; 1] = [Part {
    name: ON_ONE_NODE,
    selection: Selection::Files(&[
        "certificates",
        "authorizers",
        "lifecycle",
        "opaque",
        "request_changes",
        "verdicts",
    ]),
    environment: HANDOFF,
}];

/// Needs a cluster's control plane.
const CLUSTER: [Part; 1] = [Part {
    name: "end-to-end tests with a control plane",
    selection: Selection::Cargo(&[
        "--package",
        "ambit-tests",
        "--features",
        "cluster",
        "--test",
        "cluster",
    ]),
    environment: &[],
}];

/// Runs the tests whose names contain one of `names`, or all, but those of [`run_cluster`].
///
/// # Errors
///
/// If cargo cannot be run.
pub(crate) fn run(names: &[String]) -> Result<ExitCode> {
    run_parts(&ORDINARY, names)
}

/// Runs the files that [`run`] leaves out with all pods on one node.
///
/// # Errors
///
/// If cargo cannot be run.
pub(crate) fn run_same_node(names: &[String]) -> Result<ExitCode> {
    run_parts(&SAME_NODE, names)
}

/// Runs those with a real API server and istiod whose names contain one of `names`, or all.
///
/// # Errors
///
/// If cargo cannot be run.
pub(crate) fn run_cluster(names: &[String]) -> Result<ExitCode> {
    run_parts(&CLUSTER, names)
}

fn run_parts(parts: &[Part], names: &[String]) -> Result<ExitCode> {
    let mut total = Counts::default();
    let mut succeeded = true;
    for part in parts {
        say("test", part.name);
        let skipped = SkippedTests::new()?;
        succeeded &= part.run(names, &skipped, &mut total)?;
        total.take_skipped(&skipped.read()?);
    }
    println!("{total}");
    Ok(if succeeded {
        total.exit_code()
    } else {
        ExitCode::FAILURE
    })
}

impl Part {
    fn run(&self, names: &[String], skipped: &SkippedTests, total: &mut Counts) -> Result<bool> {
        let files = match self.selection {
            Selection::Cargo(arguments) => {
                let mut cargo = self.cargo_test(skipped);
                cargo.args(arguments).arg("--").args(names);
                return run_counting(&mut cargo, total);
            }
            Selection::AllFiles => files::all()?,
            Selection::Files(files) => files.iter().map(|&file| file.to_owned()).collect(),
        };
        let cargo_test = || {
            let mut cargo = self.cargo_test(skipped);
            cargo.args(["--package", "ambit-tests"]);
            cargo
        };
        run_command(cargo_test().arg("--no-run"))?;
        let mut succeeded = true;
        if let Selection::AllFiles = self.selection {
            let mut of_lab = cargo_test();
            of_lab.args(["--lib", "--bins", "--"]).args(names);
            succeeded &= run_counting(&mut of_lab, total)?;
        }
        Ok(succeeded & files::run(files, &cargo_test, names, total)?)
    }

    fn cargo_test(&self, skipped: &SkippedTests) -> Command {
        let mut cargo = Command::new("cargo");
        cargo
            .current_dir(workspace::root())
            .env("AMBIT_BINARY", workspace::agent_binary())
            .env("AMBIT_ENVOY", ENVOY.path())
            .env("AMBIT_PEERS", peers())
            .env(SKIPPED_VARIABLE, skipped.path())
            .args(["test", "--no-fail-fast"])
            .envs(self.environment.iter().copied());
        cargo
    }
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Adds what a line of a test program counts.
    pub(crate) fn add_line(&mut self, line: &str) {
        if let Some(counts) = counts_of(line) {
            self.add(counts);
        }
    }

    /// Counts as skipped what tests say of themselves, though libtest has counted them as passed.
    fn take_skipped(&mut self, said: &str) {
        let skipped = said.lines().filter(|line| line.starts_with(SKIPPED));
        let skipped = u32::try_from(skipped.count()).unwrap_or(u32::MAX);
        self.passed = self.passed.saturating_sub(skipped);
        self.skipped = self.skipped.saturating_add(skipped);
    }

    /// Success if no test failed, and, in CI, if none was skipped.
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

/// The file to which tests write that they cannot run; it goes with this.
struct SkippedTests(PathBuf);

impl SkippedTests {
    fn new() -> Result<Self> {
        let name = format!("skipped-tests-{}", std::process::id());
        let file = Self(workspace::target().join(name));
        fs::create_dir_all(workspace::target())?;
        File::create(&file.0).with_context(|| format!("cannot make {}", file.0.display()))?;
        Ok(file)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn read(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.0)?)
    }
}

impl Drop for SkippedTests {
    fn drop(&mut self) {
        // One that stays is a file too many in the target folder.
        let _ = fs::remove_file(&self.0);
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
    fn what_tests_say_of_themselves_counts_as_skipped() {
        let mut counts = Counts::default();
        counts.add_line("test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured");
        counts.take_skipped("skipped: a::b: not root\nskipped: a::c: not root\nanother line\n");
        let expected = Counts {
            passed: 3,
            failed: 0,
            skipped: 3,
        };
        assert_eq!(counts, expected);
    }

    #[test]
    fn the_file_of_skipped_tests_goes_with_its_owner() {
        let skipped = SkippedTests::new().unwrap();
        let path = skipped.path().to_owned();
        fs::write(&path, "skipped: a: not root\n").unwrap();
        assert_eq!(skipped.read().unwrap(), "skipped: a: not root\n");
        drop(skipped);
        assert!(!path.exists());
    }

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
