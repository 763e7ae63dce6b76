//! How many connections there may be, and whose: see [`ambit_admission`].
//!
//! A stranger takes places of strangers only, and is displaced by callers from elsewhere. Whoever has
//! shown a token of the cluster has a place that counts towards its account.

use std::net::IpAddr;
use std::sync::Arc;

use crate::account::ServiceAccount;
use crate::caller::AuthenticatedCaller;
use ambit_admission::{NoSeat, Occupied, Seat, SeatHandle, Seats, UnverifiedSource};

/// Connections whose callers have not shown a token that is good.
const MAX_STRANGERS: usize = 1024;

/// Connections whose callers have.
const MAX_CALLERS: usize = 3072;

/// Whose share a connection counts towards.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum ConnectionSource {
    /// No token has been shown.
    Stranger(UnverifiedSource),
    /// An account, on the node that its token names.
    Caller(ServiceAccount, Option<Arc<str>>),
}

/// A connection's right to be there.
pub(super) type Slot = Seat<ConnectionSource>;

/// What a call uses while it is under way.
pub(super) type SlotHandle = SeatHandle<ConnectionSource>;

/// A slot that a call uses.
pub(super) type UsedSlot = Occupied<ConnectionSource>;

/// The slots of all connections.
#[derive(Clone, Debug)]
pub(super) struct ConnectionSlots {
    strangers: Seats<ConnectionSource>,
    callers: Seats<ConnectionSource>,
}

impl ConnectionSource {
    pub(super) fn of(caller: &AuthenticatedCaller) -> Self {
        Self::Caller(caller.account.clone(), caller.node.clone())
    }
}

impl Default for ConnectionSlots {
    fn default() -> Self {
        Self::new(MAX_STRANGERS, MAX_CALLERS)
    }
}

impl ConnectionSlots {
    fn new(strangers: usize, callers: usize) -> Self {
        Self {
            strangers: Seats::new(strangers),
            callers: Seats::new(callers),
        }
    }

    /// A slot for a connection of which only the address is known.
    ///
    /// # Errors
    /// [`NoSeat`].
    pub(super) fn take(&self, address: IpAddr) -> Result<Slot, NoSeat> {
        self.strangers
            .take(ConnectionSource::Stranger(UnverifiedSource::of(address)))
    }

    /// A slot for a connection whose caller is known.
    ///
    /// # Errors
    /// [`NoSeat`]; the connection may keep the slot that it has.
    pub(super) fn take_known(&self, caller: ConnectionSource) -> Result<Slot, NoSeat> {
        self.callers.take(caller)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::tests::caller;

    fn address(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    #[test]
    fn strangers_of_one_address_do_not_shut_out_others_of_it_or_of_another() {
        let slots = ConnectionSlots::new(8, 8);
        let mut held: Vec<_> = (0..100)
            .map(|_| slots.take(address(1)).expect("the oldest goes"))
            .collect();
        assert!(held[0].displaced().now_or_never().is_some());
        let mut same = slots.take(address(1)).expect("the oldest goes");
        let mut other = slots.take(address(2)).expect("the oldest goes");
        assert!(same.displaced().now_or_never().is_none());
        assert!(other.displaced().now_or_never().is_none());
    }

    #[test]
    fn strangers_take_nothing_from_callers() {
        let slots = ConnectionSlots::new(1, 1);
        let web = ConnectionSource::of(&caller("shop/web", "web-0", Some("node-1")));
        let mut known = slots.take_known(web).expect("free");
        let _strangers: Vec<_> = (0..100).map(|number| slots.take(address(number))).collect();
        assert!(known.displaced().now_or_never().is_none());
    }

    #[test]
    fn a_call_under_way_keeps_its_slot() {
        let slots = ConnectionSlots::new(1, 1);
        let source = |node| ConnectionSource::of(&caller("shop/web", "web-0", Some(node)));
        let known = slots.take_known(source("node-1")).expect("free");
        let used = known.handle().occupy();
        assert!(slots.take_known(source("node-2")).is_err());
        drop(used);
        assert!(slots.take_known(source("node-2")).is_ok());
    }
}
