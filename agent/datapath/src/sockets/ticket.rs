//! Tickets: each permits one connect of one socket of the agent.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use ambit_common::{SocketCookie, Ticket};
use aya::maps::{HashMap, MapData, MapError};
use socket2::Socket;

use crate::error::BPF_NOEXIST;
use crate::kernel::bpf::{open_pinned, take_entry};
use crate::sockets::stock::cookie_of;
use crate::{DatapathError, Pins};

const MAP: &str = "TICKETS";

/// The map of tickets. Each shard opens it, so that the lock is never contended.
#[derive(Debug)]
pub(crate) struct Tickets {
    map: Mutex<HashMap<MapData, SocketCookie, Ticket>>,
    /// The same map.
    entries: OwnedFd,
}

/// The result of a connect with a ticket.
#[derive(Debug)]
pub(crate) struct TicketedConnect {
    /// The ticket with the hook's verdict. Only the verdict tells a denial from a failure to connect: other
    /// programs on the hook may also return EPERM.
    pub(crate) ticket: Ticket,
    /// The result of connect(2): `Ok` if the connect is done or in progress.
    pub(crate) connect: io::Result<()>,
}

impl Tickets {
    pub(crate) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        let opened = |error: io::Error| DatapathError::map(MAP, "opened")(MapError::IoError(error));
        let entries = open_pinned(&pins.map(MAP));
        Ok(Self {
            map: Mutex::new(pins.hash(MAP)?),
            entries: entries.map_err(opened)?,
        })
    }

    /// Removes all tickets that a dead agent left.
    pub(crate) fn clear(&self) -> Result<(), DatapathError> {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        let left: Vec<_> = map.keys().filter_map(Result::ok).collect();
        for cookie in left {
            map.remove(&cookie)
                .map_err(DatapathError::map(MAP, "cleared"))?;
        }
        Ok(())
    }

    /// Connects a non-blocking socket with a ticket. The ticket is removed afterwards.
    ///
    /// # Errors
    /// If the ticket could not be written or read, for example because the map is full. Nothing was dialled
    /// then, or the verdict is unknown. The socket must not be used.
    pub(crate) fn connect(
        &self,
        socket: &Socket,
        to: SocketAddr,
        ticket: Ticket,
    ) -> io::Result<TicketedConnect> {
        let cookie = cookie_of(socket)?;
        self.with(|map| map.insert(cookie, ticket, BPF_NOEXIST))?;
        let connect = match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
            other => other,
        };
        // SAFETY: `open` has checked the sizes of the map's keys and values. A ticket is made of integers.
        let ticket = unsafe { take_entry::<SocketCookie, Ticket>(self.entries.as_fd(), &cookie)? };
        Ok(TicketedConnect { ticket, connect })
    }

    fn with<T>(
        &self,
        f: impl FnOnce(&mut HashMap<MapData, SocketCookie, Ticket>) -> Result<T, MapError>,
    ) -> io::Result<T> {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        f(&mut map).map_err(io::Error::other)
    }
}
