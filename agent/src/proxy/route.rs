//! Where a connection that a pod opened goes: pure decisions, from the model and the address that
//! was dialled.

use std::net::SocketAddr;

use ambit_common::HBONE_PORT;
use rand::Rng;
use rand::seq::SliceRandom;

use super::refusal::Refusal;
use crate::model::{Destination, Enrolment, Target, Workload};

/// How many endpoints of a Service are tried before a connection is refused.
const ATTEMPTS: usize = 3;

/// What becomes of a connection that a pod opened.
#[derive(Debug)]
pub(crate) enum Route {
    /// To one of these, which are never empty.
    Endpoints(Vec<Target>),
    /// Nowhere yet: the model may learn of the address in a moment. Refused so if it does not.
    Hold(Refusal),
    /// Nowhere.
    Refuse(Refusal),
}

/// How an endpoint is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    /// It is the calling pod: delivered in the same network namespace, judged as any delivery.
    OwnPod,
    /// Through an HBONE tunnel.
    Tunnel,
    /// In plaintext, since its objects do not opt it in.
    Plaintext,
}

/// Decides where a connection to `dialled` goes.
pub(crate) fn route(destination: Destination, dialled: SocketAddr) -> Route {
    match destination {
        Destination::Workload(target) => endpoints(vec![target]),
        Destination::Service { service, endpoints: none } if none.is_empty() => {
            Route::Refuse(Refusal::NoReadyEndpoint { service, dialled })
        }
        Destination::Service { endpoints: some, .. } => endpoints(some),
        Destination::NoSuchPort(service) => Route::Refuse(Refusal::NoSuchPort { service, dialled }),
        Destination::Ambiguous(claimants) => {
            Route::Refuse(Refusal::Ambiguous { dialled, claimants })
        }
        Destination::Unknown => Route::Hold(Refusal::Unknown(dialled)),
    }
}

/// Nobody is sent to HBONE's port: there it would be the agent that answers, not the application.
fn endpoints(targets: Vec<Target>) -> Route {
    match targets.iter().find(|target| target.address.port() == HBONE_PORT) {
        Some(target) => Route::Refuse(Refusal::HbonePort(target.address)),
        None => Route::Endpoints(targets),
    }
}

/// How `caller` reaches `endpoint`.
///
/// A pod that is opted in but never enrolled gets a tunnel, since its objects do not say that it is
/// outside: it is refused unless another implementation answers on its HBONE port.
pub(crate) fn transport(caller: &Workload, endpoint: &Workload) -> Transport {
    if caller.uid == endpoint.uid {
        return Transport::OwnPod;
    }
    match endpoint.enrolment {
        Enrolment::OptedIn | Enrolment::Never(_) => Transport::Tunnel,
        Enrolment::NotOptedIn => Transport::Plaintext,
    }
}

/// The endpoints to try, in random order, each as likely to be the first as any other.
pub(crate) fn attempts(mut endpoints: Vec<Target>, rng: &mut impl Rng) -> Vec<Target> {
    endpoints.partial_shuffle(rng, ATTEMPTS);
    // partial_shuffle puts the chosen ones at the end.
    endpoints.reverse();
    endpoints.truncate(ATTEMPTS);
    endpoints
}
