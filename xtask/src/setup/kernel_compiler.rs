//! Which compiler builds the kernel programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::requirement::program_exists;
use crate::process::{run, say};

/// The LLVM that Debian's compiler uses; bpf-linker must be linked with the same.
const LLVM: &str = "/usr/lib/llvm-22";

/// bpf-linker's release, the newest that was tried with these compilers.
const LINKER_VERSION: &str = "0.13.0";

/// A compiler that can build kernel programs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum KernelCompiler {
    /// Debian's, which ships `core` for BPF ready-made.
    Debian,
    /// A rustup nightly that has its own source, and builds `core` from it.
    RustupNightly,
}

impl KernelCompiler {
    /// The one that this machine has; Debian's if it has both, because CI uses that.
    pub(crate) fn find() -> Option<Self> {
        let debian = ["/usr/bin/rustc", "/usr/lib/rustlib/bpfel-unknown-none/lib"];
        if debian.iter().all(|path| Path::new(path).exists()) {
            Some(Self::Debian)
        } else if nightly_has_source() {
            Some(Self::RustupNightly)
        } else {
            None
        }
    }

    /// Cargo with this compiler for BPF.
    pub(crate) fn cargo(self) -> Command {
        let mut cargo = Command::new("cargo");
        cargo.env(
            "RUSTFLAGS",
            "-C linker=bpf-linker -C link-arg=--btf -C debuginfo=2",
        );
        match self {
            Self::Debian => {
                cargo
                    .env("RUSTC", "/usr/bin/rustc")
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env("PATH", path_with_llvm())
                    .arg("build");
            }
            Self::RustupNightly => {
                cargo.env_remove("RUSTUP_TOOLCHAIN").args([
                    "+nightly",
                    "build",
                    "-Z",
                    "build-std=core",
                ]);
            }
        }
        cargo.args(["--release", "--target", "bpfel-unknown-none"]);
        cargo
    }
}

/// Installs bpf-linker, if it is missing.
///
/// # Errors
///
/// If there is no compiler for kernel programs, or the installation fails.
pub(crate) fn install_linker() -> Result<()> {
    if program_exists("bpf-linker") {
        return Ok(());
    }
    say("setup", "installing bpf-linker (about a minute)");
    let mut cargo = Command::new("cargo");
    cargo.args(["install", "bpf-linker", "--version", LINKER_VERSION]);
    match KernelCompiler::find() {
        Some(KernelCompiler::Debian) => {
            cargo
                .env("LLVM_PREFIX", LLVM)
                .env("PATH", path_with_llvm())
                .args(["--no-default-features", "--features", "llvm-22"]);
        }
        Some(KernelCompiler::RustupNightly) => {}
        None => {
            bail!("there is no compiler for kernel programs, although its packages are installed")
        }
    }
    run(&mut cargo)
}

fn path_with_llvm() -> std::ffi::OsString {
    let mut path = std::ffi::OsString::from(LLVM);
    path.push("/bin:");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path
}

fn nightly_has_source() -> bool {
    let home = std::env::var_os("RUSTUP_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".rustup"),
        PathBuf::from,
    );
    let Ok(toolchains) = std::fs::read_dir(home.join("toolchains")) else {
        return false;
    };
    toolchains.flatten().any(|toolchain| {
        toolchain
            .file_name()
            .to_string_lossy()
            .starts_with("nightly-")
            && toolchain
                .path()
                .join("lib/rustlib/src/rust/library")
                .exists()
    })
}
