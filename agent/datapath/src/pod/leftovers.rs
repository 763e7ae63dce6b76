//! Pods that are enrolled and not served by this agent: those of an earlier agent, and those that this agent
//! keeps closed. The agent holds nothing that keeps their network namespaces alive.

use std::collections::BTreeSet;

use ambit_common::{NetnsCookie, PodEntry, PodMode};

use crate::DatapathError;
use crate::kernel::link::LinkTarget;
use crate::pod::enrolment::{EnrolError, Enroller, closed};
use crate::pod::owner::{self, PodOwner};
use crate::programs::pod_program;

/// An enrolled pod that is not served.
#[derive(Debug)]
pub struct Leftover {
    /// Its network namespace.
    pub netns: NetnsCookie,
    /// The pod that the namespace belongs to, if it belongs to one.
    ///
    /// # Errors
    /// If the record cannot be read.
    pub owner: Result<Option<PodOwner>, DatapathError>,
    /// Whether the namespace still exists.
    pub life: NetnsLife,
}

/// Whether a network namespace still exists, by the link of its program: the kernel detaches the link when the
/// namespace ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NetnsLife {
    /// It exists, and this is its inode.
    Alive(u64),
    /// It is gone.
    Gone,
    /// No program is attached: an agent was killed while it enrolled or removed the pod.
    Unattached,
    /// The link cannot be read.
    Unknown,
}

impl Enroller {
    /// Lists the enrolled pods, apart from those in `served`.
    ///
    /// # Errors
    /// [`EnrolError`] if the pins cannot be listed.
    pub fn leftovers(&self, served: &BTreeSet<NetnsCookie>) -> Result<Vec<Leftover>, EnrolError> {
        // This includes entries without pins. Otherwise the maps would fill up.
        let mut left = self.table.pods();
        left.extend(self.parts.pins.pods()?);
        let left = left.difference(served);
        Ok(left.map(|&netns| self.leftover(netns)).collect())
    }

    fn leftover(&self, netns: NetnsCookie) -> Leftover {
        let pins = &self.parts.pins;
        let life = match pod_program::link_target(pins, netns) {
            Ok(Some(LinkTarget::Netns(Some(inode)))) => NetnsLife::Alive(inode),
            Ok(Some(LinkTarget::Netns(None))) => NetnsLife::Gone,
            Ok(None) => NetnsLife::Unattached,
            Ok(Some(LinkTarget::Cgroup(_) | LinkTarget::Other(_))) | Err(_) => NetnsLife::Unknown,
        };
        Leftover {
            netns,
            owner: owner::read(&pins.pod(netns)),
            life,
        }
    }

    /// Returns the pod that a network namespace belongs to, if it belongs to one.
    ///
    /// # Errors
    /// [`EnrolError`] if the record cannot be read.
    pub fn owner(&self, netns: NetnsCookie) -> Result<Option<PodOwner>, EnrolError> {
        Ok(owner::read(&self.parts.pins.pod(netns))?)
    }

    /// Closes a leftover in both directions.
    ///
    /// # Errors
    /// [`EnrolError`] if its entry cannot be written. Without listeners, its mesh traffic is refused in any
    /// case.
    pub fn close_leftover(&mut self, netns: NetnsCookie) -> Result<(), EnrolError> {
        match self.table.get(netns).copied() {
            Some(entry) if !entry.is_served() => Ok(()),
            Some(entry) => {
                let state = PodMode::Closed as u8;
                Ok(self.table.set(PodEntry { state, ..entry })?)
            }
            None => Ok(self.table.set(closed(netns))?),
        }
    }
}
