//! What one request's tokens may take.

/// Different tokens of a request that are looked at.
pub(super) const MAX_TOKENS: usize = 8;

/// The longest token, in bytes.
pub(super) const MAX_TOKEN: usize = 16 * 1024;

/// What the signatures of one request may cost, in verifications with an RSA key of 2048 bits.
pub(super) const MAX_WORK: u32 = 64;
