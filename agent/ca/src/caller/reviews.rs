//! Reviews that were positive a moment ago.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{AuthenticatedCaller, BearerToken};

/// How long a positive review is believed: as long as the API server itself believes one. A node's
/// agent asks for all its pods at once with one token; a pod that is deleted loses its caller this
/// much later.
const BELIEVED: Duration = Duration::from_secs(10);

/// Reviews that are kept.
const MAX_KEPT: usize = 4096;

/// SHA-256 of a token: a dump of this process's memory has no tokens in it for long.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct TokenDigest([u8; 32]);

impl TokenDigest {
    pub(super) fn of(token: &BearerToken) -> Self {
        let digest =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.expose().as_bytes());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

/// Positive reviews. Negative ones are not kept: a token may come to be accepted.
#[derive(Debug, Default)]
pub(super) struct Reviews(HashMap<TokenDigest, (AuthenticatedCaller, Instant)>);

impl Reviews {
    /// Whose the token is, where that was found out a moment ago.
    pub(super) fn find(&self, token: TokenDigest, now: Instant) -> Option<AuthenticatedCaller> {
        let (caller, since) = self.0.get(&token)?;
        is_believed(*since, now).then(|| caller.clone())
    }

    /// Remembers whose the token is, unless too much is remembered already.
    pub(super) fn keep(&mut self, token: TokenDigest, caller: AuthenticatedCaller, now: Instant) {
        if self.0.len() >= MAX_KEPT {
            self.0.retain(|_, (_, since)| is_believed(*since, now));
        }
        if self.0.len() < MAX_KEPT {
            self.0.insert(token, (caller, now));
        }
    }
}

fn is_believed(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < BELIEVED
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::caller;

    fn digest(number: usize) -> TokenDigest {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        TokenDigest(bytes)
    }

    #[test]
    fn a_review_is_believed_for_a_while_and_for_its_token_only() {
        let (mut reviews, start) = (Reviews::default(), Instant::now());
        reviews.keep(digest(1), caller("shop/web", "web-0", None), start);
        assert!(reviews.find(digest(1), start).is_some());
        assert!(reviews.find(digest(2), start).is_none());
        assert!(reviews.find(digest(1), start + BELIEVED).is_none());
    }

    #[test]
    fn room_is_bounded_and_made_by_age_only() {
        let (mut reviews, start) = (Reviews::default(), Instant::now());
        let caller = caller("shop/web", "web-0", None);
        for number in 0..=MAX_KEPT {
            reviews.keep(digest(number), caller.clone(), start);
        }
        assert_eq!(reviews.0.len(), MAX_KEPT);
        assert!(reviews.find(digest(MAX_KEPT), start).is_none());
        reviews.keep(digest(MAX_KEPT), caller, start + BELIEVED);
        assert_eq!(reviews.0.len(), 1);
    }
}
