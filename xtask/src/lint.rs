//! `cargo xtask lint`: formatting, lints, documentation and dependencies.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use crate::process::{output_of, run as run_command, say};
use crate::{build, citations, workspace};

/// The target for which the kernel programs are linted: rustup's clippy has no `core` for BPF, and the
/// code is the same.
const HOST: &str = if cfg!(target_arch = "aarch64") {
    "aarch64-unknown-linux-gnu"
} else {
    "x86_64-unknown-linux-gnu"
};

/// Crates on which the policy crate must not depend.
const IMPURE: [&str; 4] = ["aya", "libc", "nix", "tokio"];

/// Runs all checks.
///
/// # Errors
///
/// At the first check that fails.
pub(crate) fn run() -> Result<()> {
    build::kernel_programs()?;
    for (crates, directory) in [
        ("the workspace", workspace::root().to_owned()),
        ("the kernel programs", workspace::kernel_crate()),
    ] {
        say("lint", crates);
        cargo(&directory, &["fmt", "--all", "--check"])?;
        clippy(&directory)?;
        dependencies(&directory)?;
    }
    documentation()?;
    say("lint", "what the documents cite");
    citations::check()?;
    purity()?;
    no_test_helpers()?;
    fuzz_targets()
}

/// Ensures that the documentation is valid, that of private items too: above all, that its links lead
/// somewhere.
fn documentation() -> Result<()> {
    say("lint", "the documentation");
    run_command(
        Command::new("cargo")
            .current_dir(workspace::root())
            .env("RUSTDOCFLAGS", "-D warnings")
            .args(["doc", "--locked", "--workspace", "--no-deps"])
            .args(["--document-private-items", "--all-features"]),
    )
}

/// Ensures that the meaning of policies can be used without a runtime or a kernel.
fn purity() -> Result<()> {
    say("lint", "what the policy crate depends on");
    let tree = output_of(
        Command::new("cargo")
            .current_dir(workspace::root())
            .args(["tree", "--locked", "--package", "ambit-policy"])
            .args(["--edges", "normal", "--prefix", "none", "--format", "{p}"]),
    )?;
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    let impure: BTreeSet<&str> = names.filter(|name| IMPURE.contains(name)).collect();
    ensure!(
        impure.is_empty(),
        "ambit-policy must be usable without a runtime or a kernel, and depends on {impure:?}; \
         see `cargo tree --package ambit-policy --edges normal`"
    );
    Ok(())
}

/// Ensures that the agent is built without the crates' helpers for tests, which can make permits.
fn no_test_helpers() -> Result<()> {
    say("lint", "which features the agent is built with");
    let tree = output_of(
        Command::new("cargo")
            .current_dir(workspace::root())
            .args(["tree", "--locked", "--package", "ambit"])
            .args(["--edges", "normal,features", "--prefix", "none"]),
    )?;
    let lent: BTreeSet<&str> = tree
        .lines()
        .filter(|line| line.starts_with("ambit") && line.contains("feature \"testing\""))
        .collect();
    ensure!(
        lent.is_empty(),
        "the agent must not be built with helpers for tests: {lent:?}"
    );
    Ok(())
}

/// Lints the fuzz targets: a separate workspace, which nothing else compiles. Nothing is linked, so
/// libFuzzer is not needed here.
fn fuzz_targets() -> Result<()> {
    say("lint", "the fuzz targets");
    let directory = workspace::fuzz_crate();
    cargo(&directory, &["fmt", "--check"])?;
    run_command(
        Command::new("cargo")
            .current_dir(&directory)
            .env("CARGO_TARGET_DIR", workspace::target())
            .env("CUSTOM_LIBFUZZER_PATH", "./libfuzzer.a")
            .args(["clippy", "--locked", "--bins", "--", "-D", "warnings"]),
    )
}

/// The kernel programs have no tests or other targets that could be built for the host.
fn clippy(directory: &Path) -> Result<()> {
    let targets: &[&str] = if directory == workspace::root() {
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "-D",
            "warnings",
        ]
    } else {
        &["clippy", "--bins", "--target", HOST, "--", "-D", "warnings"]
    };
    cargo(directory, targets)
}

fn dependencies(directory: &Path) -> Result<()> {
    let config = workspace::root().join("deny.toml");
    let config = config.to_string_lossy();
    let deny = |what: &[&str]| {
        let options = ["deny", "--log-level", "error", "--config", &config];
        cargo(directory, &[&options[..], what].concat())
    };
    deny(&["check", "bans", "licenses", "sources"])?;
    if advisories_are_reachable(directory) {
        deny(&["check", "advisories"])
    } else {
        say(
            "lint",
            "note: the advisory database is out of reach, so advisories were not checked",
        );
        Ok(())
    }
}

fn advisories_are_reachable(directory: &Path) -> bool {
    Command::new("cargo")
        .current_dir(directory)
        .args(["deny", "fetch", "db"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn cargo(directory: &Path, arguments: &[&str]) -> Result<()> {
    run_command(Command::new("cargo").current_dir(directory).args(arguments))
}
