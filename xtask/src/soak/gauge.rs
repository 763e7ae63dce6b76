//! The agents' resources when the mesh is at rest.

use std::fmt;
use std::fs;
use std::net::TcpStream;
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use ambit_tests::{Agent, Lab, NodeName};
use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// Open files may differ by the tunnels that are still pooled.
const POOLED: u64 = 16;

/// Sockets in stock may differ by this: a shard has 0 to 15 and 0 to 3 left for a pod, as chance will
/// have it; four shards at most, and three pods.
const STOCKED: u64 = (15 + 3) * 4 * 3;

/// Memory may differ by this, in bytes: certificates, buffers, and what the allocator keeps.
const MEMORY: u64 = 24 << 20;

/// How often memory is read again, and how long after the last time. Agents look for memory to give back every five
/// seconds.
const READINGS: usize = 4;
const BETWEEN: Duration = Duration::from_secs(2);

/// Both agents together.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Gauge {
    memory: u64,
    /// Open files, but for sockets in stock.
    files: u64,
    stocked: u64,
    /// Kernel programs, maps and links that they hold open.
    kernel_objects: u64,
    threads: u64,
    pins: u64,
}

impl Gauge {
    /// Reads several times: the least memory counts. Allocators give back now and then what they keep.
    pub(super) fn settled(lab: &Lab, agents: &[Agent]) -> Result<Self> {
        let mut settled = Self::read(lab, agents)?;
        for _ in 0..READINGS {
            sleep(BETWEEN);
            let memory = Self::read(lab, agents)?.memory;
            settled.memory = settled.memory.min(memory);
        }
        Ok(settled)
    }

    fn read(lab: &Lab, agents: &[Agent]) -> Result<Self> {
        let mut all = Self::default();
        for agent in agents {
            let id = agent.id().context("an agent has ended")?;
            let process = format!("/proc/{id}");
            let handle = pidfd_open(
                Pid::from_raw(id.cast_signed()).context("no process")?,
                PidfdFlags::empty(),
            )?;
            all.memory += agent.resident()?;
            all.threads += entries(Path::new(&process).join("task"))?;
            for file in fs::read_dir(Path::new(&process).join("fd"))? {
                let file = file?;
                let number = file.file_name().to_string_lossy().parse()?;
                if is_stocked(&handle, number) {
                    all.stocked += 1;
                } else {
                    all.files += 1;
                }
                // One that has been closed meanwhile is none of BPF's.
                let target = fs::read_link(file.path()).unwrap_or_default();
                let is_bpf = target.to_string_lossy().starts_with("anon_inode:bpf");
                all.kernel_objects += u64::from(is_bpf);
            }
        }
        for node in NodeName::ALL {
            all.pins += files_below(&lab.pins(node))?;
        }
        Ok(all)
    }

    /// What has grown by more than a mesh at rest explains, as sentences.
    pub(super) fn growth_since(&self, before: &Self) -> Vec<String> {
        [
            ("bytes of memory", before.memory, self.memory, MEMORY),
            ("open files", before.files, self.files, POOLED),
            ("sockets in stock", before.stocked, self.stocked, STOCKED),
            (
                "kernel objects",
                before.kernel_objects,
                self.kernel_objects,
                0,
            ),
            ("threads", before.threads, self.threads, 0),
            ("pins", before.pins, self.pins, 0),
        ]
        .into_iter()
        .filter(|(_, before, after, tolerance)| *after > before + tolerance)
        .map(|(what, before, after, _)| format!("{before} {what} have become {after}"))
        .collect()
    }
}

impl fmt::Display for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            memory,
            files,
            stocked,
            kernel_objects,
            threads,
            pins,
        } = self;
        let memory = memory >> 20;
        write!(
            f,
            "{memory} MiB, {files} files, {stocked} sockets in stock, {kernel_objects} kernel objects, \
             {threads} threads, {pins} pins"
        )
    }
}

/// Whether a process's file is a TCP socket that has never been used: one in stock.
fn is_stocked(process: &OwnedFd, file: RawFd) -> bool {
    let copy = pidfd_getfd(process, file, PidfdGetfdFlags::empty());
    let address = copy.map(|copy| TcpStream::from(copy).local_addr());
    matches!(address, Ok(Ok(address)) if address.port() == 0)
}

fn entries(directory: impl AsRef<Path>) -> Result<u64> {
    Ok(fs::read_dir(directory)?.count() as u64)
}

fn files_below(directory: &Path) -> Result<u64> {
    let mut files = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() {
            files_below(&entry.path())?
        } else {
            1
        };
    }
    Ok(files)
}
