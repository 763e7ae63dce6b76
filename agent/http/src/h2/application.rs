//! The application's HTTP/2 connections. The first begins with the first permitted request. When a
//! connection takes no more requests, those that are under way continue on it, and the next ones go over
//! another.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;

use h2::client::Builder;
use h2::{Ping, PingPong};
use tokio::sync::{Mutex, Notify};

use super::super::gate::Gate;
use super::windows::Window;
use ambit_datapath::{ApplicationConnection, ApplicationRequests, ReadyRequests, RequestStream};
use ambit_http2::HeadLimits;
use ambit_policy::RequestPermit;

/// The most connections to the application for one connection of a client. When one of them takes no more
/// requests, the client is sent GOAWAY, so that only what it had sent before needs another.
const MOST_CONNECTIONS: u32 = 4;

/// The application's connections, for all streams of a client's connection.
pub(super) struct Application<'a, G> {
    gate: &'a G,
    settings: Builder,
    heads: HeadLimits,
    responses: Rc<Window>,
    /// The first connection, until HTTP/2 begins on it. Locked while a connection begins.
    unused: Mutex<Option<RequestStream>>,
    /// The connection that takes requests.
    open: RefCell<Option<Open>>,
    begun: Cell<u32>,
    undriven: RefCell<Vec<Undriven>>,
    has_undriven: Notify,
    drains: Notify,
}

/// One of the connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ConnectionNumber(u32);

/// A connection that takes requests.
#[derive(Clone)]
pub(super) struct Open {
    number: ConnectionNumber,
    requests: ApplicationRequests,
    settings: Rc<Mutex<PeerSettings>>,
}

/// What is known of the application's settings.
enum PeerSettings {
    /// They may not have arrived yet. A ping is answered after they were sent.
    Unknown(PingPong),
    Arrived,
}

/// A connection that has to be driven.
pub(super) struct Undriven {
    number: ConnectionNumber,
    connection: ApplicationConnection,
}

/// What a request needs of the application's connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Need {
    /// A stream.
    Stream,
    /// A stream for another protocol, by extended CONNECT (RFC 8441).
    ExtendedConnect,
}

/// Why a request was not sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotSent {
    /// The application accepts no more requests from this client's connection; it may from another.
    #[error("the application accepts no more requests on its connections")]
    Drains,
    /// HTTP/2 to the application failed.
    #[error("HTTP/2 to the application failed: {0}")]
    Failed(#[from] h2::Error),
}

impl<'a, G: Gate> Application<'a, G> {
    /// The application, whose first connection is `stream`. Further ones come from the gate. `heads` are the
    /// limits of `settings`.
    pub(super) fn new(
        stream: RequestStream,
        gate: &'a G,
        settings: Builder,
        heads: HeadLimits,
        responses: Rc<Window>,
    ) -> Self {
        Self {
            gate,
            settings,
            heads,
            responses,
            unused: Mutex::new(Some(stream)),
            open: RefCell::new(None),
            begun: Cell::new(0),
            undriven: RefCell::default(),
            has_undriven: Notify::new(),
            drains: Notify::new(),
        }
    }

    /// Returns the connection that takes requests. If there is none, it is begun.
    ///
    /// # Errors
    /// [`NotSent`].
    pub(super) async fn open(&self, permit: &RequestPermit) -> Result<Open, NotSent> {
        if let Some(open) = self.open.borrow().clone() {
            return Ok(open);
        }
        let mut unused = self.unused.lock().await;
        if let Some(open) = self.open.borrow().clone() {
            return Ok(open);
        }
        let stream = match unused.take() {
            Some(stream) => stream,
            None if self.begun.get() == MOST_CONNECTIONS => return Err(NotSent::Drains),
            None => self.reconnect().await.ok_or(NotSent::Drains)?,
        };
        self.begun.set(self.begun.get() + 1);
        let number = ConnectionNumber(self.begun.get());
        let multiplexed = stream.multiplex(permit, &self.settings, self.heads).await;
        let (requests, mut connection) = multiplexed.inspect_err(|_| self.drains.notify_one())?;
        let pings = connection.ping_pong();
        let open = Open {
            number,
            requests,
            settings: Rc::new(Mutex::new(
                pings.map_or(PeerSettings::Arrived, PeerSettings::Unknown),
            )),
        };
        *self.open.borrow_mut() = Some(open.clone());
        let undriven = Undriven { number, connection };
        self.undriven.borrow_mut().push(undriven);
        self.has_undriven.notify_one();
        Ok(open)
    }

    async fn reconnect(&self) -> Option<RequestStream> {
        if let Err(exhausted) = self.responses.add_connection() {
            self.gate.out_of_memory(exhausted);
            return None;
        }
        self.gate.reconnect().await
    }

    /// Returns a connection that has begun and is not driven. Cancelling loses none.
    pub(super) async fn undriven(&self) -> Undriven {
        loop {
            if let Some(undriven) = self.undriven.borrow_mut().pop() {
                return undriven;
            }
            self.has_undriven.notified().await;
        }
    }

    /// Drives a connection to its end.
    pub(super) async fn drive(&self, undriven: Undriven) {
        let Undriven {
            number,
            mut connection,
        } = undriven;
        let mut window = 0;
        let ended = poll_fn(|context| {
            if window != self.responses.size() {
                window = self.responses.size();
                connection.set_target_window_size(window);
            }
            let ended = Pin::new(&mut connection).poll(context);
            if ended.is_ready() || !self.takes_requests(number, context) {
                self.close(number);
            }
            ended
        });
        if let Err(error) = ended.await {
            tracing::debug!(%error, "an application's HTTP/2 connection failed");
        }
    }

    /// Whether a connection takes requests, as far as it is known. GOAWAY shows only here.
    fn takes_requests(&self, number: ConnectionNumber, context: &mut Context<'_>) -> bool {
        match &mut *self.open.borrow_mut() {
            Some(open) if open.number == number => open.requests.takes_requests(context),
            Some(_) | None => true,
        }
    }

    /// Sends no more requests over a connection.
    pub(super) fn close(&self, number: ConnectionNumber) {
        let open = &mut *self.open.borrow_mut();
        if open.as_ref().is_some_and(|open| open.number == number) {
            *open = None;
            self.drains.notify_one();
        }
    }

    /// Resolves when a connection takes no more requests: clients had better use another, too.
    pub(super) async fn drains(&self) {
        self.drains.notified().await;
    }

    /// Ends the connections in order: one that speaks HTTP/2 ends by itself once no request is under way.
    pub(super) fn end(&self) {
        *self.open.borrow_mut() = None;
        // It is locked only while a request waits for a connection.
        let unused = self
            .unused
            .try_lock()
            .ok()
            .and_then(|mut unused| unused.take());
        if let Some(stream) = unused {
            stream.end();
        }
    }
}

impl Open {
    pub(super) const fn number(&self) -> ConnectionNumber {
        self.number
    }

    /// Waits until the application takes another request on this connection; `None` if it does not have what
    /// the request needs.
    ///
    /// # Errors
    /// If the connection takes no more requests.
    pub(super) async fn ready(self, need: Need) -> Result<Option<ReadyRequests>, h2::Error> {
        match need {
            Need::Stream => {}
            Need::ExtendedConnect if self.allows_extended_connect().await? => {}
            Need::ExtendedConnect => return Ok(None),
        }
        self.requests.ready().await.map(Some)
    }

    /// Whether the application announces extended CONNECT. Waits for its settings.
    async fn allows_extended_connect(&self) -> Result<bool, h2::Error> {
        if !self.requests.allows_extended_connect() {
            let mut settings = self.settings.lock().await;
            if let PeerSettings::Unknown(pings) = &mut *settings {
                pings.ping(Ping::opaque()).await?;
                *settings = PeerSettings::Arrived;
            }
        }
        Ok(self.requests.allows_extended_connect())
    }
}
