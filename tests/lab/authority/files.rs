//! The files of a certificate authority, which change like a mounted Secret: all at the same time.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::agent::ambit;

/// The roots that are trusted.
const ROOTS: &str = "root-cert.pem";

/// The authority's own files, without the roots.
const OWN: [&str; 2] = ["ca-cert.pem", "ca-key.pem"];

/// A directory of Istio's layout `cacerts`: a link to the version that is in force.
pub struct CaFiles {
    directory: PathBuf,
}

impl CaFiles {
    /// Makes an authority with its own root below `parent`.
    ///
    /// # Errors
    ///
    /// If `ambit ca init` fails.
    pub(crate) fn make(parent: &Path) -> Result<Self> {
        let files = Self {
            directory: parent.join("authority"),
        };
        let first = files.new_version()?;
        files.switch_to(&first)?;
        Ok(files)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The roots that are trusted.
    pub fn roots(&self) -> PathBuf {
        self.directory.join(ROOTS)
    }

    /// Makes another authority with its own root, which is not in force yet.
    ///
    /// # Errors
    ///
    /// If `ambit ca init` fails.
    pub fn successor(&self) -> Result<PathBuf> {
        self.new_version()
    }

    /// Step 1 of a change of roots: the old authority continues, and both roots are trusted.
    ///
    /// # Errors
    ///
    /// If files cannot be written.
    pub fn trust_also(&self, successor: &Path) -> Result<()> {
        let both = [
            self.read(ROOTS)?,
            fs::read_to_string(successor.join(ROOTS))?,
        ]
        .concat();
        self.replace(&self.directory.clone(), &both)
    }

    /// Step 2: the new authority signs, and both roots are still trusted.
    ///
    /// # Errors
    ///
    /// If files cannot be written.
    pub fn sign_with(&self, successor: &Path) -> Result<()> {
        let both = self.read(ROOTS)?;
        self.replace(successor, &both)
    }

    /// Step 3: only the new root is trusted.
    ///
    /// # Errors
    ///
    /// If files cannot be written.
    pub fn trust_only(&self, successor: &Path) -> Result<()> {
        let new = fs::read_to_string(successor.join(ROOTS))?;
        self.replace(&self.directory.clone(), &new)
    }

    fn read(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(self.directory.join(name))?)
    }

    /// Puts a version in force that has another's own files, and these roots.
    fn replace(&self, own: &Path, roots: &str) -> Result<()> {
        let version = self.empty_version()?;
        for name in OWN {
            // With its mode: a key that others can read is refused.
            fs::copy(own.join(name), version.join(name))?;
        }
        fs::write(version.join(ROOTS), roots)?;
        self.switch_to(&version)
    }

    fn new_version(&self) -> Result<PathBuf> {
        let version = self.empty_version()?;
        let made = ambit(&["ca", "init", "--dir", &version.to_string_lossy()])?;
        ensure!(made.status.success(), "ambit ca init: {}", made.stderr);
        Ok(version)
    }

    fn empty_version(&self) -> Result<PathBuf> {
        let parent = self.directory.parent().unwrap_or(&self.directory);
        Ok(tempfile::Builder::new()
            .prefix("authority-")
            .tempdir_in(parent)?
            .keep())
    }

    fn switch_to(&self, version: &Path) -> Result<()> {
        let link = self.directory.with_extension("new");
        symlink(version, &link)?;
        Ok(fs::rename(link, &self.directory)?)
    }
}
