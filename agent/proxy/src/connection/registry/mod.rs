//! The registry of a pod's live connections: listed for the operator, and judged again when policy
//! or the model changes.
//!
//! A connection is registered before its verdict is asked for, so that no change misses it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use serde::Serialize;
use tokio::sync::{Notify, oneshot};

use super::{ConnectionContext, ConnectionDirection, ConnectionEnd, Path};
use crate::shard::pod::ServedPod;
use crate::verdict::{Requirement, Termination};
use ambit_model::ObjectName;

/// A live connection that the proxy carries.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ConnectionInfo {
    /// The shard that carries it.
    pub shard: usize,
    /// Its number, unique within the shard.
    pub id: u64,
    /// The pod that the agent serves.
    pub pod: ObjectName,
    /// Its direction, as the pod sees it.
    pub direction: ConnectionDirection,
    /// How it travels; `None` if it was refused before that was decided.
    pub path: Option<Path>,
    /// Who opened it.
    pub source: ConnectionEnd,
    /// Who it is for.
    pub destination: ConnectionEnd,
    /// Method and path of a request, which is listed beside its connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Bytes from source to destination.
    pub bytes_sent: u64,
    /// Bytes from destination to source.
    pub bytes_received: u64,
    /// Seconds since it was registered.
    pub age_seconds: u64,
}

/// Numbers a shard's connections.
#[derive(Debug, Default)]
pub(crate) struct ConnectionNumbers(Cell<u64>);

/// One pod's live connections, and requests that are judged one by one, on one shard.
#[derive(Debug)]
pub(crate) struct Registry<P = ServedPod> {
    numbers: Rc<ConnectionNumbers>,
    live: RefCell<BTreeMap<u64, Entry<P>>>,
    /// Notified of every connection that leaves.
    left: Notify,
}

#[derive(Debug)]
struct Entry<P> {
    context: Rc<ConnectionContext<P>>,
    requirement: Requirement,
    registered: Instant,
    /// Taken when the connection is told to end.
    end: Option<oneshot::Sender<Termination>>,
}

/// An entry of the registry, removed on drop.
#[derive(Debug)]
pub(crate) struct Registration<P = ServedPod> {
    registry: Rc<Registry<P>>,
    number: u64,
    end: oneshot::Receiver<Termination>,
}

impl<P> Registry<P> {
    pub(crate) fn new(numbers: Rc<ConnectionNumbers>) -> Rc<Self> {
        Rc::new(Self {
            numbers,
            live: RefCell::default(),
            left: Notify::new(),
        })
    }

    /// Registers a connection, or a request on it, that goes on while `requirement` holds.
    pub(crate) fn register(
        self: &Rc<Self>,
        context: Rc<ConnectionContext<P>>,
        requirement: Requirement,
    ) -> Registration<P> {
        let number = self.numbers.next();
        let (sender, end) = oneshot::channel();
        let entry = Entry {
            context,
            requirement,
            registered: Instant::now(),
            end: Some(sender),
        };
        self.live.borrow_mut().insert(number, entry);
        Registration {
            registry: Rc::clone(self),
            number,
            end,
        }
    }

    /// Replaces what has to hold for a connection to go on.
    pub(crate) fn require(&self, number: u64, requirement: Requirement) {
        if let Some(entry) = self.live.borrow_mut().get_mut(&number) {
            entry.requirement = requirement;
        }
    }

    /// Returns the number of connections, requests not counted.
    pub(crate) fn len(&self) -> usize {
        let live = self.live.borrow();
        live.values().filter(|entry| !entry.is_request()).count()
    }

    /// Resolves once only connections to authorizers are left, which stay open until they are used.
    pub(crate) async fn emptied(&self) {
        while self.live.borrow().values().any(Entry::ends_by_itself) {
            self.left.notified().await;
        }
    }

    /// Resolves once the pod has no half of a connection that another pod's task carries.
    pub(crate) async fn handed_back(&self) {
        while self.live.borrow().values().any(Entry::is_handed_over) {
            self.left.notified().await;
        }
    }

    /// Ends every connection whose requirement `judge` finds broken. Returns how many it ended.
    pub(crate) fn judge(&self, judge: impl Fn(&Requirement) -> Result<(), Termination>) -> usize {
        let mut ended = 0;
        for entry in self.live.borrow_mut().values_mut() {
            if let Err(termination) = judge(&entry.requirement)
                && entry.terminate(termination)
            {
                ended += 1;
            }
        }
        ended
    }

    /// Lists the connections for the operator.
    pub(crate) fn list(&self, shard: usize, pod: &ObjectName) -> Vec<ConnectionInfo> {
        let describe = |(&id, entry): (&u64, &Entry<P>)| ConnectionInfo {
            shard,
            id,
            pod: pod.clone(),
            direction: entry.context.direction,
            path: entry.context.path,
            source: entry.context.source.clone(),
            destination: entry.context.destination.clone(),
            request: entry.request(),
            bytes_sent: entry.context.meter.sent(),
            bytes_received: entry.context.meter.received(),
            age_seconds: entry.registered.elapsed().as_secs(),
        };
        self.live.borrow().iter().map(describe).collect()
    }
}

impl<P> Entry<P> {
    fn is_request(&self) -> bool {
        matches!(self.requirement, Requirement::Request { .. })
    }

    fn is_handed_over(&self) -> bool {
        let ConnectionContext {
            direction, path, ..
        } = &*self.context;
        (*direction, *path) == (ConnectionDirection::Inbound, Some(Path::Handoff))
    }

    fn ends_by_itself(&self) -> bool {
        match self.context.direction {
            ConnectionDirection::Outbound | ConnectionDirection::Inbound => true,
            ConnectionDirection::Authorizer => false,
        }
    }

    fn request(&self) -> Option<String> {
        match &self.requirement {
            Requirement::Request { request, .. } => {
                Some(format!("{} {}", request.method, request.path))
            }
            Requirement::Policy { .. } | Requirement::Endpoint { .. } | Requirement::Outside(_) => {
                None
            }
        }
    }

    /// Tells the connection to end. Returns false if it has been told before.
    fn terminate(&mut self, termination: Termination) -> bool {
        self.end
            .take()
            .is_some_and(|end| end.send(termination).is_ok())
    }
}

impl<P> Registration<P> {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Resolves when the connection has to end.
    pub(crate) async fn terminated(&mut self) -> Termination {
        poll_fn(|context| self.poll_terminated(context)).await
    }

    /// Is ready once, when the connection has to end.
    pub(crate) fn poll_terminated(&mut self, context: &mut Context<'_>) -> Poll<Termination> {
        match Pin::new(&mut self.end).poll(context) {
            Poll::Ready(Ok(termination)) => Poll::Ready(termination),
            // The entry, and with it the sender, lives as long as this registration.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl<P> Drop for Registration<P> {
    fn drop(&mut self) {
        let left = self.registry.live.borrow_mut().remove(&self.number);
        self.registry.left.notify_waiters();
        // Only now, as its context may be the last to hold the pod.
        drop(left);
    }
}

impl ConnectionNumbers {
    fn next(&self) -> u64 {
        let number = self.0.get() + 1;
        self.0.set(number);
        number
    }
}

#[cfg(test)]
mod tests;
