//! Network namespaces under `/run/netns`, as `ip netns` keeps them.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};

use crate::run::creating;

/// The directory of `ip netns`.
pub(crate) const DIRECTORY: &str = "/run/netns";

/// A named network namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Netns(String);

impl Netns {
    /// Makes one, with `lo` up.
    pub(crate) fn create(name: String) -> Result<Self> {
        let _gate = creating();
        ip(&["netns", "add", &name], "")?;
        let netns = Self(name);
        netns.ip("link set lo up")?;
        // No duplicate address detection: there are no other owners of an IPv6 address here.
        netns.sysctl(&[("ipv6/conf/default/accept_dad", "0")])?;
        Ok(netns)
    }

    /// An existing one.
    pub(crate) fn existing(name: String) -> Self {
        Self(name)
    }

    /// The name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The file of the namespace.
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.0)
    }

    /// Runs lines of `ip` commands in it.
    pub fn ip(&self, lines: &str) -> Result<()> {
        ip(&["-n", &self.0, "-batch", "-"], lines)
            .with_context(|| format!("in network namespace {}", self.0))
    }

    /// Sets values below `/proc/sys/net`.
    pub(crate) fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            settings.iter().try_for_each(|(name, value)| {
                let path = Path::new("/proc/sys/net").join(name);
                std::fs::write(&path, value)
                    .with_context(|| format!("cannot set {}", path.display()))
            })
        })?
    }

    /// Does `work` on a thread inside the namespace. The thread stays in this process's cgroup, so its
    /// connections pass no agent's hook: an attacker who has the pod's network, but is not the pod,
    /// acts like this.
    ///
    /// # Errors
    ///
    /// If the namespace cannot be entered, or `work` panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let file = File::open(self.path())?;
        thread::scope(|scope| {
            let inside = scope.spawn(move || -> Result<T> {
                setns(&file, CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            });
            inside
                .join()
                .map_err(|_| anyhow!("panicked inside network namespace {}", self.0))?
        })
    }
}

/// Removes one by its name.
pub(crate) fn remove(name: &str) -> Result<()> {
    ip(&["netns", "delete", name], "")
}

fn ip(arguments: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start `ip`; see `cargo xtask setup`")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "`ip {}` failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
