//! `cargo xtask setup`: what this machine lacks, installed or explained.

mod go;
mod kernel_compiler;
mod python;
mod requirement;

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

pub(crate) use go::peers;
pub(crate) use kernel_compiler::KernelCompiler;
pub(crate) use python::{ENVOY, VIRTME};
use requirement::Requirement;

use crate::process::{run as run_command, say};

/// What to prepare the machine for.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// Building kernel programs and agent.
    Build,
    /// Running a mesh on this machine: the demo and the end-to-end tests.
    Mesh,
    /// The end-to-end tests, in addition to the mesh.
    Tests,
    /// The tests of a cluster's control plane, in addition to the mesh.
    Cluster,
    /// Measuring.
    Bench,
    /// Booting other kernels.
    Kernels,
    /// Linting.
    Lint,
    /// Fuzzing.
    Fuzz,
    /// Interpreting.
    Miri,
}

/// Prepares this machine. Takes some milliseconds if nothing is missing.
///
/// # Errors
///
/// Instructions, if this system cannot be prepared automatically; otherwise what failed to install.
pub(crate) fn run(purposes: &[Purpose]) -> Result<()> {
    let missing: Vec<Requirement> = purposes
        .iter()
        .flat_map(|purpose| requirements(*purpose))
        .filter(|requirement| !requirement.is_met())
        .collect();
    if !missing.is_empty() {
        install_packages(&missing)?;
    }
    for purpose in purposes {
        match purpose {
            Purpose::Build => kernel_compiler::install_linker()?,
            Purpose::Tests => {
                ENVOY.install()?;
                go::build(&go::HTTP_2)?;
            }
            Purpose::Cluster => go::build(&go::CLUSTER)?,
            Purpose::Mesh | Purpose::Bench | Purpose::Kernels => {}
            Purpose::Lint => install_program("cargo-deny")?,
            Purpose::Fuzz => install_program("cargo-fuzz")?,
            Purpose::Miri => install_miri()?,
        }
    }
    Ok(())
}

fn requirements(purpose: Purpose) -> Vec<Requirement> {
    match purpose {
        Purpose::Build => {
            let mut all = requirement::BUILD.to_vec();
            if KernelCompiler::find() != Some(KernelCompiler::RustupNightly) {
                all.extend(requirement::DEBIAN_KERNEL_COMPILER);
            }
            all
        }
        Purpose::Mesh => requirement::MESH.to_vec(),
        Purpose::Tests => requirement::TESTS.to_vec(),
        Purpose::Cluster => requirement::CLUSTER.to_vec(),
        Purpose::Bench => requirement::BENCH.to_vec(),
        Purpose::Kernels => requirement::KERNELS.to_vec(),
        Purpose::Fuzz => requirement::FUZZ.to_vec(),
        Purpose::Lint | Purpose::Miri => Vec::new(),
    }
}

fn install_packages(missing: &[Requirement]) -> Result<()> {
    let packages: Vec<&str> = missing.iter().map(|needed| needed.package).collect();
    if let Some(obstacle) = obstacle() {
        bail!(instruction(obstacle, missing));
    }
    say("setup", &format!("installing {}", packages.join(" ")));
    if run_command(&mut apt_install(&packages)).is_err() {
        say("setup", "the package lists may be old: updating them");
        run_command(Command::new("apt-get").args(["-q", "update"]))?;
        run_command(&mut apt_install(&packages))?;
    }
    Ok(())
}

fn apt_install(packages: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-q", "-y", "--no-install-recommends", "install"])
        .args(packages);
    command
}

/// Why packages cannot be installed here.
fn obstacle() -> Option<&'static str> {
    if !Path::new("/etc/debian_version").exists() {
        Some("this is not a Debian system, so nothing was installed")
    } else if !nix::unistd::geteuid().is_root() {
        Some("installing packages needs root, so nothing was installed")
    } else {
        None
    }
}

fn instruction(obstacle: &str, missing: &[Requirement]) -> String {
    let list: Vec<String> = missing
        .iter()
        .map(|needed| format!("  {needed} (Debian package {})", needed.package))
        .collect();
    format!(
        "{obstacle}. Missing:\n{}\n\
         Install these, then run the same command again. Instead of Debian's compiler for kernel \
         programs (rustc-web, libstd-rust-web-dev-bpf, LLVM) a rustup nightly with its source will \
         do:\n  rustup toolchain install nightly --component rust-src\n  cargo install bpf-linker",
        list.join("\n")
    )
}

/// Installs a program of cargo's.
fn install_program(name: &str) -> Result<()> {
    if requirement::program_exists(name) {
        return Ok(());
    }
    say("setup", &format!("installing {name} (some minutes)"));
    run_command(Command::new("cargo").args(["install", "--locked", name]))
}

fn install_miri() -> Result<()> {
    let present = Command::new("cargo")
        .args(["+nightly", "miri", "--version"])
        .output()
        .is_ok_and(|output| output.status.success());
    if present {
        return Ok(());
    }
    let add = |more: &[&str]| run_command(Command::new("rustup").args(more));
    add(&[
        "toolchain",
        "install",
        "nightly",
        "--no-self-update",
        "--profile",
        "minimal",
    ])?;
    add(&[
        "component",
        "add",
        "--toolchain",
        "nightly",
        "miri",
        "rust-src",
    ])
}
