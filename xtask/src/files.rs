//! The files of end-to-end tests, two at a time: much of what they do is wait. Each test has its own lab, so they
//! do not meet, except for processor time and memory. Files that measure these run alone.

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, anyhow};

use crate::process::{say, show};
use crate::test::Counts;
use crate::workspace;

/// How many files run at the same time. Each has two agents, which take a processor while they have work.
const TOGETHER: usize = 2;

/// The files that measure time or memory, or use up the machine.
const ALONE: [&str; 11] = [
    "commands",
    "fallback",
    "first_bytes",
    "floods",
    "h2spec",
    "lab",
    "memory",
    "refusals",
    "shares",
    "slow_readers",
    "thin_links",
];

/// Needs a control plane; see `cargo xtask test --cluster`.
const NOT_HERE: &str = "cluster";

/// All files that run without a control plane, by name.
///
/// # Errors
///
/// If the folder cannot be read.
pub(crate) fn all() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(workspace::root().join("tests/tests"))? {
        let path = entry?.path();
        let name = path.file_stem().context("a file without a name")?;
        names.push(name.to_string_lossy().into_owned());
    }
    names.retain(|name| name != NOT_HERE);
    names.sort();
    Ok(names)
}

/// Runs each file by a command that `cargo_test` begins and `names` end, and adds up the counts. Returns whether
/// all succeeded.
///
/// # Errors
///
/// If cargo cannot be run.
pub(crate) fn run(
    files: Vec<String>,
    cargo_test: &(dyn Fn() -> Command + Sync),
    names: &[String],
    total: &mut Counts,
) -> Result<bool> {
    let (alone, together) = split(files);
    let command = |file: &str| {
        let mut command = cargo_test();
        command.args(["--test", file, "--"]).args(names);
        command
    };
    let together = run_on(TOGETHER, together, &command, total)?;
    let alone = run_on(1, alone, &command, total)?;
    Ok(together && alone)
}

/// Those that run alone, and the others.
fn split(files: Vec<String>) -> (Vec<String>, Vec<String>) {
    files
        .into_iter()
        .partition(|file| ALONE.contains(&file.as_str()))
}

/// Runs the files, so many at a time.
fn run_on(
    lanes: usize,
    files: Vec<String>,
    command: &(dyn Fn(&str) -> Command + Sync),
    total: &mut Counts,
) -> Result<bool> {
    let queue = Mutex::new(files.into_iter());
    let next = || {
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.next()
    };
    let lane = || -> Result<(bool, Counts)> {
        let (mut succeeded, mut counts) = (true, Counts::default());
        while let Some(file) = next() {
            succeeded &= run_file(&file, &mut command(&file), &mut counts)?;
        }
        Ok((succeeded, counts))
    };
    let ended = thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
        let join = |lane: thread::ScopedJoinHandle<'_, Result<(bool, Counts)>>| {
            lane.join()
                .unwrap_or_else(|_| Err(anyhow!("a lane panicked")))
        };
        lanes.into_iter().map(join).collect::<Vec<_>>()
    });
    let mut succeeded = true;
    for lane in ended {
        let (lane_succeeded, counts) = lane?;
        succeeded &= lane_succeeded;
        total.add(counts);
    }
    Ok(succeeded)
}

/// Runs one file, and prints all that it says when it ends.
fn run_file(file: &str, cargo: &mut Command, counts: &mut Counts) -> Result<bool> {
    say("test", file);
    let shown = show(cargo);
    let (mut reader, writer) = std::io::pipe()?;
    let spawned = cargo
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn();
    let mut child = spawned.with_context(|| format!("cannot start `{shown}`"))?;
    // Its end is seen only if this process has no writer of its own any more.
    cargo.stdout(Stdio::null()).stderr(Stdio::null());
    let mut output = Vec::new();
    reader.read_to_end(&mut output)?;
    let status = child.wait()?;
    let output = String::from_utf8_lossy(&output);
    print!("{output}");
    output.lines().for_each(|line| counts.add_line(line));
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_run_once_and_those_that_run_alone_exist() {
        let files = all().unwrap();
        let (alone, together) = split(files.clone());
        assert_eq!(alone, ALONE);
        assert_eq!(alone.len() + together.len(), files.len());
        assert!(files.contains(&"redirect".to_owned()) && files.contains(&"verdicts".to_owned()));
    }

    #[test]
    fn results_of_files_that_run_together_are_added_up() {
        let files: Vec<String> = (0..5).map(|file| format!("{file}")).collect();
        let command = |file: &str| {
            let mut command = Command::new("sh");
            let code = u32::from(file == "3");
            let script = format!(
                "echo 'test result: ok. {file} passed; {code} failed; 0 ignored'; exit {code}"
            );
            command.args(["-c", &script]);
            command
        };
        let mut total = Counts::default();
        assert!(!run_on(TOGETHER, files, &command, &mut total).unwrap());
        assert_eq!(total.to_string(), "10 passed, 1 failed, 0 skipped");
    }
}
