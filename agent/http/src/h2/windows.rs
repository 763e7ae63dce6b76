//! The windows of a client's connection and of its application's: how many bytes may come on all streams before
//! any are passed on.
//!
//! Nothing waits on a connection without requests. So a window is charged while a request is under way that could
//! fill it. It grows while bytes flow and memory is plentiful; HTTP/2 has no means to take it back.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ambit_account::{AccountExhausted, Charge, PodAccount};
use http::HeaderMap;
use tokio::sync::Notify;

use super::heads::field_bytes;

/// The window that a connection has from the beginning: HTTP/2's default, which cannot be lowered.
const SCANT: u32 = (64 << 10) - 1;

/// The largest window.
const AMPLE: u32 = 512 << 10;

/// Bytes of a response's heads that are not charged beyond what its request was.
const SHORT_HEADS: usize = 4 << 10;

/// The windows of both directions.
pub(super) struct Windows {
    memory: PodAccount,
    /// For the requests' bodies.
    pub(super) requests: Rc<Window>,
    /// For the responses.
    pub(super) responses: Rc<Window>,
}

/// The window of one direction.
pub(super) struct Window {
    size: Cell<u32>,
    /// The connections that have it.
    connections: Cell<u32>,
    /// The requests that may fill it.
    users: Cell<usize>,
    /// What has passed since it grew.
    passed: Cell<usize>,
    charge: RefCell<Charge>,
    grown: Notify,
}

/// A request's part in a window, until it has ended.
pub(super) struct WindowUse(Rc<Window>);

/// The heads of one response, which wait until the client takes them.
pub(super) struct ResponseHeads {
    bytes: usize,
    charge: Charge,
}

impl Windows {
    /// The windows of a connection that has no requests yet.
    pub(super) fn new(memory: PodAccount) -> Self {
        Self {
            requests: Rc::new(Window::new(memory.nothing())),
            responses: Rc::new(Window::new(memory.nothing())),
            memory,
        }
    }

    /// Whether one has grown.
    pub(super) fn have_grown(&self) -> bool {
        self.requests.size().max(self.responses.size()) > SCANT
    }

    /// The heads of a response, none of which has come.
    pub(super) fn response_heads(&self) -> ResponseHeads {
        ResponseHeads {
            bytes: 0,
            charge: self.memory.nothing(),
        }
    }
}

impl Window {
    const fn new(charge: Charge) -> Self {
        Self {
            size: Cell::new(SCANT),
            connections: Cell::new(1),
            users: Cell::new(0),
            passed: Cell::new(0),
            charge: RefCell::new(charge),
            grown: Notify::const_new(),
        }
    }

    /// The bytes that may come on one connection.
    pub(super) fn size(&self) -> u32 {
        self.size.get()
    }

    /// Takes part in it.
    ///
    /// # Errors
    /// [`AccountExhausted`] if it was idle, and there is not enough memory for it.
    pub(super) fn enter(self: &Rc<Self>) -> Result<WindowUse, AccountExhausted> {
        if self.users.get() == 0 {
            let all = self.size.get() as usize * self.connections.get() as usize;
            self.charge.borrow_mut().grow(all)?;
        }
        self.users.set(self.users.get() + 1);
        Ok(WindowUse(Rc::clone(self)))
    }

    /// Adds a connection, for a request that takes part already.
    ///
    /// # Errors
    /// [`AccountExhausted`].
    pub(super) fn add_connection(&self) -> Result<(), AccountExhausted> {
        self.charge.borrow_mut().grow(self.size.get() as usize)?;
        self.connections.set(self.connections.get() + 1);
        Ok(())
    }

    /// Notes that bytes have passed. If as many have as the window holds, it grows.
    pub(super) fn passed(&self, bytes: usize) {
        let passed = self.passed.get() + bytes;
        let size = self.size.get();
        if passed < size as usize || size >= AMPLE {
            return self.passed.set(passed);
        }
        self.passed.set(0);
        let connections = self.connections.get();
        let wanted = size.min(AMPLE - size) as usize * connections as usize;
        let more = self.charge.borrow_mut().extend(wanted);
        let each = u32::try_from(more).unwrap_or(0) / connections;
        if each > 0 {
            self.size.set(size + each);
            self.grown.notify_one();
        }
    }

    /// Waits until it has grown, and returns its size.
    pub(super) async fn grown(&self) -> u32 {
        self.grown.notified().await;
        self.size.get()
    }
}

impl Drop for WindowUse {
    fn drop(&mut self) {
        let users = self.0.users.get() - 1;
        self.0.users.set(users);
        if users == 0 {
            let mut charge = self.0.charge.borrow_mut();
            let all = charge.bytes();
            charge.shrink(all);
        }
    }
}

impl ResponseHeads {
    /// Adds a head.
    ///
    /// # Errors
    /// [`AccountExhausted`].
    pub(super) fn add(&mut self, headers: &HeaderMap) -> Result<(), AccountExhausted> {
        self.bytes += field_bytes(headers);
        let owed = self.bytes.saturating_sub(SHORT_HEADS);
        match owed.saturating_sub(self.charge.bytes()) {
            0 => Ok(()),
            more => self.charge.grow(more),
        }
    }

    /// Whether they are short.
    pub(super) fn are_short(&self) -> bool {
        self.bytes <= SHORT_HEADS
    }
}

#[cfg(test)]
mod tests {
    use ambit_account::NodeAccount;

    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn a_window_is_charged_while_a_request_could_fill_it() {
        let node = NodeAccount::new(64 * MIB);
        let windows = Windows::new(node.pod());
        assert_eq!(node.usage().in_use, 0);
        let first = windows.responses.enter().expect("room");
        let second = windows.responses.enter().expect("room");
        assert_eq!(node.usage().in_use, SCANT as usize);
        drop(first);
        assert_eq!(node.usage().in_use, SCANT as usize);
        drop(second);
        assert_eq!(node.usage().in_use, 0);
    }

    #[test]
    fn a_window_grows_with_what_passes_and_is_charged_as_it_is_when_it_is_used_again() {
        let node = NodeAccount::new(64 * MIB);
        let windows = Windows::new(node.pod());
        let window = &windows.requests;
        let used = window.enter().expect("room");
        for _ in 0..1000 {
            window.passed(16 << 10);
            assert_eq!(node.usage().in_use, window.size() as usize);
        }
        assert_eq!(window.size(), AMPLE);
        assert!(windows.have_grown());
        drop(used);
        assert_eq!(node.usage().in_use, 0);
        let _used = window.enter().expect("room");
        assert_eq!(node.usage().in_use, AMPLE as usize);
    }

    #[test]
    fn a_window_does_not_grow_without_spare_memory_and_is_refused_without_any() {
        let node = NodeAccount::new(256 << 10);
        let pod = node.pod();
        let windows = Windows::new(pod.clone());
        let used = windows.requests.enter().expect("room");
        let _all = pod.take(pod.spare()).expect("what is spare");
        windows.requests.passed(10 * MIB);
        assert_eq!(windows.requests.size(), SCANT);
        drop(used);
        let mut rest = pod.nothing();
        while rest.grow(1 << 10).is_ok() {}
        assert!(windows.requests.enter().is_err());
    }

    #[test]
    fn each_connection_to_an_application_has_a_window() {
        let node = NodeAccount::new(64 * MIB);
        let windows = Windows::new(node.pod());
        let window = &windows.responses;
        let _used = window.enter().expect("room");
        window.add_connection().expect("room");
        assert_eq!(node.usage().in_use, 2 * SCANT as usize);
        window.passed(SCANT as usize);
        assert_eq!(window.size(), 2 * SCANT);
        assert_eq!(node.usage().in_use, 4 * SCANT as usize);
    }

    #[test]
    fn only_long_heads_of_responses_are_charged() {
        let node = NodeAccount::new(64 * MIB);
        let windows = Windows::new(node.pod());
        let mut heads = windows.response_heads();
        let mut headers = HeaderMap::new();
        headers.insert("a", "b".parse().expect("a value"));
        heads.add(&headers).expect("nothing is charged");
        assert!(heads.are_short() && node.usage().in_use == 0);
        headers.insert("c", "d".repeat(20 << 10).parse().expect("a value"));
        heads.add(&headers).expect("room");
        assert!(!heads.are_short());
        assert!((16 << 10..24 << 10).contains(&node.usage().in_use));
    }
}
