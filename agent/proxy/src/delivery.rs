//! Delivery of a connection to the pod's own application: judged by the kernel, and where the
//! kernel asks, or the mesh changed meanwhile, by the evaluator.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::connection::refusal::Refusal;
use crate::ends::Ends;
use crate::opaque::judge_opaque;
use crate::shard::pod::ServedPod;
use crate::verdict::{Content, Judge, is_policy};
use ambit_datapath::{AuthorizedStream, Delivery, DeliveryCaller, DialError, UnjudgedStream};
use ambit_model::ApplicationAddress;
use ambit_policy::{ConnectionVerdict, Layer};

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

/// Connects a caller to the pod's application at `to`, as far as the pod's policies allow it. The
/// connection has to be registered by now, so that a later change finds it.
///
/// # Errors
/// [`Refusal`]: denied, or not connected. No byte has passed then.
pub(crate) async fn deliver(
    pod: &ServedPod,
    caller: &DeliveryCaller,
    to: SocketAddr,
) -> Result<Delivered, Refusal> {
    let ends = Ends { caller, to };
    let connection = ends.attributes();
    for _ in 0..OVERTAKEN_ATTEMPTS {
        let asked_in = pod.view();
        let delivery = pod.datapath.deliver(caller, ApplicationAddress(to)).await;
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
                ConnectionVerdict::Deny(denial) => return Err(Refusal::by_evaluator(denial)),
                ConnectionVerdict::Ask => {}
            },
            Ok(Delivery::Ask(stream)) => return ask(pod, ends, stream).await,
            Err(DialError::Denied { reason, .. }) if is_policy(reason) => {
                let denial = judge.explain(&connection, reason);
                return Err(Refusal::Denied(Layer::Kernel, denial));
            }
            Err(error) => return Err(Refusal::Dial(error)),
        }
    }
    Err(Refusal::Dial(DialError::Stale))
}

async fn ask(
    pod: &ServedPod,
    ends: Ends<'_>,
    stream: UnjudgedStream,
) -> Result<Delivered, Refusal> {
    let verdict = {
        let view = pod.view();
        let judge = Judge::new(&view, &pod.workload);
        let policies = judge.policies().map_err(Refusal::by_evaluator)?;
        let verdict = policies.judge_connection(&ends.attributes());
        (verdict, policies.carries_http(ends.to.port()))
    };
    match verdict {
        (ConnectionVerdict::Allow(permit), _) => Ok(Delivered::Allowed(
            stream.authorize(permit),
            Content::Anything,
        )),
        (ConnectionVerdict::Deny(denial), _) => Err(Refusal::by_evaluator(denial)),
        (ConnectionVerdict::Ask, true) => Ok(Delivered::Requests(stream)),
        (ConnectionVerdict::Ask, false) => {
            let (permit, approvals) = judge_opaque(pod, ends).await?;
            let content = Content::Opaque(approvals);
            Ok(Delivered::Allowed(stream.authorize(permit), content))
        }
    }
}
