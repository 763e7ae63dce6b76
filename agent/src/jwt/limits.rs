//! What one request's tokens may take.

/// Different tokens of a request that are looked at.
pub(super) const MAX_TOKENS: usize = 8;

/// The longest token, in bytes.
pub(super) const MAX_TOKEN: usize = 16 * 1024;
