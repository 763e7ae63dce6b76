//! Pods that are in the kernel and that no one serves: those of an earlier agent, and those that
//! this agent keeps closed. Nothing of the agent keeps their network namespaces alive.

use std::collections::BTreeSet;

use ambit_common::{NetnsCookie, PodEntry, PodMode};

use crate::DatapathError;
use crate::kernel::link::LinkTarget;
use crate::pod::enrolment::{EnrolError, Enroller, closed};
use crate::pod::owner::{self, PodOwner};
use crate::programs::pod_program;

/// A pod that is in the kernel and not served.
#[derive(Debug)]
pub struct Leftover {
    /// Its network namespace.
    pub netns: NetnsCookie,
    /// The pod that the namespace was given to, if it was given to one.
    ///
    /// # Errors
    /// Where that cannot be read.
    pub owner: Result<Option<PodOwner>, DatapathError>,
    /// Whether the namespace lives.
    pub life: NetnsLife,
}

/// Whether a network namespace lives, by the link of its program: the kernel takes the link off a
/// namespace that ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NetnsLife {
    /// It lives, and this is its inode.
    Alive(u64),
    /// It is gone.
    Gone,
    /// Nothing is attached to it: an agent was killed while it took the pod in or out.
    Unattached,
    /// The link cannot be read.
    Unknown,
}

impl Enroller {
    /// The pods that are in the kernel, apart from those that are `served`.
    ///
    /// # Errors
    /// [`EnrolError`] if the pins cannot be listed.
    pub fn leftovers(&self, served: &BTreeSet<NetnsCookie>) -> Result<Vec<Leftover>, EnrolError> {
        // Entries without pins are among them, or the tables would fill up.
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

    /// The pod that a network namespace was given to; `None` if it was given to none.
    ///
    /// # Errors
    /// [`EnrolError`] if that cannot be read.
    pub fn owner(&self, netns: NetnsCookie) -> Result<Option<PodOwner>, EnrolError> {
        Ok(owner::read(&self.parts.pins.pod(netns))?)
    }

    /// Closes a leftover both ways.
    ///
    /// # Errors
    /// [`EnrolError`] if its entry cannot be written. Without listeners its mesh traffic is
    /// refused all the same.
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
