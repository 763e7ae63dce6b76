//! What policies mean: the cases of the manual, with a denial beside each permission, and a property
//! test that compares the evaluator with the kernel's tables.

mod admission;
mod agreement;
mod attachment;
mod custom;
mod dry_run;
mod explain;
mod headers;
mod hosts;
mod identity;
mod manual;
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
