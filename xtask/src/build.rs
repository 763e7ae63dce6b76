//! `cargo xtask build`: the kernel programs, then the agent that embeds them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{run as run_command, say};
use crate::setup::KernelCompiler;
use crate::workspace;

/// The kernel objects: the node's programs and each pod's, which the agent embeds, the classifier that its
/// tests and benchmarks load, and what counts system calls for `cargo xtask bench`.
const OBJECTS: [&str; 4] = ["node", "pod", "classify", "calls"];

/// Builds everything.
///
/// # Errors
///
/// If a compiler is missing or fails.
pub(crate) fn run() -> Result<()> {
    kernel_programs()?;
    say("build", "the agent");
    run_command(Command::new("cargo").current_dir(workspace::root()).args([
        "build",
        "--release",
        "--package",
        "ambit",
    ]))?;
    say("build", &workspace::agent_binary().display().to_string());
    Ok(())
}

/// Builds the lab's tools next to this program, where the lab finds them.
///
/// # Errors
///
/// If cargo fails.
pub(crate) fn lab_tools() -> Result<()> {
    say("build", "the lab's tools");
    run_command(Command::new("cargo").current_dir(workspace::root()).args([
        "build",
        "--quiet",
        "--package",
        "ambit-tests",
        "--bins",
    ]))
}

/// Builds the relay that `cargo xtask bench --relay` measures, optimized, and returns its path.
///
/// # Errors
///
/// If cargo fails.
pub(crate) fn relay() -> Result<PathBuf> {
    say("build", "the relay");
    run_command(Command::new("cargo").current_dir(workspace::root()).args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "ambit-tests",
        "--bin",
        "lab-relay",
    ]))?;
    Ok(workspace::target().join("release/lab-relay"))
}

/// Builds the kernel programs and puts them where `agent/datapath/build.rs` and the agent's tests
/// expect them.
///
/// # Errors
///
/// If a compiler is missing or fails.
pub(crate) fn kernel_programs() -> Result<()> {
    say("build", "the kernel programs");
    let compiler = KernelCompiler::find()
        .context("no compiler for kernel programs; see `cargo xtask setup`")?;
    let source = workspace::kernel_crate();
    run_command(
        compiler
            .cargo()
            .current_dir(&source)
            .args(["--target-dir", "target"]),
    )?;
    let built = source.join("target/bpfel-unknown-none/release");
    let embedded = workspace::kernel_objects();
    fs::create_dir_all(&embedded).with_context(|| format!("cannot make {}", embedded.display()))?;
    for object in OBJECTS {
        let from = built.join(object);
        let contents =
            fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
        let to = embedded.join(format!("{object}.o"));
        // Cargo goes by the time of change: an equal object must not rebuild the agent.
        if fs::read(&to).is_ok_and(|present| present == contents) {
            continue;
        }
        fs::write(&to, contents).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(())
}
