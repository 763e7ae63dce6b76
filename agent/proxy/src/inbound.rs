//! The life of a connection to the pod's application: registered, judged, delivered, carried,
//! accounted for.

use std::future::pending;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use crate::carrier::{CallerStream, Carrier};
use crate::connection::refusal::Refusal;
use crate::connection::registry::Registration;
use crate::connection::report::{Account, Ending, Permission};
use crate::connection::{ConnectionDirection, Party, Path, Subject};
use crate::delivery::{Delivered, deliver};
use crate::ends::Ends;
use crate::limits::places::{ConnectionPlaces, PlaceSource};
use crate::requests::RequestGate;
use crate::shard::pod::ServedPod;
use crate::verdict::{Content, Requirement, Termination};
use ambit_admission::{Seat, SeatHandle};
use ambit_datapath::DeliveryCaller;
use ambit_policy::Attributes;
use ambit_relay::Meter;

/// A connection that a caller opened to the pod's application, from its registration on.
#[derive(Debug)]
pub(crate) struct InboundCall {
    pod: Rc<ServedPod>,
    caller: DeliveryCaller,
    to: SocketAddr,
    subject: Rc<Subject>,
    meter: Rc<Meter>,
    since: Instant,
    registration: Registration,
    permission: Option<Permission>,
    /// Its place among the pod's connections. None where the pod calls itself.
    seat: Option<Seat<PlaceSource>>,
    places: ConnectionPlaces,
}

impl InboundCall {
    /// Registers a connection that goes this way.
    pub(crate) fn register(
        pod: Rc<ServedPod>,
        (direction, path): (ConnectionDirection, Path),
        caller: DeliveryCaller,
        to: SocketAddr,
    ) -> Self {
        let subject = Rc::new(Subject {
            direction,
            path: Some(path),
            source: source(&pod, &caller),
            destination: pod.party(to),
        });
        let meter = Rc::new(Meter::default());
        let requirement = Requirement::Policy {
            connection: Ends {
                caller: &caller,
                to,
            }
            .attributes(),
            content: Content::Nothing,
        };
        let registration =
            pod.registry
                .register(Rc::clone(&subject), requirement, Rc::clone(&meter));
        Self {
            pod,
            caller,
            to,
            subject,
            meter,
            since: Instant::now(),
            registration,
            permission: None,
            seat: None,
            places: ConnectionPlaces::default(),
        }
    }

    /// Has the connection end when its place is given to another, which happens only while policy
    /// lets nothing pass on it. While something passes, it uses the place of its tunnel, too.
    pub(crate) fn sit(&mut self, seat: Seat<PlaceSource>, tunnel: Option<SeatHandle<PlaceSource>>) {
        let own = Some(seat.handle());
        self.places = ConnectionPlaces { own, tunnel };
        self.seat = Some(seat);
    }

    /// Connects to the application, as far as policy allows it.
    ///
    /// # Errors
    /// [`Refusal`]; not a byte has passed.
    pub(crate) async fn deliver(&mut self) -> Result<Delivered, Refusal> {
        let delivered = tokio::select! {
            delivered = deliver(&self.pod, &self.caller, self.to) => delivered?,
            termination = self.registration.terminated() => return Err(termination.into()),
            () = displaced(&mut self.seat) => return Err(Termination::Displaced.into()),
        };
        let content = match &delivered {
            Delivered::Allowed(stream, content) => {
                self.permission = Some(Permission::of(stream));
                content.clone()
            }
            Delivered::Requests(_) => Content::Requests,
        };
        self.registration.place().require(Requirement::Policy {
            connection: self.connection(),
            content,
        });
        Ok(delivered)
    }

    /// Carries the connection to its end.
    pub(crate) async fn carry(mut self, delivered: Delivered, client: CallerStream) {
        let carrier = Carrier {
            gate: self.gate(),
            place: self.registration.place(),
            meter: Rc::clone(&self.meter),
        };
        // Where policy depends on requests, each of them is a use.
        let in_use = match &delivered {
            Delivered::Allowed(..) => Some(self.places.occupy()),
            Delivered::Requests(_) => None,
        };
        let ending = tokio::select! {
            carried = carrier.carry(delivered, client) => match carried {
                Ok(None) => Ending::Finished,
                Ok(Some(permission)) => {
                    self.permission = Some(permission);
                    Ending::Finished
                }
                Err(refusal) => Ending::Refused(refusal),
            },
            termination = self.registration.terminated() => Ending::Terminated(termination),
            () = displaced(&mut self.seat) => Ending::Terminated(Termination::Displaced),
        };
        drop(in_use);
        self.close(&ending);
    }

    /// Accounts for a connection that is not served.
    pub(crate) fn refuse(self, refusal: Refusal) {
        self.close(&Ending::Refused(refusal));
    }

    /// What the connection is about.
    pub(crate) fn subject(&self) -> &Rc<Subject> {
        &self.subject
    }

    fn connection(&self) -> Attributes {
        let ends = Ends {
            caller: &self.caller,
            to: self.to,
        };
        ends.attributes()
    }

    fn gate(&self) -> RequestGate {
        RequestGate {
            pod: Rc::clone(&self.pod),
            id: self.registration.id(),
            caller: self.caller.clone(),
            to: self.to,
            subject: Rc::clone(&self.subject),
            meter: Rc::clone(&self.meter),
            places: self.places.clone(),
        }
    }

    fn close(self, ending: &Ending) {
        let account = Account {
            subject: &self.subject,
            id: Some(self.registration.id()),
            since: self.since,
            meter: &self.meter,
            permission: self.permission.as_ref(),
        };
        account.close(ending, &self.pod);
    }
}

async fn displaced(seat: &mut Option<Seat<PlaceSource>>) {
    match seat {
        Some(seat) => seat.displaced().await,
        None => pending().await,
    }
}

/// The caller as the log shows it: its workload is the pod that the model has at its address, where
/// that pod's identity is the one that the caller proved.
fn source(pod: &ServedPod, caller: &DeliveryCaller) -> Party {
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
        address: caller.address.0,
    }
}
