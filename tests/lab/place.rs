//! The place of a process: a network namespace and a control group.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::SigSet;

use crate::cgroup;
use crate::netns::Netns;

/// A network namespace and a control group, as every pod has them.
#[derive(Clone, Debug)]
pub struct Place {
    netns: Netns,
    cgroup: PathBuf,
}

impl Place {
    /// Makes the control group.
    pub(crate) fn create(netns: Netns, cgroup: PathBuf) -> Result<Self> {
        cgroup::create(&cgroup)?;
        Ok(Self { netns, cgroup })
    }

    /// The network namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The control group.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// A command that runs in this place from its first instruction on.
    ///
    /// # Errors
    ///
    /// If the place is gone.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let netns = File::open(self.netns.path())?;
        let group = self.cgroup.join("cgroup.procs");
        let mut group = OpenOptions::new()
            .write(true)
            .open(&group)
            .with_context(|| format!("cannot open {}", group.display()))?;
        let mut command = Command::new(program);
        let enter = move || {
            group.write_all(b"0")?;
            setns(&netns, CloneFlags::CLONE_NEWNET)?;
            // Blocked in this process: see `tear_down_on_signals`.
            SigSet::empty().thread_set_mask()?;
            Ok(())
        };
        // SAFETY: between fork and exec `enter` makes three system calls, two of them on files
        // opened before; it takes no lock and allocates nothing.
        unsafe { command.pre_exec(enter) };
        Ok(command)
    }
}
