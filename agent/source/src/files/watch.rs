//! Keeps the snapshot up to date with the directory, on a separate thread.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::watch;

use super::in_force::FilesInForce;
use super::read::{self, Survey};
use ambit_model::{Fault, Snapshot};

/// How long the directory must be quiet before it is read, so that a group of changes is read once.
const QUIET: Duration = Duration::from_millis(50);

/// The longest wait for a directory that is never quiet.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// How often the directory is checked without a notification. The kernel's notifications may be lost (a
/// full queue, another node's write on a network file system, a replaced directory).
const POLL: Duration = Duration::from_secs(2);

/// Messages to the thread.
pub(super) enum Message {
    /// Something may have changed.
    Changed,
    /// The source is dropped.
    Stop,
}

/// Subscribes to the kernel's notifications. If that fails, only the poll finds changes.
pub(super) fn subscribe(directory: &Path, inbox: Sender<Message>) -> Option<RecommendedWatcher> {
    let tell = move |event: notify::Result<Event>| {
        if event.map_or(true, |event| may_change_files(&event)) {
            // The receiver is gone only while the source is being dropped.
            let _ = inbox.send(Message::Changed);
        }
    };
    let watcher = notify::recommended_watcher(tell).and_then(|mut watcher| {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    watcher
        .inspect_err(|error| {
            tracing::warn!(
                directory = %directory.display(),
                %error,
                "cannot watch the configuration directory; it is checked every {POLL:?} instead"
            );
        })
        .ok()
}

/// Reading a file is an event too, so each reload would cause the next one.
fn may_change_files(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

/// Reads the directory and publishes what it says.
pub(super) struct Loader {
    directory: PathBuf,
    state: FilesInForce,
    seen: Survey,
    published: watch::Sender<Arc<Snapshot>>,
}

impl Loader {
    /// Reads the directory for the first time.
    pub(super) fn new(directory: PathBuf, mut state: FilesInForce) -> Self {
        let seen = read::survey(&directory);
        let snapshot = load(&directory, &mut state);
        log_changes(&[], snapshot.faults());
        Self {
            directory,
            state,
            seen,
            published: watch::Sender::new(Arc::new(snapshot)),
        }
    }

    /// Receives the snapshots.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.published.subscribe()
    }

    /// Follows the directory until told to stop.
    pub(super) fn run(mut self, inbox: &Receiver<Message>) {
        loop {
            let changed = match inbox.recv_timeout(POLL) {
                Ok(Message::Changed) => true,
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => read::survey(&self.directory) != self.seen,
            };
            if changed {
                match settle(inbox) {
                    Settled::Quiet => self.reload(),
                    Settled::Stopped => return,
                }
            }
        }
    }

    fn reload(&mut self) {
        // Surveyed first: the next survey sees a change after this.
        self.seen = read::survey(&self.directory);
        let snapshot = load(&self.directory, &mut self.state);
        self.published.send_if_modified(|current| {
            if **current == snapshot {
                return false;
            }
            log_changes(current.faults(), snapshot.faults());
            *current = Arc::new(snapshot);
            true
        });
    }
}

fn load(directory: &Path, state: &mut FilesInForce) -> Snapshot {
    for ignored in state.load(read::read(directory)) {
        tracing::info!(
            file = %ignored.path.display(),
            kind = ignored.kind,
            "objects of a kind that the mesh does not read are ignored"
        );
    }
    Snapshot::new(state.parts())
}

fn log_changes(before: &[Fault], after: &[Fault]) {
    for fault in after.iter().filter(|fault| !before.contains(fault)) {
        tracing::warn!(
            subject = fault.subject,
            "configuration fault: {}",
            fault.message
        );
    }
    for fault in before.iter().filter(|fault| !after.contains(fault)) {
        tracing::info!(subject = fault.subject, "configuration fault is resolved");
    }
}

/// How a wait for a quiet directory ended.
enum Settled {
    Quiet,
    Stopped,
}

/// Waits until the directory is quiet, or has been noisy for too long.
fn settle(inbox: &Receiver<Message>) -> Settled {
    let latest = Instant::now() + LONGEST_WAIT;
    loop {
        let left = latest.saturating_duration_since(Instant::now());
        match inbox.recv_timeout(QUIET.min(left)) {
            Ok(Message::Changed) if !left.is_zero() => {}
            Ok(Message::Changed) | Err(RecvTimeoutError::Timeout) => return Settled::Quiet,
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return Settled::Stopped,
        }
    }
}
