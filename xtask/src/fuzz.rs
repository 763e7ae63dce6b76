//! `cargo xtask fuzz`: input from outside, mutated by libFuzzer under AddressSanitizer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread::available_parallelism;

use anyhow::{Context, Result, ensure};

use crate::process::{run as run_command, say};
use crate::workspace;

/// The longest input, in bytes.
const LONGEST_INPUT: u32 = 4096;

/// Fuzzes each target whose name contains `only`, for some seconds.
///
/// # Errors
///
/// If there is no such target, or nothing can be built.
pub(crate) fn run(only: &str, seconds: u32) -> Result<ExitCode> {
    let directory = workspace::fuzz_crate();
    let targets = targets(&directory, only)?;
    ensure!(
        !targets.is_empty(),
        "no fuzz target has {only:?} in its name"
    );
    say("fuzz", "building the targets");
    run_command(&mut build(&directory))?;
    let (mut passed, mut failed) = (0, 0);
    for together in targets.chunks(available_parallelism()?.get()) {
        say("fuzz", &format!("{}, {seconds} s", together.join(" and ")));
        let running = together
            .iter()
            .map(|target| Ok((target, command(&directory, target, seconds)?.spawn()?)))
            .collect::<Result<Vec<_>>>()?;
        for (target, mut fuzzer) in running {
            if fuzzer.wait()?.success() {
                passed += 1;
            } else {
                eprintln!("error: {target}: the input and how to run it again are above");
                failed += 1;
            }
        }
    }
    println!("{passed} targets passed, {failed} failed");
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn targets(directory: &Path, only: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory.join("targets"))? {
        let path = entry?.path();
        let name = path.file_stem().context("a file without a name")?;
        names.push(name.to_string_lossy().into_owned());
    }
    names.retain(|name| name.contains(only));
    names.sort();
    Ok(names)
}

fn build(directory: &Path) -> Command {
    let mut command = cargo_fuzz(directory, "build");
    command.args(["--fuzz-dir", "tests/fuzz"]);
    command
}

fn command(directory: &Path, target: &str, seconds: u32) -> Result<Command> {
    // New inputs go to the first corpus; the seeds are only read.
    let corpus: PathBuf = directory.join("corpus").join(target);
    fs::create_dir_all(&corpus)?;
    let mut command = cargo_fuzz(directory, "run");
    command
        .args(["--fuzz-dir", "tests/fuzz", target])
        .arg(corpus)
        .arg(directory.join("seeds").join(target))
        .arg("--")
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={LONGEST_INPUT}"))
        .args(["-print_final_stats=1", "-verbosity=0"]);
    Ok(command)
}

fn cargo_fuzz(directory: &Path, verb: &str) -> Command {
    let mut command = Command::new("cargo");
    command
        .current_dir(directory.join("../.."))
        // Sanitizers are not stable; the toolchain that builds the rest has them all the same.
        .env("RUSTC_BOOTSTRAP", "1")
        // One unit, which is the default, takes minutes longer to build than it saves in fuzzing.
        .args(["fuzz", verb, "--codegen-units", "16"]);
    command
}
