//! Delivery of a connection to the pod's own application: judged by the kernel, and where the
//! kernel asks, or the mesh changed meanwhile, by the evaluator.

use std::net::SocketAddr;
use std::sync::Arc;

use super::pod::ServedPod;
use super::refusal::Refusal;
use super::verdict::{Content, Judge, is_policy};
use crate::datapath::{AuthorizedStream, Caller, Delivery, DialError, UnjudgedStream};
use crate::policy::{Approvals, Attributes, ConnectionVerdict, Denial, Layer, Permit};

/// Views of the mesh that a connection's verdict may be overtaken by before it is refused.
const OVERTAKEN_ATTEMPTS: usize = 3;

/// A connection to the pod's application.
#[derive(Debug)]
pub(crate) enum Delivered {
    /// Policy allows it.
    Allowed(AuthorizedStream, Content),
    /// Policy depends on each of its requests.
    Requests(UnjudgedStream),
}

/// What policy knows of a delivery.
pub(crate) fn attributes(caller: &Caller, to: SocketAddr) -> Attributes {
    Attributes {
        identity: caller.identity.clone(),
        source: caller.address.ip(),
        destination: to,
    }
}

/// Connects a caller to the pod's application at `to`, as far as the pod's policies allow it. The
/// connection has to be registered by now, so that a later change finds it.
///
/// # Errors
/// [`Refusal`]: denied, or not connected. No byte has passed then.
pub(crate) async fn deliver(
    pod: &ServedPod,
    caller: &Caller,
    to: SocketAddr,
) -> Result<Delivered, Refusal> {
    let connection = attributes(caller, to);
    for _ in 0..OVERTAKEN_ATTEMPTS {
        let asked_in = pod.view();
        let delivery = pod.datapath.deliver(caller, to).await;
        let view = pod.view();
        let judge = Judge::new(&view, &pod.workload);
        match delivery {
            Ok(Delivery::Allowed(stream)) if Arc::ptr_eq(&asked_in, &view) => {
                return Ok(Delivered::Allowed(stream, Content::Anything));
            }
            Ok(Delivery::Allowed(stream)) => match judge.connection(&connection) {
                ConnectionVerdict::Allow(_) => {
                    return Ok(Delivered::Allowed(stream, Content::Anything));
                }
                ConnectionVerdict::Deny(denial) => return Err(in_proxy(denial)),
                ConnectionVerdict::Ask => {}
            },
            Ok(Delivery::Ask(stream)) => return ask(pod, &judge, &connection, stream),
            Err(DialError::Denied { reason, .. }) if is_policy(reason) => {
                let denial = judge.explain(&connection, reason);
                return Err(Refusal::Denied(Layer::Kernel, denial));
            }
            Err(error) => return Err(Refusal::Dial(error)),
        }
    }
    Err(Refusal::Dial(DialError::Stale))
}

/// Judges a connection that is not HTTP.
///
/// # Errors
/// [`Refusal::Denied`].
pub(crate) fn judge_opaque(
    pod: &ServedPod,
    connection: &Attributes,
    approvals: &Approvals,
) -> Result<Permit, Refusal> {
    let view = pod.view();
    let judge = Judge::new(&view, &pod.workload);
    let permit = judge.opaque(connection, approvals).map_err(in_proxy);
    note(pod, &judge, connection);
    permit
}

/// Has noted what policies want noted of a connection that is not HTTP.
fn note(pod: &ServedPod, judge: &Judge<'_>, connection: &Attributes) {
    let Ok(policies) = judge.policies() else {
        return;
    };
    for note in policies.notes_on_opaque(connection) {
        pod.stats.noted(note.as_str());
        tracing::info!(
            target: "ambit::audit", note = note.as_str(), policy = %note.decider(),
            pod = %pod.workload.name, source = %connection.source,
            identity = connection.identity.as_ref().map(tracing::field::display),
            destination = %connection.destination, "connection"
        );
    }
}

fn ask(
    pod: &ServedPod,
    judge: &Judge<'_>,
    connection: &Attributes,
    stream: UnjudgedStream,
) -> Result<Delivered, Refusal> {
    let policies = judge.policies().map_err(in_proxy)?;
    match policies.judge_connection(connection) {
        ConnectionVerdict::Allow(permit) => Ok(Delivered::Allowed(
            stream.authorize(permit),
            Content::Anything,
        )),
        ConnectionVerdict::Deny(denial) => Err(in_proxy(denial)),
        ConnectionVerdict::Ask if policies.carries_http(connection.destination.port()) => {
            Ok(Delivered::Requests(stream))
        }
        ConnectionVerdict::Ask => {
            let approvals = Approvals::default();
            let permit = judge_opaque(pod, connection, &approvals)?;
            let content = Content::Opaque(approvals);
            Ok(Delivered::Allowed(stream.authorize(permit), content))
        }
    }
}

fn in_proxy(denial: Denial) -> Refusal {
    Refusal::Denied(Layer::Proxy, denial)
}
