//! What policies mean, by name: the cases of the specification, with a denial beside each
//! permission, and a property that holds evaluator and kernel tables against each other.

mod admission;
mod agreement;
mod attachment;
mod custom;
mod dry_run;
mod explain;
mod headers;
mod hosts;
mod identity;
mod methods;
mod not_enforced;
mod notes;
mod opaque;
mod paths;
mod peer_authentication;
mod remote_ip;
mod revision;
mod scope;
mod tokens;
mod trust;

use super::testing::*;
