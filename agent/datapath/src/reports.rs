//! What the kernel programs report: a counter for each outcome, and each denial with its reason.

use std::collections::BTreeMap;
use std::io;

use ambit_common::{
    Counter, DenialEvent, FourTuple, Hook, IdentityId, NetnsCookie, PolicySetId, Reason,
};
use aya::maps::{MapData, PerCpuArray, RingBuf};
use tokio::io::unix::AsyncFd;

use crate::{DatapathError, Pins};

/// Reads the programs' counters, summed over CPUs. They live as long as the pins: a restart of the agent does
/// not reset them.
pub struct Counters {
    map: PerCpuArray<MapData, u64>,
}

impl Counters {
    /// Opens the counters.
    ///
    /// # Errors
    /// [`DatapathError::Map`] if the map cannot be opened.
    pub fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self {
            map: pins.per_cpu_array("COUNTS")?,
        })
    }

    /// Reads every counter, by name.
    ///
    /// # Errors
    /// [`DatapathError::Map`] if the map cannot be read.
    pub fn read(&self) -> Result<BTreeMap<&'static str, u64>, DatapathError> {
        Counter::ALL
            .iter()
            .map(|&counter| {
                let per_cpu = self
                    .map
                    .get(&(counter as u32), 0)
                    .map_err(DatapathError::map("COUNTS", "read"))?;
                Ok((counter.as_str(), per_cpu.iter().sum()))
            })
            .collect()
    }
}

/// A denial that the kernel reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KernelDenial {
    /// The time, in nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Where it was decided.
    pub hook: Hook,
    /// Why the connection was refused.
    pub reason: Reason,
    /// The network namespace of the pod.
    pub netns: NetnsCookie,
    /// The connection; its client is unspecified for a pod's own connect.
    pub connection: FourTuple,
    /// The caller's identity.
    pub identity: IdentityId,
    /// The policy set that decided.
    pub policy_set: PolicySetId,
    /// The alternative that decided, or [`ambit_common::NO_ALTERNATIVE`].
    pub alternative: u32,
}

/// Reads the kernel's denials.
pub struct DenialReader {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl DenialReader {
    /// Opens the ring buffer. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`DatapathError`] if it cannot be opened or polled.
    pub fn open(pins: &Pins) -> Result<Self, DatapathError> {
        let ring = pins.ring_buffer("EVENTS")?;
        // SAFETY: the ring buffer owns its descriptor, which stays the same and open while it
        // lives; so does the `AsyncFd`, which owns the ring buffer.
        let ring = unsafe { AsyncFd::register(ring) }
            .map_err(|error| DatapathError::Socket(error.into()))?;
        Ok(Self { ring })
    }

    /// Waits for denials and passes each to `sink`. A record of another layout is dropped.
    ///
    /// # Errors
    /// If the ring buffer can no longer be polled.
    pub async fn read(&mut self, mut sink: impl FnMut(KernelDenial)) -> io::Result<()> {
        let mut ready = self.ring.readable_mut().await?;
        let ring = ready.get_inner_mut();
        while let Some(record) = ring.next() {
            if let Some(denial) = parse(&record) {
                sink(denial);
            }
        }
        ready.clear_ready();
        Ok(())
    }
}

fn parse(record: &[u8]) -> Option<KernelDenial> {
    if record.len() != size_of::<DenialEvent>() {
        return None;
    }
    // SAFETY: the record has the event's size, and every bit pattern is a `DenialEvent`.
    let event = unsafe { record.as_ptr().cast::<DenialEvent>().read_unaligned() };
    Some(KernelDenial {
        at_ns: event.at_ns,
        hook: Hook::from_u8(event.hook)?,
        reason: Reason::from_u8(event.reason)?,
        netns: event.netns,
        connection: event.connection,
        identity: event.identity,
        policy_set: event.policy_set,
        alternative: event.alternative,
    })
}
