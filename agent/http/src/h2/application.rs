//! The application's HTTP/2 connection, which begins with the first permitted request.

use std::cell::Cell;

use tokio::sync::{Mutex, Notify, oneshot};

use super::client_settings;
use ambit_datapath::{ApplicationConnection, ApplicationRequests, ReadyRequests, RequestStream};
use ambit_policy::RequestPermit;

/// The application's connection, for all streams of a client's connection.
pub(super) struct Application {
    state: Mutex<State>,
    started: Cell<Option<oneshot::Sender<ApplicationConnection>>>,
    head_size: usize,
    drains: Notify,
}

enum State {
    /// Nothing has been sent yet.
    Unused(RequestStream),
    Open(ApplicationRequests),
    /// HTTP/2 has ended, or could not begin.
    Closed,
}

/// Why a request was not sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotSent {
    /// The application accepts no more requests on this connection; it may on another.
    #[error("the application accepts no more requests on its connection")]
    Drains,
    /// HTTP/2 to the application failed.
    #[error("HTTP/2 to the application failed: {0}")]
    Failed(#[from] h2::Error),
}

impl Application {
    /// Returns the application, and a future that drives its connection once there is one.
    pub(super) fn new(
        stream: RequestStream,
        head_size: usize,
    ) -> (Self, impl Future<Output = Result<(), h2::Error>>) {
        let (started, starts) = oneshot::channel::<ApplicationConnection>();
        let application = Self {
            state: Mutex::new(State::Unused(stream)),
            started: Cell::new(Some(started)),
            head_size,
            drains: Notify::new(),
        };
        let driver = async {
            match starts.await {
                Ok(connection) => connection.await,
                Err(_) => Ok(()),
            }
        };
        (application, driver)
    }

    /// Begins HTTP/2, if that has not been done.
    ///
    /// # Errors
    /// [`NotSent`].
    pub(super) async fn open(
        &self,
        permit: &RequestPermit,
    ) -> Result<ApplicationRequests, NotSent> {
        let mut state = self.state.lock().await;
        let stream = match std::mem::replace(&mut *state, State::Closed) {
            State::Closed => return Err(self.drain(NotSent::Drains)),
            State::Open(requests) => {
                *state = State::Open(requests.clone());
                return Ok(requests);
            }
            State::Unused(stream) => stream,
        };
        let settings = client_settings(self.head_size);
        let multiplexed = stream.multiplex(permit, &settings).await;
        let (requests, connection) = multiplexed.map_err(|error| self.drain(error.into()))?;
        if let Some(started) = self.started.take() {
            // If the driver is gone, the client's connection is ending.
            let _ = started.send(connection);
        }
        *state = State::Open(requests.clone());
        Ok(requests)
    }

    /// Waits until the application accepts another request.
    ///
    /// # Errors
    /// [`NotSent`].
    pub(super) async fn ready(
        &self,
        requests: ApplicationRequests,
    ) -> Result<ReadyRequests, NotSent> {
        let ready = requests.ready().await;
        ready.map_err(|error| match error.is_go_away() && error.is_remote() {
            true => self.drain(NotSent::Drains),
            false => self.drain(error.into()),
        })
    }

    /// Resolves when the application accepts no more requests.
    pub(super) async fn drains(&self) {
        self.drains.notified().await;
    }

    /// Ends the connection in order. A connection that speaks HTTP/2 ends by itself once no request is
    /// under way.
    pub(super) fn end(self) {
        match self.state.into_inner() {
            State::Unused(stream) => stream.end(),
            State::Open(_) | State::Closed => {}
        }
    }

    fn drain(&self, reason: NotSent) -> NotSent {
        self.drains.notify_one();
        reason
    }
}
