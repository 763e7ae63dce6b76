//! The table of enrolled pods.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ambit_common::{Address, NetnsCookie, PodAddressKey, PodEntry, PodPortKey};
use aya::maps::{HashMap, MapData, MapError};

use super::error::removed;
use super::{DatapathError, Pins};

/// What the kernel knows of the pods of this node.
#[derive(Debug)]
pub(super) struct PodTable {
    pods: HashMap<MapData, NetnsCookie, PodEntry>,
    addresses: HashMap<MapData, PodAddressKey, u8>,
    probe_ports: HashMap<MapData, PodPortKey, u8>,
    event_shares: HashMap<MapData, NetnsCookie, [u64; 2]>,
}

impl PodTable {
    pub(super) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self {
            pods: pins.hash("PODS")?,
            addresses: pins.hash("POD_ADDRESSES")?,
            probe_ports: pins.hash("PROBE_PORTS")?,
            event_shares: pins.hash("EVENT_SHARES")?,
        })
    }

    pub(super) fn get(&self, netns: NetnsCookie) -> Result<Option<PodEntry>, DatapathError> {
        match self.pods.get(&netns, 0) {
            Ok(entry) => Ok(Some(entry)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(DatapathError::map("PODS", "read")(error)),
        }
    }

    pub(super) fn set(&mut self, netns: NetnsCookie, entry: PodEntry) -> Result<(), DatapathError> {
        self.pods
            .insert(netns, entry, 0)
            .map_err(DatapathError::map("PODS", "written"))?;
        if self.event_shares.get(&netns, 0).is_err() {
            self.event_shares
                .insert(netns, [0, 0], 0)
                .map_err(DatapathError::map("EVENT_SHARES", "written"))?;
        }
        Ok(())
    }

    /// Makes the pod's own addresses these.
    pub(super) fn set_addresses(
        &mut self,
        netns: NetnsCookie,
        addresses: &[IpAddr],
    ) -> Result<(), DatapathError> {
        let wanted: BTreeSet<Address> = addresses.iter().map(|&ip| ip.into()).collect();
        let known = self.addresses_of(netns);
        for &address in wanted.difference(&known) {
            self.addresses
                .insert(PodAddressKey { netns, address }, 1, 0)
                .map_err(DatapathError::map("POD_ADDRESSES", "written"))?;
        }
        for &address in known.difference(&wanted) {
            self.addresses
                .remove(&PodAddressKey { netns, address })
                .map_err(DatapathError::map("POD_ADDRESSES", "written"))?;
        }
        Ok(())
    }

    /// Makes the pod's probe ports these.
    pub(super) fn set_probe_ports(
        &mut self,
        netns: NetnsCookie,
        ports: &BTreeSet<u16>,
    ) -> Result<(), DatapathError> {
        let known = self.probe_ports_of(netns);
        for &port in ports.difference(&known) {
            self.probe_ports
                .insert(
                    PodPortKey {
                        netns,
                        port,
                        zero: [0; 3],
                    },
                    1,
                    0,
                )
                .map_err(DatapathError::map("PROBE_PORTS", "written"))?;
        }
        for &port in known.difference(ports) {
            self.probe_ports
                .remove(&PodPortKey {
                    netns,
                    port,
                    zero: [0; 3],
                })
                .map_err(DatapathError::map("PROBE_PORTS", "written"))?;
        }
        Ok(())
    }

    /// Forgets a pod. Its sk_lookup program must be gone first: without an entry it refuses.
    pub(super) fn remove(&mut self, netns: NetnsCookie) -> Result<(), DatapathError> {
        self.set_addresses(netns, &[])?;
        self.set_probe_ports(netns, &BTreeSet::new())?;
        removed(self.event_shares.remove(&netns), "EVENT_SHARES")?;
        removed(self.pods.remove(&netns), "PODS")
    }

    fn addresses_of(&self, netns: NetnsCookie) -> BTreeSet<Address> {
        let keys = self.addresses.keys().filter_map(Result::ok);
        keys.filter(|key| key.netns == netns)
            .map(|key| key.address)
            .collect()
    }

    fn probe_ports_of(&self, netns: NetnsCookie) -> BTreeSet<u16> {
        let keys = self.probe_ports.keys().filter_map(Result::ok);
        keys.filter(|key| key.netns == netns)
            .map(|key| key.port)
            .collect()
    }
}
