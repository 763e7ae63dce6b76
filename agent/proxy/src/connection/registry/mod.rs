//! The registry of a pod's live connections: listed for the operator, and judged again when policy
//! or the model changes.
//!
//! A connection is registered before it asks for its verdict, so that no change passes it by.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use serde::Serialize;
use tokio::sync::{Notify, oneshot};

use crate::connection::{ConnectionDirection, Subject};
use crate::verdict::{Requirement, Termination};
use ambit_model::ObjectName;
use ambit_relay::Meter;

/// A live connection that the proxy carries.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ConnectionInfo {
    /// The shard that carries it.
    pub shard: usize,
    /// Its number, unique within the shard.
    pub id: u64,
    /// The pod that the agent serves.
    pub pod: ObjectName,
    /// What it is about.
    #[serde(flatten)]
    pub subject: Subject,
    /// A request on a connection, which is listed beside it: method and path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Bytes from source to destination.
    pub bytes_sent: u64,
    /// Bytes from destination to source.
    pub bytes_received: u64,
    /// Seconds since it was accepted.
    pub age_seconds: u64,
}

/// Numbers a shard's connections.
#[derive(Debug, Default)]
pub(crate) struct ConnectionIds(Cell<u64>);

/// One pod's live connections on one shard.
#[derive(Debug)]
pub(crate) struct Registry {
    ids: Rc<ConnectionIds>,
    live: RefCell<BTreeMap<u64, Entry>>,
    /// Told of every connection that leaves; only [`Registry::emptied`] waits for it.
    left: Notify,
}

#[derive(Debug)]
struct Entry {
    subject: Rc<Subject>,
    requirement: Requirement,
    meter: Rc<Meter>,
    since: Instant,
    /// Taken when the connection is told to end.
    end: Option<oneshot::Sender<Termination>>,
}

/// A connection's place in the registry, given up when dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    registry: Rc<Registry>,
    id: u64,
    end: oneshot::Receiver<Termination>,
}

/// Where in the registry a connection is, for as long as it is there.
#[derive(Debug)]
pub(crate) struct Place {
    registry: Rc<Registry>,
    id: u64,
}

impl Registry {
    pub(crate) fn new(ids: Rc<ConnectionIds>) -> Rc<Self> {
        Rc::new(Self {
            ids,
            live: RefCell::default(),
            left: Notify::new(),
        })
    }

    /// Registers a connection that goes on for as long as `requirement` holds.
    pub(crate) fn register(
        self: &Rc<Self>,
        subject: Rc<Subject>,
        requirement: Requirement,
        meter: Rc<Meter>,
    ) -> Registration {
        let id = self.ids.next();
        let (sender, end) = oneshot::channel();
        let entry = Entry {
            subject,
            requirement,
            meter,
            since: Instant::now(),
            end: Some(sender),
        };
        self.live.borrow_mut().insert(id, entry);
        Registration {
            registry: Rc::clone(self),
            id,
            end,
        }
    }

    /// How many connections there are.
    pub(crate) fn len(&self) -> usize {
        let live = self.live.borrow();
        live.values().filter(|entry| !entry.is_request()).count()
    }

    /// Resolves once there are none but those to authorizers, which wait to be used.
    pub(crate) async fn emptied(&self) {
        while self.live.borrow().values().any(Entry::ends_of_itself) {
            self.left.notified().await;
        }
    }

    /// Ends every connection whose requirement `judge` finds gone; tells how many.
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

    /// Describes the connections.
    pub(crate) fn list(&self, shard: usize, pod: &ObjectName) -> Vec<ConnectionInfo> {
        let describe = |(&id, entry): (&u64, &Entry)| ConnectionInfo {
            shard,
            id,
            pod: pod.clone(),
            subject: Subject::clone(&entry.subject),
            request: entry.request(),
            bytes_sent: entry.meter.sent(),
            bytes_received: entry.meter.received(),
            age_seconds: entry.since.elapsed().as_secs(),
        };
        self.live.borrow().iter().map(describe).collect()
    }
}

impl Entry {
    fn is_request(&self) -> bool {
        matches!(self.requirement, Requirement::Request { .. })
    }

    fn ends_of_itself(&self) -> bool {
        match self.subject.direction {
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

    /// Tells the connection to end; false where it has been told before.
    fn terminate(&mut self, termination: Termination) -> bool {
        self.end
            .take()
            .is_some_and(|end| end.send(termination).is_ok())
    }
}

impl Registration {
    /// The connection's number.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The place itself, to change what has to hold for the connection to go on.
    pub(crate) fn place(&self) -> Place {
        Place {
            registry: Rc::clone(&self.registry),
            id: self.id,
        }
    }

    /// Resolves when the connection has to end.
    pub(crate) async fn terminated(&mut self) -> Termination {
        poll_fn(|context| self.poll_terminated(context)).await
    }

    /// Tells when the connection has to end; once.
    pub(crate) fn poll_terminated(&mut self, context: &mut Context<'_>) -> Poll<Termination> {
        match Pin::new(&mut self.end).poll(context) {
            Poll::Ready(Ok(termination)) => Poll::Ready(termination),
            // The entry, and with it the sender, lives as long as this registration.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Place {
    /// Replaces what has to hold for the connection to go on.
    pub(crate) fn require(&self, requirement: Requirement) {
        if let Some(entry) = self.registry.live.borrow_mut().get_mut(&self.id) {
            entry.requirement = requirement;
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.live.borrow_mut().remove(&self.id);
        self.registry.left.notify_one();
    }
}

impl ConnectionIds {
    fn next(&self) -> u64 {
        let id = self.0.get() + 1;
        self.0.set(id);
        id
    }
}

#[cfg(test)]
mod tests;
