//! The life of an inbound connection: registered, judged, delivered, carried, accounted for.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use tokio::net::TcpStream;

use super::connections::Registration;
use super::delivery::{attributes, deliver};
use super::pod::ServedPod;
use super::refusal::Refusal;
use super::relay::Meter;
use super::report::{Account, Ending};
use super::subject::{Direction, Party, Path, Subject};
use super::verdict::Basis;
use crate::datapath::Caller;
use crate::policy::Decider;

/// A connection that a caller opened to the pod's application, from its registration on.
#[derive(Debug)]
pub(crate) struct InboundCall {
    pod: Rc<ServedPod>,
    caller: Caller,
    to: SocketAddr,
    subject: Rc<Subject>,
    meter: Rc<Meter>,
    since: Instant,
    registration: Registration,
    permitted_by: Option<Decider>,
}

impl InboundCall {
    pub(crate) fn register(pod: Rc<ServedPod>, path: Path, caller: Caller, to: SocketAddr) -> Self {
        let subject = Rc::new(Subject {
            direction: Direction::Inbound,
            path: Some(path),
            source: source(&pod, &caller),
            destination: pod.party(to),
        });
        let meter = Rc::new(Meter::default());
        let basis = Basis::Policy(attributes(&caller, to));
        let registration = pod
            .registry
            .register(Rc::clone(&subject), basis, Rc::clone(&meter));
        Self {
            pod,
            caller,
            to,
            subject,
            meter,
            since: Instant::now(),
            registration,
            permitted_by: None,
        }
    }

    /// Connects to the application, if policy allows it.
    ///
    /// # Errors
    /// [`Refusal`]; not a byte has passed.
    pub(crate) async fn deliver(&mut self) -> Result<TcpStream, Refusal> {
        let authorized = tokio::select! {
            delivered = deliver(&self.pod, &self.caller, self.to) => delivered?,
            termination = self.registration.terminated() => return Err(termination.into()),
        };
        self.permitted_by = authorized.decider().cloned();
        Ok(authorized.into_stream())
    }

    /// Carries the connection to its end; `relay` gets the meter to count on.
    pub(crate) async fn carry<T>(mut self, relay: impl AsyncFnOnce(&Meter) -> T) {
        let meter = Rc::clone(&self.meter);
        let ending = tokio::select! {
            _ = relay(&meter) => Ending::Finished,
            termination = self.registration.terminated() => Ending::Terminated(termination),
        };
        self.close(&ending);
    }

    /// Accounts for a connection that is not served.
    pub(crate) fn refuse(self, refusal: Refusal) {
        self.close(&Ending::Refused(refusal));
    }

    fn close(self, ending: &Ending) {
        let account = Account {
            subject: &self.subject,
            id: Some(self.registration.id()),
            since: self.since,
            meter: &self.meter,
            permitted_by: self.permitted_by.as_ref(),
        };
        account.close(ending, &self.pod.stats);
    }
}

/// The caller as the log shows it: its workload is the pod that the model has at its address, where
/// that pod's identity is the one that the caller proved.
fn source(pod: &ServedPod, caller: &Caller) -> Party {
    let view = pod.view();
    let workload = view
        .snapshot
        .by_address(caller.address.ip())
        .filter(|found| {
            caller
                .identity
                .as_ref()
                .is_none_or(|own| *own == found.identity)
        })
        .map(|found| found.name.clone());
    Party {
        workload,
        identity: caller.identity.clone(),
        address: caller.address,
    }
}
