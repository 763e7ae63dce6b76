//! Caps on what one pod may use of the proxy, so that a flood to or from one pod is that pod's problem.

pub(crate) mod places;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::places::PodPlaces;
use ambit_account::PodAccount;

/// Caps per pod, over all shards, and timeouts per connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProxyLimits {
    /// Connections that the pod's processes have open to the mesh. Default 16,384, below the
    /// 28,000 ephemeral ports of a network namespace.
    pub outbound: usize,
    /// Tunnels to the pod whose peers have proved an identity, shared by identity. Default 4,096.
    pub inbound: usize,
    /// Tunnels to the pod whose peers have not proved an identity yet, shared by unverified source.
    /// Default 256.
    pub handshakes: usize,
    /// Undecided plaintext connections accepted for the pod, shared by unverified source. Default
    /// 4,096.
    pub plaintext: usize,
    /// Open CONNECT streams towards the pod, over all its tunnels, shared by identity. Default
    /// 16,384.
    pub streams: usize,
    /// File descriptors of all connections of one pod: outbound, inbound and delivered. Default: no cap; see [`ProxyLimits::within`].
    pub descriptors: usize,
    /// From TCP accept to the end of the TLS handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// From dialling an endpoint to its answer: TCP, TLS and CONNECT. Default 10 s.
    pub dial_timeout: Duration,
    /// From a request's head to the end of the part of its body that external authorizers see. Default
    /// 60 s.
    pub body_timeout: Duration,
    /// How long a connection to an address that the model does not know yet is held before it is
    /// refused. Default 2 s.
    pub hold: Duration,
}

impl Default for ProxyLimits {
    fn default() -> Self {
        Self {
            outbound: 16_384,
            inbound: 4_096,
            handshakes: 256,
            plaintext: 4_096,
            streams: 16_384,
            descriptors: usize::MAX,
            handshake_timeout: Duration::from_secs(10),
            dial_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            hold: Duration::from_secs(2),
        }
    }
}

impl ProxyLimits {
    /// Returns the caps for a process that may have `descriptors` open. One pod gets at most five eighths
    /// of them, so that a flooded pod leaves some to the others. Of these, connections on which policy has
    /// let nothing pass get at most five eighths, so that the others find some.
    #[must_use]
    pub fn within(self, descriptors: u64) -> Self {
        let most = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let descriptors = self.descriptors.min(most / 8 * 5);
        Self {
            descriptors,
            inbound: self.inbound.min(descriptors / 4),
            plaintext: self.plaintext.min(descriptors / 4),
            handshakes: self.handshakes.min(descriptors / 8),
            ..self
        }
    }
}

/// A resource that a cap counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resource {
    Outbound,
    Descriptors,
}

/// A pod has used up a cap.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the pod has {cap} {} already, which is its cap", .resource.plural())]
pub(crate) struct OverCap {
    resource: Resource,
    cap: usize,
}

/// A share of a pod's cap, given back on drop.
#[derive(Debug)]
pub(crate) struct Slot {
    #[expect(dead_code, reason = "held for its drop")]
    own: OwnedSemaphorePermit,
    #[expect(dead_code, reason = "held for its drop")]
    descriptor: Option<OwnedSemaphorePermit>,
}

/// One pod's caps. Every shard has a clone; clones share the caps.
#[derive(Clone, Debug)]
pub(crate) struct PodCaps {
    limits: ProxyLimits,
    /// The places that callers share.
    pub(crate) places: PodPlaces,
    /// The memory that waiting bytes take.
    pub(crate) memory: PodAccount,
    outbound: Arc<Semaphore>,
    descriptors: Arc<Semaphore>,
}

impl Resource {
    /// Whether one of it takes a descriptor that nothing else counts.
    const fn takes_descriptor(self) -> bool {
        match self {
            Self::Outbound => true,
            Self::Descriptors => false,
        }
    }

    const fn plural(self) -> &'static str {
        match self {
            Self::Outbound => "outbound connections",
            Self::Descriptors => "connections in both directions",
        }
    }
}

impl PodCaps {
    pub(crate) fn new(limits: ProxyLimits, memory: PodAccount) -> Self {
        let cap = |cap: usize| Arc::new(Semaphore::new(cap.min(Semaphore::MAX_PERMITS)));
        Self {
            limits,
            places: PodPlaces::new(limits),
            memory,
            outbound: cap(limits.outbound),
            descriptors: cap(limits.descriptors),
        }
    }

    /// Takes one of a resource.
    ///
    /// # Errors
    /// [`OverCap`] if the pod has used it up.
    pub(crate) fn take(&self, resource: Resource) -> Result<Slot, OverCap> {
        let own = self.acquire(resource)?;
        let descriptor = if resource.takes_descriptor() {
            Some(self.acquire(Resource::Descriptors)?)
        } else {
            None
        };
        Ok(Slot { own, descriptor })
    }

    fn acquire(&self, resource: Resource) -> Result<OwnedSemaphorePermit, OverCap> {
        let (semaphore, cap) = match resource {
            Resource::Outbound => (&self.outbound, self.limits.outbound),
            Resource::Descriptors => (&self.descriptors, self.limits.descriptors),
        };
        Arc::clone(semaphore)
            .try_acquire_owned()
            .map_err(|_| OverCap { resource, cap })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ambit_account::NodeAccount;

    const ALL: [Resource; 1] = [Resource::Outbound];

    fn caps_of(limits: ProxyLimits) -> PodCaps {
        PodCaps::new(limits, NodeAccount::new(0).pod())
    }

    fn caps(cap: usize) -> PodCaps {
        caps_of(ProxyLimits {
            outbound: cap,
            ..ProxyLimits::default()
        })
    }

    #[test]
    fn a_cap_refuses_the_next_one_until_a_slot_is_given_back() {
        for resource in ALL {
            let caps = caps(2);
            let first = caps.take(resource).expect("one of two");
            let _second = caps.clone().take(resource).expect("two of two");
            let refused = caps.take(resource).expect_err("over the cap");
            assert_eq!(refused, OverCap { resource, cap: 2 });
            assert!(refused.to_string().contains("the pod has 2 "));
            drop(first);
            caps.take(resource).expect("given back");
        }
    }

    #[test]
    fn one_resource_does_not_use_up_another() {
        let caps = caps(1);
        let _slots: Vec<Slot> = ALL
            .into_iter()
            .map(|resource| caps.take(resource).expect("its own cap"))
            .collect();
    }

    #[test]
    fn the_directions_share_a_pods_descriptors() {
        let caps = caps_of(ProxyLimits::default().within(16));
        let slots: Vec<Slot> = (0..5)
            .map(|_| caps.take(Resource::Outbound).expect("five eighths"))
            .chain((0..5).map(|_| caps.take(Resource::Descriptors).expect("five eighths")))
            .collect();
        let refused = caps.take(Resource::Outbound).expect_err("over the cap");
        assert_eq!(refused.resource, Resource::Descriptors);
        drop(slots);
        caps.take(Resource::Outbound).expect("given back");
    }

    #[test]
    fn unverified_sources_leave_descriptors_to_connections_that_policy_let_pass() {
        for descriptors in [16, 1024, 20_000, 1 << 20] {
            let limits = ProxyLimits::default().within(descriptors);
            let unverified = limits.inbound + limits.plaintext + limits.handshakes;
            assert!(8 * unverified <= 5 * limits.descriptors, "{descriptors}");
        }
    }

    #[test]
    fn one_pod_does_not_use_up_another() {
        let (flooded, other) = (caps(0), caps(1));
        assert!(flooded.take(Resource::Outbound).is_err());
        assert!(other.take(Resource::Outbound).is_ok());
    }
}
