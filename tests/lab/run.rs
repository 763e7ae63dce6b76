//! One run of a lab: its name, and the removal of all its traces, whichever process removes it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread;

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SigSet, Signal};

use crate::{cgroup, netns};

/// Each run has a directory here, whose name is the run's.
const DIRECTORY: &str = "/run/ambit-lab";

/// In a run's directory: locked while its creator lives.
const LOCK: &str = "lock";

/// In a run's directory: its creator has left it up on purpose.
const KEPT: &str = "kept";

/// The runs of this process.
static LIVE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Locked for reading while something is made that outlives this process; locked for writing, for good,
/// by a tear-down.
static CREATING: RwLock<()> = RwLock::new(());

/// A lab's claim on its names; dropping it removes everything that bears them.
pub(crate) struct Run {
    id: String,
    _lock: Flock<File>,
}

impl Run {
    /// Takes a name, after removing what dead creators left.
    pub(crate) fn start() -> Result<Self> {
        fs::create_dir_all(DIRECTORY)?;
        let _one_at_a_time = lock(&Path::new(DIRECTORY).with_extension("lock"))?;
        for id in all_runs()? {
            if is_dead(&id) {
                remove(&id)?;
            }
        }
        let _gate = creating();
        let directory = tempfile::Builder::new()
            .prefix("")
            .rand_bytes(5)
            .tempdir_in(DIRECTORY)?
            .keep();
        let id = file_name(&directory);
        let lock = lock(&directory.join(LOCK))?;
        live().push(id.clone());
        Ok(Self { id, _lock: lock })
    }

    /// The prefix of all names.
    pub(crate) fn name(&self) -> String {
        name(&self.id)
    }

    /// For its files.
    pub(crate) fn directory(&self) -> PathBuf {
        directory(&self.id)
    }

    /// Leaves it up when it is dropped, until [`remove_kept`].
    pub(crate) fn keep(&self) -> Result<()> {
        File::create(self.directory().join(KEPT))?;
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        live().retain(|id| *id != self.id);
        if is_kept(&self.id) {
            return;
        }
        if let Err(error) = remove(&self.id) {
            eprintln!("the lab could not be removed in full: {error:#}");
        }
    }
}

/// Held while making something that outlives this process, so that a tear-down misses nothing.
pub(crate) fn creating() -> RwLockReadGuard<'static, ()> {
    CREATING.read().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the labs of this process when a signal ends it. Call it first in `main`: threads that exist
/// already would receive the signals themselves.
///
/// # Errors
///
/// If the signals cannot be blocked.
pub fn tear_down_on_signals() -> Result<()> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block()?;
    thread::spawn(move || {
        let signal = signals.wait();
        let _nothing_more = CREATING.write().unwrap_or_else(PoisonError::into_inner);
        for id in live().iter() {
            if let Err(error) = remove(id) {
                eprintln!("the lab could not be removed in full: {error:#}");
            }
        }
        std::process::exit(128 + signal.map_or(0, |signal| signal as i32));
    });
    Ok(())
}

/// Removes the labs that were left up on purpose, and returns how many.
///
/// # Errors
///
/// If a part of one cannot be removed.
pub fn remove_kept() -> Result<usize> {
    let kept: Vec<String> = all_runs()?.into_iter().filter(|id| is_kept(id)).collect();
    kept.iter().try_for_each(|id| remove(id))?;
    Ok(kept.len())
}

fn live() -> MutexGuard<'static, Vec<String>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name(id: &str) -> String {
    format!("ambit-{id}")
}

fn directory(id: &str) -> PathBuf {
    Path::new(DIRECTORY).join(id)
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn names_in(directory: &str) -> Result<Vec<String>> {
    if !Path::new(directory).exists() {
        return Ok(Vec::new());
    }
    fs::read_dir(directory)?
        .map(|entry| Ok(file_name(&entry?.path())))
        .collect()
}

fn all_runs() -> Result<Vec<String>> {
    names_in(DIRECTORY)
}

fn is_kept(id: &str) -> bool {
    directory(id).join(KEPT).exists()
}

fn is_dead(id: &str) -> bool {
    let free = |file| Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok();
    !is_kept(id) && File::open(directory(id).join(LOCK)).map_or(true, free)
}

fn lock(path: &Path) -> Result<Flock<File>> {
    let file = File::create(path)?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("cannot lock {}", path.display()))
}

/// Processes first, because they hold the rest; the directory last, because it identifies the run.
fn remove(id: &str) -> Result<()> {
    let name = name(id);
    cgroup::remove(&cgroup::mount_point()?.join(&name))?;
    for netns in names_in(netns::DIRECTORY)? {
        if netns.starts_with(&format!("{name}-")) {
            netns::remove(&netns)?;
        }
    }
    for directory in [Path::new("/sys/fs/bpf").join(&name), directory(id)] {
        if directory.exists() {
            fs::remove_dir_all(&directory)
                .with_context(|| format!("cannot remove {}", directory.display()))?;
        }
    }
    Ok(())
}
