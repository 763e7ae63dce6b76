//! The meaning of Istio's policy objects: parse, validate, attach, evaluate, compile.
//!
//! Pure: no I/O, no async, no clock. The kernel tables and the proxy's evaluator are made from the
//! same [`WorkloadPolicies`], so that a verdict has one meaning.
