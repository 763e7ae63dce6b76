//! A Debian kernel, unpacked next to cargo's output, and the virtme-ng that boots it.
//! Nothing is installed: this machine's own kernel and boot loader are left alone.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::{output_of, run, say};
use crate::setup::VIRTME;
use crate::workspace;

/// The folder for unpacked kernels, in the target folder.
const KERNELS: &str = "kernels";

/// An unpacked kernel.
pub(super) struct Image {
    directory: PathBuf,
    version: String,
}

impl Image {
    /// Fetches Debian's newest kernel of a series, for example `6.1`, unless it is there.
    pub(super) fn fetch(series: &str) -> Result<Self> {
        ensure!(
            cfg!(target_arch = "x86_64"),
            "kernels are emulated for x86_64 only"
        );
        let directory = workspace::target().join(KERNELS).join(series);
        fs::create_dir_all(&directory)?;
        VIRTME.install()?;
        let version = match unpacked(&directory)? {
            Some(version) => version,
            None => unpack(series, &directory)?,
        };
        Ok(Self { directory, version })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Such as `6.1.0-56-amd64`.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    pub(super) fn kernel(&self) -> PathBuf {
        boot(&self.directory).join(format!("{PREFIX}{}", self.version))
    }

    pub(super) fn virtme(&self) -> PathBuf {
        VIRTME.path()
    }

    /// virtme-ng looks for its own parts on the path.
    pub(super) fn search_path(&self) -> Result<OsString> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let own = [VIRTME.directory()].into_iter();
        let all = own
            .chain(std::env::split_paths(&path))
            .chain(["/usr/sbin".into(), "/sbin".into()]);
        Ok(std::env::join_paths(all)?)
    }
}

/// What Debian calls a kernel's file, before its version.
const PREFIX: &str = "vmlinuz-";

fn boot(directory: &Path) -> PathBuf {
    directory.join("root/boot")
}

/// The version of the kernel that is there.
fn unpacked(directory: &Path) -> Result<Option<String>> {
    if !boot(directory).exists() {
        return Ok(None);
    }
    for entry in fs::read_dir(boot(directory))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(version) = name.strip_prefix(PREFIX) {
            return Ok(Some(version.to_owned()));
        }
    }
    Ok(None)
}

fn unpack(series: &str, directory: &Path) -> Result<String> {
    let package = newest_package(series)?;
    say("test", &format!("fetching {package}"));
    let download = directory.join("package");
    if download.exists() {
        fs::remove_dir_all(&download)?;
    }
    fs::create_dir(&download)?;
    run(Command::new("apt-get").current_dir(&download).args([
        "-q",
        "-o",
        "APT::Sandbox::User=root",
        "download",
        &package,
    ]))?;
    let entry = fs::read_dir(&download)?.next();
    let archive = entry.context("apt-get downloaded nothing")??.path();
    run(Command::new("dpkg-deb")
        .arg("--extract")
        .arg(archive)
        .arg(directory.join("root")))?;
    fs::remove_dir_all(&download)?;
    unpacked(directory)?.with_context(|| format!("{package} has no kernel in it"))
}

fn newest_package(series: &str) -> Result<String> {
    let pattern = format!(
        "^linux-image-{}[0-9.]*-[0-9]+-amd64$",
        series.replace('.', "\\.")
    );
    let mut search = Command::new("apt-cache");
    search.args(["search", "--names-only", &pattern]);
    let found = output_of(&mut search)?;
    let names = found.lines().filter_map(|line| line.split(' ').next());
    names
        .max_by_key(|name| revision(name))
        .map(str::to_owned)
        .with_context(|| {
            format!("this system's package lists have no kernel {series}; try `apt-get update`")
        })
}

/// The numbers in a package's name, to find the newest.
fn revision(name: &str) -> Vec<u32> {
    let numbers = name.split(|letter: char| !letter.is_ascii_digit());
    numbers.filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_package_is_found_by_its_numbers() {
        let old = revision("linux-image-6.1.0-9-amd64");
        assert!(revision("linux-image-6.1.0-56-amd64") > old);
        assert!(old > revision("linux-image-5.10.0-30-amd64"));
    }
}
