//! The places of a pod's inbound connections, shared fairly among their sources: see
//! [`ambit_admission`].
//!
//! A source without a verified identity takes only places of unverified sources; a place among the tunnels
//! requires a certificate of the mesh. A connection on which policy lets something pass occupies its place
//! and keeps it. A connection that waits, or on which nothing was let pass, gives way to a source that
//! holds fewer places.

use crate::limits::ProxyLimits;
use ambit_admission::{Occupied, Seat, SeatHandle, Seats, UnverifiedSource};
use ambit_model::WorkloadIdentity;

/// The source whose share of the places a connection counts towards.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum PlaceSource {
    /// A verified identity.
    Identity(WorkloadIdentity),
    /// No identity is verified.
    Unverified(UnverifiedSource),
}

/// The kind of connection that a place is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PlaceKind {
    /// A tunnel whose peer has not proved an identity yet.
    Handshake,
    /// A tunnel whose peer is verified.
    Tunnel,
    /// A plaintext connection.
    Plaintext,
    /// A CONNECT stream.
    Stream,
}

/// All of a pod's places of one kind are occupied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the pod has {cap} {} already, which is its cap, and none may be displaced", .kind.plural())]
pub(crate) struct NoPlace {
    kind: PlaceKind,
    cap: usize,
}

/// One pod's places. Every shard has a clone; clones share the places.
#[derive(Clone, Debug)]
pub(crate) struct PodPlaces {
    limits: ProxyLimits,
    handshakes: Seats<PlaceSource>,
    tunnels: Seats<PlaceSource>,
    plaintext: Seats<PlaceSource>,
    streams: Seats<PlaceSource>,
}

/// The places that a connection occupies while policy lets something pass on it: its own, and that of
/// its tunnel.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionPlaces {
    pub(crate) own: Option<SeatHandle<PlaceSource>>,
    pub(crate) tunnel: Option<SeatHandle<PlaceSource>>,
}

/// Places that are occupied until this is dropped.
#[derive(Debug)]
pub(crate) struct OccupiedPlaces {
    #[expect(dead_code, reason = "held for its drop")]
    own: Option<Occupied<PlaceSource>>,
    #[expect(dead_code, reason = "held for its drop")]
    tunnel: Option<Occupied<PlaceSource>>,
}

impl PlaceKind {
    const fn plural(self) -> &'static str {
        match self {
            Self::Handshake => "TLS handshakes under way",
            Self::Tunnel => "inbound tunnels",
            Self::Plaintext => "inbound plaintext connections",
            Self::Stream => "inbound streams",
        }
    }
}

impl PodPlaces {
    pub(crate) fn new(limits: ProxyLimits) -> Self {
        Self {
            limits,
            handshakes: Seats::new(limits.handshakes),
            tunnels: Seats::new(limits.inbound),
            plaintext: Seats::new(limits.plaintext),
            streams: Seats::new(limits.streams),
        }
    }

    /// Takes a place for a source.
    ///
    /// # Errors
    /// [`NoPlace`] if all are occupied.
    pub(crate) fn take(
        &self,
        kind: PlaceKind,
        source: PlaceSource,
    ) -> Result<Seat<PlaceSource>, NoPlace> {
        let (seats, cap) = match kind {
            PlaceKind::Handshake => (&self.handshakes, self.limits.handshakes),
            PlaceKind::Tunnel => (&self.tunnels, self.limits.inbound),
            PlaceKind::Plaintext => (&self.plaintext, self.limits.plaintext),
            PlaceKind::Stream => (&self.streams, self.limits.streams),
        };
        seats.take(source).map_err(|_| NoPlace { kind, cap })
    }
}

impl ConnectionPlaces {
    /// ConnectionPlaces them.
    pub(crate) fn occupy(&self) -> OccupiedPlaces {
        let occupy = |seat: &Option<SeatHandle<PlaceSource>>| seat.as_ref().map(SeatHandle::occupy);
        OccupiedPlaces {
            own: occupy(&self.own),
            tunnel: occupy(&self.tunnel),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [PlaceKind; 4] = [
        PlaceKind::Handshake,
        PlaceKind::Tunnel,
        PlaceKind::Plaintext,
        PlaceKind::Stream,
    ];

    fn source(number: u8) -> PlaceSource {
        PlaceSource::Unverified(UnverifiedSource::of([10, 0, 0, number].into()))
    }

    fn places(cap: usize) -> PodPlaces {
        PodPlaces::new(ProxyLimits {
            handshakes: cap,
            inbound: cap,
            plaintext: cap,
            streams: cap,
            ..ProxyLimits::default()
        })
    }

    #[test]
    fn one_kind_does_not_use_up_another() {
        let places = places(1);
        let seats: Vec<_> = ALL
            .into_iter()
            .map(|kind| places.take(kind, source(1)).expect("its own place"))
            .collect();
        let uses = seats.iter().map(|seat| seat.handle().occupy());
        let _in_use: Vec<_> = uses.collect();
        for kind in ALL {
            let refused = places.clone().take(kind, source(2)).expect_err("in use");
            assert_eq!(refused, NoPlace { kind, cap: 1 });
            assert!(refused.to_string().contains("the pod has 1 "));
        }
    }

    #[test]
    fn an_occupied_stream_keeps_its_place_and_that_of_its_tunnel() {
        let places = places(1);
        let tunnel = places.take(PlaceKind::Tunnel, source(1)).expect("free");
        let stream = places.take(PlaceKind::Stream, source(1)).expect("free");
        let places_of_stream = ConnectionPlaces {
            own: Some(stream.handle()),
            tunnel: Some(tunnel.handle()),
        };
        let in_use = places_of_stream.occupy();
        assert!(places.take(PlaceKind::Stream, source(2)).is_err());
        assert!(places.take(PlaceKind::Tunnel, source(2)).is_err());
        drop(in_use);
        places.take(PlaceKind::Stream, source(2)).expect("idle");
        places.take(PlaceKind::Tunnel, source(2)).expect("idle");
    }
}
