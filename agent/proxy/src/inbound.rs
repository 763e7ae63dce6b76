//! The way of a connection to the pod's application: accepted, registered, judged, delivered, carried,
//! reported.
//!
//! A tunnel's streams are accepted in [`crate::hbone::server`], plaintext that the kernel leaves to
//! userspace (its verdict is ASK) in [`serve_plaintext`], and what a pod sends to itself in
//! [`crate::outbound`]. From their registration on all three go the same way.

use std::cell::RefCell;
use std::future::pending;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::io::DuplexStream;
use tokio::net::TcpStream;

use crate::authorizers;
use crate::connection::events::EventSubject;
use crate::connection::refusal::Refusal;
use crate::connection::registry::Registration;
use crate::connection::report::{Ending, Permission};
use crate::connection::{ConnectionContext, ConnectionDirection, Path, ToApplication, canonical};
use crate::limits::places::{ConnectionPlaces, PlaceKind, PlaceSource};
use crate::limits::{Resource, Slot};
use crate::requests::RequestGate;
use crate::shard::accept::ResetOnDrop;
use crate::shard::pod::ServedPod;
use crate::verdict::{Content, Judge, Requirement, Termination, is_policy};
use ambit_admission::{Seat, SeatHandle};
use ambit_datapath::{
    AuthorizedStream, Delivery, DeliveryCaller, DialError, RequestStream, UnjudgedStream,
};
use ambit_http::{Downstream, HttpLimits, NotHttp, ServeOutcome, TunnelIo, serve};
use ambit_model::{ApplicationAddress, CallerAddress};
use ambit_policy::{Approvals, ConnectionVerdict, Layer, Permit};
use ambit_relay::{Ahead, Meter, Party, RelayEnd, relay, relay_tcp};
use ambit_tunnel::Stream;

/// How often a verdict may be overtaken by a newer view of the mesh before the connection is refused.
const OVERTAKEN_ATTEMPTS: usize = 3;

/// A connection to the pod's application, from its registration on.
#[derive(Debug)]
pub(crate) struct InboundConnection {
    context: Rc<ConnectionContext>,
    registration: Registration,
    /// Set once the connection as a whole is allowed.
    permission: Option<Permission>,
    /// Its place among the pod's connections. `None` if the pod calls itself.
    seat: Option<Seat<PlaceSource>>,
    places: ConnectionPlaces,
}

/// The caller's end of a connection.
pub(crate) enum CallerStream {
    /// A plaintext connection, the pod's own, or one that another pod of the node has handed over.
    Tcp(TcpStream),
    /// A stream of a tunnel.
    Tunnel(Stream),
    /// The agent itself, which consults an external authorizer.
    Agent(DuplexStream),
}

/// A connection to the pod's application, with the verdict on it.
#[derive(Debug)]
pub(crate) enum JudgedDelivery {
    /// Policy allows the connection.
    Allowed(AuthorizedStream, Content),
    /// Policy depends on each request.
    PerRequest(UnjudgedStream),
}

/// The evaluator's permit for a connection that is not HTTP.
struct OpaquePermit {
    permit: Permit,
    /// The authorizers that were consulted and did not refuse it.
    approvals: Approvals,
}

/// Serves a connection accepted on a plaintext listener, to its end. Its caller has no identity.
pub(crate) async fn serve_plaintext(pod: Rc<ServedPod>, stream: TcpStream, peer: SocketAddr) {
    let local = stream.local_addr();
    let client = ResetOnDrop::new(stream);
    let to = match local {
        Ok(local) => canonical(local),
        Err(error) => {
            tracing::debug!(%error, pod = %pod.workload.name, "a plaintext connection was lost");
            return;
        }
    };
    let mut connection = InboundConnection::register(ToApplication {
        pod,
        direction: ConnectionDirection::Inbound,
        path: Path::Plaintext,
        caller: DeliveryCaller {
            identity: None,
            address: CallerAddress(canonical(peer)),
        },
        to: ApplicationAddress(to),
        started: Instant::now(),
    });
    let (_descriptor, seat) = match admit_plaintext(&connection.context) {
        Ok(admitted) => admitted,
        Err(refusal) => return connection.refuse(refusal),
    };
    connection.sit(seat, None);
    match connection.deliver().await {
        Ok(delivery) => {
            let caller = CallerStream::Tcp(client.into_inner());
            connection.carry(delivery, caller).await;
        }
        Err(refusal) => connection.refuse(refusal),
    }
}

/// Admits a plaintext connection as far as the kernel's second verdict.
fn admit_plaintext(context: &ConnectionContext) -> Result<(Slot, Seat<PlaceSource>), Refusal> {
    let (pod, to) = (&context.pod, context.destination.address);
    if !pod.has_address(to.ip()) || pod.datapath.owns_port(to.port()) {
        return Err(Refusal::ForeignAddress(to));
    }
    let view = pod.view();
    match Judge::new(&view, &pod.workload).connection(&context.attributes()) {
        ConnectionVerdict::Deny(denial) => return Err(Refusal::by_evaluator(denial)),
        ConnectionVerdict::Allow(_) | ConnectionVerdict::Ask => {}
    }
    let descriptor = pod.caps.take(Resource::Descriptors)?;
    let source = pod.unverified_source(context.source.address.ip());
    let seat = pod.caps.places.take(PlaceKind::Plaintext, source)?;
    Ok((descriptor, seat))
}

impl InboundConnection {
    pub(crate) fn register(accepted: ToApplication) -> Self {
        Self::register_metered(accepted, Meter::default())
    }

    /// The same, with the meter of the connection's other half, which counts the same bytes.
    pub(crate) fn register_metered(accepted: ToApplication, meter: Meter) -> Self {
        let context = Rc::new(ConnectionContext {
            meter,
            ..ConnectionContext::from(accepted)
        });
        let registration = context.register(Requirement::Policy {
            connection: context.attributes(),
            content: Content::Nothing,
        });
        Self {
            context,
            registration,
            permission: None,
            seat: None,
            places: ConnectionPlaces::default(),
        }
    }

    /// Gives the connection its place. The connection ends when the place is given to another, which
    /// happens only while policy lets nothing pass on it. While something passes, the connection also
    /// occupies the place of its tunnel.
    pub(crate) fn sit(&mut self, seat: Seat<PlaceSource>, tunnel: Option<SeatHandle<PlaceSource>>) {
        let own = Some(seat.handle());
        self.places = ConnectionPlaces { own, tunnel };
        self.seat = Some(seat);
    }

    /// Connects to the application if policy allows it.
    ///
    /// # Errors
    /// [`Refusal`]; no byte has passed.
    pub(crate) async fn deliver(&mut self) -> Result<JudgedDelivery, Refusal> {
        let delivery = tokio::select! {
            delivery = deliver(&self.context) => delivery?,
            termination = self.registration.terminated() => return Err(termination.into()),
            () = displaced(&mut self.seat) => return Err(Termination::Displaced.into()),
        };
        let content = match &delivery {
            JudgedDelivery::Allowed(application, content) => {
                self.permission = Some(Permission::of(application));
                content.clone()
            }
            JudgedDelivery::PerRequest(_) => Content::Requests,
        };
        self.context.require(Requirement::Policy {
            connection: self.context.attributes(),
            content,
        });
        Ok(delivery)
    }

    /// Carries the connection to its end, and reports it.
    pub(crate) async fn carry(self, delivery: JudgedDelivery, caller: CallerStream) {
        self.carry_unless(delivery, caller, pending()).await;
    }

    /// The same, unless `ended` resolves, which ends it. Returns how it ended.
    pub(crate) async fn carry_unless(
        mut self,
        delivery: JudgedDelivery,
        caller: CallerStream,
        ended: impl Future<Output = Termination>,
    ) -> Ending {
        // If policy depends on requests, the places are occupied only while one is under way.
        let occupied = match &delivery {
            JudgedDelivery::Allowed(..) => Some(self.places.occupy()),
            JudgedDelivery::PerRequest(_) => None,
        };
        let ending = tokio::select! {
            carried = carry(&self.context, &self.places, delivery, caller) => match carried {
                Ok(Carried { permission, end }) => {
                    if permission.is_some() {
                        self.permission = permission;
                    }
                    Ending::Finished(end)
                }
                Err(refusal) => Ending::Refused(refusal),
            },
            termination = self.registration.terminated() => Ending::Terminated(termination),
            termination = ended => Ending::Terminated(termination),
            () = displaced(&mut self.seat) => Ending::Terminated(Termination::Displaced),
        };
        drop(occupied);
        self.context.close(&ending, self.permission.as_ref());
        ending
    }

    /// Reports a connection that is not served.
    pub(crate) fn refuse(self, refusal: Refusal) {
        self.context
            .close(&Ending::Refused(refusal), self.permission.as_ref());
    }

    pub(crate) fn context(&self) -> &Rc<ConnectionContext> {
        &self.context
    }
}

async fn displaced(seat: &mut Option<Seat<PlaceSource>>) {
    match seat {
        Some(seat) => seat.displaced().await,
        None => pending().await,
    }
}

/// Connects the caller to the pod's application as far as the pod's policies allow it. The kernel judges;
/// if it asks, or if the mesh changed meanwhile, the evaluator does. The connection is registered by now,
/// so that a later change finds it.
async fn deliver(context: &ConnectionContext) -> Result<JudgedDelivery, Refusal> {
    let pod = &context.pod;
    let (caller, to) = (
        context.caller(),
        ApplicationAddress(context.destination.address),
    );
    let attributes = context.attributes();
    for _ in 0..OVERTAKEN_ATTEMPTS {
        let asked_in = pod.view();
        let delivery = pod.datapath.deliver(&caller, to).await;
        let view = pod.view();
        let judge = Judge::new(&view, &pod.workload);
        match delivery {
            Ok(Delivery::Allowed(stream)) if Arc::ptr_eq(&asked_in, &view) => {
                return Ok(JudgedDelivery::Allowed(stream, Content::Anything));
            }
            Ok(Delivery::Allowed(stream)) => match judge.connection(&attributes) {
                ConnectionVerdict::Allow(_) => {
                    return Ok(JudgedDelivery::Allowed(stream, Content::Anything));
                }
                ConnectionVerdict::Deny(denial) => return Err(Refusal::by_evaluator(denial)),
                ConnectionVerdict::Ask => {}
            },
            Ok(Delivery::Ask(stream)) => return judge_in_userspace(context, stream).await,
            Err(DialError::Denied { reason, .. }) if is_policy(reason) => {
                let denial = judge.explain(&attributes, reason);
                return Err(Refusal::Denied(Layer::Kernel, denial));
            }
            Err(error) => return Err(Refusal::Dial(error)),
        }
    }
    Err(Refusal::Dial(DialError::Stale))
}

/// Connects to the application once more, for requests of the same client that each have their own permit.
/// `None` if policy or the application refuses, or the pod has no descriptor left.
pub(crate) async fn deliver_again(context: &ConnectionContext) -> Option<(RequestStream, Slot)> {
    let refused = |refusal: Refusal| {
        let pod = &context.pod.workload.name;
        tracing::debug!(%refusal, %pod, "no further connection to an application");
    };
    let descriptor = context.pod.caps.take(Resource::Descriptors);
    let descriptor = descriptor.map_err(|over| refused(over.into())).ok()?;
    let stream = match deliver(context).await.map_err(refused).ok()? {
        JudgedDelivery::PerRequest(stream) => stream.per_request(),
        JudgedDelivery::Allowed(stream, _) => stream.per_request(),
    };
    Some((stream, descriptor))
}

async fn judge_in_userspace(
    context: &ConnectionContext,
    stream: UnjudgedStream,
) -> Result<JudgedDelivery, Refusal> {
    let (verdict, carries_http) = {
        let view = context.pod.view();
        let judge = Judge::new(&view, &context.pod.workload);
        let policies = judge.policies().map_err(Refusal::by_evaluator)?;
        let verdict = policies.judge_connection(&context.attributes());
        let port = context.destination.address.port();
        (verdict, policies.carries_http(port))
    };
    match (verdict, carries_http) {
        (ConnectionVerdict::Allow(permit), _) => Ok(JudgedDelivery::Allowed(
            stream.authorize(permit),
            Content::Anything,
        )),
        (ConnectionVerdict::Deny(denial), _) => Err(Refusal::by_evaluator(denial)),
        (ConnectionVerdict::Ask, true) => Ok(JudgedDelivery::PerRequest(stream)),
        (ConnectionVerdict::Ask, false) => {
            let OpaquePermit { permit, approvals } = judge_opaque(context).await?;
            let content = Content::Opaque(approvals);
            Ok(JudgedDelivery::Allowed(stream.authorize(permit), content))
        }
    }
}

/// Judges a connection that is not HTTP, after consulting the authorizers that CUSTOM policies name, and
/// notes what policies want noted.
///
/// # Errors
/// [`Refusal`] if it is denied.
async fn judge_opaque(context: &ConnectionContext) -> Result<OpaquePermit, Refusal> {
    let attributes = context.attributes();
    let approvals = authorizers::consult_on_opaque(context).await?;
    // The view of a later moment. An authorizer that only these policies name has not agreed.
    let view = context.pod.view();
    let judge = Judge::new(&view, &context.pod.workload);
    note(context, &judge);
    let permit = judge
        .opaque(&attributes, &approvals)
        .map_err(Refusal::by_evaluator)?;
    Ok(OpaquePermit { permit, approvals })
}

fn note(context: &ConnectionContext, judge: &Judge<'_>) {
    let Ok(policies) = judge.policies() else {
        return;
    };
    let attributes = context.attributes();
    for note in policies.notes_on_opaque(&attributes) {
        EventSubject::connection(context).noted(&context.pod, &note);
        tracing::info!(
            target: "ambit::audit", note = note.as_str(), policy = %note.decider(),
            pod = %context.pod.workload.name, source = %attributes.source,
            identity = attributes.identity.as_ref().map(tracing::field::display),
            destination = %attributes.destination, "connection"
        );
    }
}

/// How a connection was carried.
struct Carried {
    /// What allowed it, if that was decided only while it was carried.
    permission: Option<Permission>,
    /// `None` if it carried requests.
    end: Option<RelayEnd>,
}

/// Carries a connection to its end: as bytes if policy allows the connection, request by request if it
/// depends on them.
///
/// # Errors
/// [`Refusal`] if the connection turned out not to be HTTP, and is denied as such.
async fn carry(
    context: &Rc<ConnectionContext>,
    places: &ConnectionPlaces,
    delivery: JudgedDelivery,
    caller: CallerStream,
) -> Result<Carried, Refusal> {
    match delivery {
        JudgedDelivery::Allowed(application, _) => {
            let end = carry_bytes(context, caller, application).await;
            Ok(Carried {
                permission: None,
                end,
            })
        }
        JudgedDelivery::PerRequest(application) => {
            let gate = RequestGate {
                connection: Rc::clone(context),
                places: places.clone(),
                descriptors: RefCell::default(),
            };
            carry_any_requests(gate, caller, application).await
        }
    }
}

async fn carry_bytes(
    context: &ConnectionContext,
    caller: CallerStream,
    application: AuthorizedStream,
) -> Option<RelayEnd> {
    let application = application.into_stream();
    let (meter, ahead) = (&context.meter, Ahead::default());
    let has_closed = |party, socket: &TcpStream| context.has_closed(party, socket);
    Some(match caller {
        CallerStream::Tunnel(tunnel) => {
            let has_closed = |socket: &TcpStream| has_closed(Party::Server, socket);
            relay(application, tunnel, Party::Server, ahead, meter, has_closed).await
        }
        CallerStream::Tcp(caller) => relay_tcp(caller, application, ahead, meter, has_closed).await,
        CallerStream::Agent(agent) => {
            // On the heap, because it is rare.
            Box::pin(agent.relay(application, ahead, meter, has_closed)).await
        }
    })
}

/// On the heap: requests take many times the memory that bytes do, and most connections carry none.
fn carry_any_requests(
    gate: RequestGate,
    caller: CallerStream,
    application: UnjudgedStream,
) -> LocalBoxFuture<'static, Result<Carried, Refusal>> {
    match caller {
        CallerStream::Tcp(caller) => carry_requests(gate, caller, application).boxed_local(),
        CallerStream::Tunnel(tunnel) => {
            carry_requests(gate, TunnelIo::new(tunnel), application).boxed_local()
        }
        CallerStream::Agent(agent) => carry_requests(gate, agent, application).boxed_local(),
    }
}

async fn carry_requests<D: Downstream>(
    gate: RequestGate,
    caller: D,
    application: UnjudgedStream,
) -> Result<Carried, Refusal> {
    let (application, limits) = (application.per_request(), HttpLimits::default());
    match serve(caller, application, &gate, limits, &gate.connection.meter).await {
        ServeOutcome::Ended => Ok(Carried {
            permission: None,
            end: None,
        }),
        ServeOutcome::NotHttp(opaque) => carry_opaque(&gate, opaque).await,
    }
}

/// Carries a connection that is not HTTP to a port that is declared to carry HTTP.
async fn carry_opaque<D: Downstream>(
    gate: &RequestGate,
    opaque: NotHttp<D>,
) -> Result<Carried, Refusal> {
    let NotHttp {
        downstream,
        read,
        application,
    } = opaque;
    let context = &gate.connection;
    let OpaquePermit { permit, approvals } = judge_opaque(context).await?;
    context.require(Requirement::Policy {
        connection: context.attributes(),
        content: Content::Opaque(approvals),
    });
    let _occupied = gate.places.occupy();
    let application = application.authorize(permit);
    let permission = Permission::of(&application);
    let application = application.into_stream();
    let ahead = Ahead {
        from_client: read,
        from_server: Bytes::new(),
    };
    let has_closed = |party, socket: &TcpStream| context.has_closed(party, socket);
    let relaying = downstream.relay(application, ahead, &context.meter, has_closed);
    let end = relaying.await;
    Ok(Carried {
        permission: Some(permission),
        end: Some(end),
    })
}
