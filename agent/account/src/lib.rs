//! One account of memory for a node: everything that waits for someone else draws from it before it takes
//! memory, and gives back what it drew.
//!
//! Each pod has a guaranteed share, which no other pod can use up. Beyond its share it borrows from a common
//! pool: all that no guarantee reserves. What is only good for speed, such as a larger window, stops growing
//! long before the pool is used up ([`Charge::extend`], [`Charge::grow_spare`]); what a new connection cannot do without may be drawn
//! to the end ([`PodAccount::take`]).
//!
//! Every operation is a few atomic instructions; only a pod that comes or goes takes a lock.

mod charge;
mod exhausted;
mod node;
mod pod;
#[cfg(test)]
mod tests;

pub use charge::Charge;
pub use exhausted::{AccountExhausted, Owner};
pub use node::{GUARANTEE, NodeAccount, NodeUsage};
pub use pod::{PodAccount, PodUsage};
