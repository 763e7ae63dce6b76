//! What tests of several crates share.

#![allow(clippy::expect_used, reason = "tests call this")]

use std::fs::File;
use std::io::Write;

/// Names a file that gets a line for each skipped test: libtest does not know this outcome, so `cargo
/// xtask test` counts the lines.
const SKIPPED_VARIABLE: &str = "AMBIT_SKIPPED_TESTS";

/// Reports that the test cannot run here. The test must return immediately. In CI, every test must run,
/// so this fails there.
pub fn skip(why: &str) {
    // libtest gives a test's name to its thread.
    let thread = std::thread::current();
    let line = format!("skipped: {}: {why}\n", thread.name().unwrap_or("a test"));
    let is_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!is_ci, "in CI every test must run, and this one was {line}");
    // Not by `print!`: libtest shows its output of failed tests only.
    std::io::stderr()
        .write_all(line.as_bytes())
        .expect("stderr");
    if let Some(path) = std::env::var_os(SKIPPED_VARIABLE) {
        // In one write, since test programs and their threads write at once.
        let file = File::options().append(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .expect("the file of skipped tests");
    }
}
