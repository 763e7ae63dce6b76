//! Delivery of a connection to the pod's own application: judged by the kernel, and where the
//! kernel asks, or the mesh changed meanwhile, by the evaluator.

use std::net::SocketAddr;
use std::sync::Arc;

use super::pod::ServedPod;
use super::refusal::Refusal;
use super::verdict::{Judge, is_policy};
use crate::datapath::{AuthorizedStream, Caller, Delivery, DialError};
use crate::policy::Attributes;

/// What policy knows of a delivery.
pub(crate) fn attributes(caller: &Caller, to: SocketAddr) -> Attributes {
    Attributes {
        identity: caller.identity.clone(),
        source: caller.address.ip(),
        destination: to,
    }
}

/// Connects a caller to the pod's application at `to`, if the pod's policies allow it. The
/// connection has to be registered by now, so that a later change finds it.
///
/// # Errors
/// [`Refusal`]: denied, or not connected. No byte has passed then.
pub(crate) async fn deliver(
    pod: &ServedPod,
    caller: &Caller,
    to: SocketAddr,
) -> Result<AuthorizedStream, Refusal> {
    let connection = attributes(caller, to);
    let asked_in = pod.view();
    let delivery = pod.datapath.deliver(caller, to).await;
    let view = pod.view();
    let judge = Judge::new(&view, &pod.workload);
    let authorized = match delivery {
        Ok(Delivery::Allowed(stream)) => {
            if !Arc::ptr_eq(&asked_in, &view) {
                judge.evaluate(&connection).map_err(Refusal::Denied)?;
            }
            stream
        }
        Ok(Delivery::Ask(stream)) => {
            let permit = judge.evaluate(&connection).map_err(Refusal::Denied)?;
            stream.authorize(permit)
        }
        Err(DialError::Denied { reason, .. }) if is_policy(reason) => {
            return Err(Refusal::Denied(judge.explain(&connection, reason)));
        }
        Err(error) => return Err(Refusal::Dial(error)),
    };
    Ok(authorized)
}
