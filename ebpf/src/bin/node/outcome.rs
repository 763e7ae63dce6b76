//! What the connect hook comes to.

use ambit_common::Endpoint;

/// What becomes of a connect.
pub enum Outcome {
    /// It goes on as it is.
    Pass,
    /// It fails at once.
    Refuse,
    /// It goes to this endpoint instead.
    Redirect(Endpoint),
}
