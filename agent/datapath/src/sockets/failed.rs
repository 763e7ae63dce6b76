//! Destinations that have just failed for a pod, as the connect hook is told.
//!
//! An entry belongs to the pod whose proxy wrote it: its key has the pod's network namespace. The kernel ignores it
//! after [`ambit_common::FAILED_FOR_NS`], also if the agent dies. If it cannot be written, connects go to the proxy.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ambit_common::{FAILED_FOR_NS, FailedKey};
use aya::maps::{HashMap, MapData, MapError};
use nix::time::{ClockId, clock_gettime};

use crate::sockets::dial::PodDatapath;
use crate::{DatapathError, Pins};
use ambit_model::OriginalDestination;

const MAP: &str = "FAILED";

/// The map of failed destinations. Each shard opens it, so that the lock is never contended.
#[derive(Debug)]
pub(crate) struct FailedTable(Mutex<HashMap<MapData, FailedKey, u64>>);

impl FailedTable {
    pub(crate) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self(Mutex::new(pins.hash(MAP)?)))
    }

    /// Removes what a dead agent left.
    pub(crate) fn clear(&self) -> Result<(), DatapathError> {
        self.with(|map| {
            let left: Vec<_> = map.keys().filter_map(Result::ok).collect();
            left.iter().try_for_each(|key| map.remove(key))
        })
        .map_err(DatapathError::map(MAP, "cleared"))
    }

    fn insert(&self, key: FailedKey, at_ns: u64) -> Result<(), MapError> {
        // An entry may be overwritten: a look-up that misses it goes to the proxy.
        const ANY: u64 = 0;
        self.with(|map| map.insert(key, at_ns, ANY))
    }

    fn remove(&self, key: FailedKey) -> Result<(), MapError> {
        match self.with(|map| map.remove(&key)) {
            // Another shard of the pod has removed it.
            Err(MapError::SyscallError(error)) if is_missing(&error.io_error) => Ok(()),
            Err(MapError::KeyNotFound) => Ok(()),
            other => other,
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut HashMap<MapData, FailedKey, u64>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn is_missing(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}

/// The connect hook refuses the pod's connects to a destination: until this is dropped, and for at most
/// [`RefusedConnects::LASTS`].
#[derive(Debug)]
pub struct RefusedConnects {
    pod: PodDatapath,
    key: FailedKey,
}

impl RefusedConnects {
    /// How long the hook refuses at most.
    pub const LASTS: Duration = Duration::from_nanos(FAILED_FOR_NS);
}

impl PodDatapath {
    /// Lets the connect hook refuse connects of this pod to a destination that has just failed. Returns `None` if
    /// the kernel has no room: connects go to the proxy then.
    pub fn refuse_connects(&self, dialled: OriginalDestination) -> Option<RefusedConnects> {
        let key = FailedKey::new(self.netns(), dialled.0.into());
        let written = monotonic_ns().and_then(|now| {
            let table = &self.maps().failed;
            table.insert(key, now).map_err(std::io::Error::other)
        });
        match written {
            Ok(()) => Some(RefusedConnects {
                pod: self.clone(),
                key,
            }),
            Err(error) => {
                let (pod, dialled) = (self.pod(), dialled.0);
                tracing::debug!(%pod, %dialled, %error, "a failure was not noted in the kernel");
                None
            }
        }
    }
}

impl Drop for RefusedConnects {
    fn drop(&mut self) {
        if let Err(error) = self.pod.maps().failed.remove(self.key) {
            // It ends by itself.
            tracing::debug!(pod = %self.pod.pod(), %error, "a failure was not removed from the kernel");
        }
    }
}

fn monotonic_ns() -> std::io::Result<u64> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    u64::try_from(now.as_nanos()).map_err(std::io::Error::other)
}
