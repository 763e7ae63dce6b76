//! The application's HTTP/2 connection, begun with the first permitted request.

use std::cell::Cell;

use tokio::sync::{Mutex, Notify, oneshot};

use super::client_settings;
use ambit_datapath::{ApplicationConnection, ApplicationRequests, ReadyRequests, RequestStream};
use ambit_policy::RequestPermit;

/// The way to the application, for all streams of a client's connection.
pub(super) struct Application {
    state: Mutex<State>,
    started: Cell<Option<oneshot::Sender<ApplicationConnection>>>,
    head_size: usize,
    drains: Notify,
}

enum State {
    /// Nothing was sent.
    Unused(RequestStream),
    Open(ApplicationRequests),
    /// Ended, or never begun.
    Closed,
}

/// Why a request was not sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotSent {
    /// It takes no more requests on this connection; on another it may.
    #[error("the application takes no more requests on its connection")]
    Drains,
    /// HTTP/2 failed.
    #[error("HTTP/2 to the application failed: {0}")]
    Failed(#[from] h2::Error),
}

impl Application {
    /// The application, and what drives its connection once there is one.
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

    /// Begins HTTP/2 where that has not been done.
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
            // Where nobody drives it any more, the client's connection is ending.
            let _ = started.send(connection);
        }
        *state = State::Open(requests.clone());
        Ok(requests)
    }

    /// Waits until the application takes another request.
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

    /// Resolves when the application takes no more requests.
    pub(super) async fn drains(&self) {
        self.drains.notified().await;
    }

    /// Ends the connection in order, which it does once no request is under way.
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
