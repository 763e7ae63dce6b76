//! Runs tests one after another, most of them in a lab each.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, anyhow};

use crate::agent;
use crate::lab::Lab;
use crate::run::tear_down_on_signals;

/// A named test, and what it needs.
pub struct Test<T = Lab> {
    /// Its name, a sentence about the mesh.
    pub name: &'static str,
    /// Its body; if it needs a lab, it gets its own.
    pub run: fn(&T) -> Result<()>,
}

/// Makes a [`Test`] of each function.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        &[$($crate::Test { name: stringify!($name), run: $name }),*]
    };
}

/// Why a test cannot run here.
#[derive(Debug)]
struct Skipped(String);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skipped {}

/// The result of a test that cannot run here, and why. It counts as skipped.
///
/// # Errors
///
/// Always.
pub fn skip(why: impl fmt::Display) -> Result<()> {
    Err(Skipped(why.to_string()).into())
}

/// The number of tests by result.
#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
    filtered: usize,
}

/// Runs the tests whose name contains one of the arguments, like libtest, and prints its messages. Each
/// has a lab.
pub fn run_tests(tests: &[Test]) -> ExitCode {
    run_selected(tests, obstacle().as_ref(), run_in_lab)
}

/// The same for tests that share something else.
pub fn run_tests_of<T>(subject: Result<T>, tests: &[Test<T>]) -> ExitCode {
    match subject {
        Ok(subject) => run_selected(tests, None, |test| caught(|| (test.run)(&subject))),
        Err(error) => run_selected(tests, Some(&format!("{error:#}")), |_| Ok(())),
    }
}

fn run_selected<T>(
    tests: &[Test<T>],
    obstacle: Option<&String>,
    run: impl Fn(&Test<T>) -> Result<()>,
) -> ExitCode {
    let words = std::env::args().skip(1);
    let parts: Vec<String> = words.filter(|word| !word.starts_with('-')).collect();
    let selected =
        |test: &&Test<T>| parts.is_empty() || parts.iter().any(|part| test.name.contains(part));
    let mut counts = Counts::default();
    println!("\nrunning {} tests", tests.iter().filter(selected).count());
    for test in tests {
        if !selected(&test) {
            counts.filtered += 1;
            continue;
        }
        match obstacle {
            Some(why) => {
                println!("test {} ... skipped: {why}", test.name);
                counts.skipped += 1;
            }
            None => match outcome(test, &run) {
                TestOutcome::Passed => counts.passed += 1,
                TestOutcome::Failed => counts.failed += 1,
                TestOutcome::Skipped => counts.skipped += 1,
            },
        }
    }
    report(&counts)
}

/// Why there can be no lab here.
fn obstacle() -> Option<String> {
    let prepared = tear_down_on_signals()
        .and_then(|()| agent::binary())
        .and_then(|_| Lab::new());
    prepared.err().map(|error| format!("{error:#}"))
}

/// How a test ended.
enum TestOutcome {
    Passed,
    Failed,
    Skipped,
}

fn outcome<T>(test: &Test<T>, run: impl Fn(&Test<T>) -> Result<()>) -> TestOutcome {
    let start = Instant::now();
    let result = run(test);
    let took = start.elapsed().as_secs_f32();
    match result {
        Ok(()) => {
            println!("test {} ... ok ({took:.1} s)", test.name);
            TestOutcome::Passed
        }
        Err(error) if error.is::<Skipped>() => {
            println!("test {} ... skipped: {error}", test.name);
            TestOutcome::Skipped
        }
        Err(error) => {
            println!("test {} ... FAILED ({took:.1} s)\n{error:#}", test.name);
            TestOutcome::Failed
        }
    }
}

fn run_in_lab(test: &Test) -> Result<()> {
    let lab = Lab::new()?;
    let result = caught(|| (test.run)(&lab));
    if let Err(error) = &result
        && !error.is::<Skipped>()
    {
        println!("{}", lab.logs()?);
    }
    result
}

fn caught(run: impl FnOnce() -> Result<()>) -> Result<()> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|panic| Err(anyhow!("panicked: {}", message(&*panic))))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

fn report(counts: &Counts) -> ExitCode {
    let word = if counts.failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {} passed; {} failed; {} ignored; 0 measured; {} filtered out\n",
        counts.passed, counts.failed, counts.skipped, counts.filtered
    );
    if counts.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
