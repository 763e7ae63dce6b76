//! How many connections there may be.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Connections of all.
const MAX_CONNECTIONS: usize = 4096;

/// Connections of one address. A node's agent and each sidecar need one.
const MAX_OF_ADDRESS: usize = 32;

/// Counts connections by address.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionSlots(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    addresses: HashMap<IpAddr, usize>,
}

/// The right to one connection, until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    slots: ConnectionSlots,
    address: IpAddr,
}

impl ConnectionSlots {
    /// `None`: the connection is one too many.
    pub(super) fn take(&self, address: IpAddr) -> Option<ConnectionSlot> {
        let address = address.to_canonical();
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = counts.addresses.get(&address).copied().unwrap_or_default();
        if counts.all >= MAX_CONNECTIONS || of_address >= MAX_OF_ADDRESS {
            return None;
        }
        counts.all += 1;
        counts.addresses.insert(address, of_address + 1);
        Some(ConnectionSlot {
            slots: self.clone(),
            address,
        })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut counts = self.slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        if let Some(count) = counts.addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.addresses.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: usize) -> IpAddr {
        let bits = u32::try_from(number).expect("small");
        Ipv4Addr::from_bits(bits).into()
    }

    #[test]
    fn one_address_does_not_take_the_room_of_others() {
        let slots = ConnectionSlots::default();
        let mut held: Vec<_> = (0..MAX_OF_ADDRESS)
            .map(|_| slots.take(address(1)))
            .collect();
        assert!(held.iter().all(Option::is_some));
        assert!(slots.take(address(1)).is_none());
        let mapped = Ipv4Addr::from_bits(1).to_ipv6_mapped();
        assert!(slots.take(mapped.into()).is_none());
        assert!(slots.take(address(2)).is_some());
        held.pop();
        assert!(slots.take(address(1)).is_some());
    }

    #[test]
    fn the_room_of_all_is_bounded_and_given_back() {
        let slots = ConnectionSlots::default();
        let held: Vec<_> = (0..MAX_CONNECTIONS)
            .map(|number| slots.take(address(number)))
            .collect();
        assert!(held.iter().all(Option::is_some));
        assert!(slots.take(address(MAX_CONNECTIONS)).is_none());
        drop(held);
        let counts = slots.0.lock().expect("no panic");
        assert!(counts.all == 0 && counts.addresses.is_empty());
    }
}
