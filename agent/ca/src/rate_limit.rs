//! How many certificates each caller may request: a token bucket per caller.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::account::ServiceAccount;
use crate::caller::{AuthenticatedCaller, BoundPod};

/// How many callers are remembered.
const MAX_CALLERS: usize = 16 * 1024;

/// How many requests a caller may make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateLimit {
    /// In a burst.
    pub burst: NonZeroU32,
    /// Per second, in the long run.
    pub per_second: NonZeroU32,
}

/// Why a caller must wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RateLimited {
    /// It has made too many requests.
    #[error("the caller has asked too often; try again in {} ms", retry_after.as_millis())]
    TooOften {
        /// When it may ask again.
        retry_after: Duration,
    },
    /// Too many callers have asked recently to remember another one.
    #[error(
        "more than {MAX_CALLERS} callers have asked recently; try again in {} ms",
        retry_after.as_millis()
    )]
    TooManyCallers {
        /// When a caller may be forgotten.
        retry_after: Duration,
    },
}

/// The rate limits of all callers.
#[derive(Debug)]
pub struct RateLimiter {
    limit: RateLimit,
    buckets: Mutex<HashMap<RateLimitKey, Bucket>>,
}

/// An account on a node, or the account's pod if the node is not known.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum RateLimitKey {
    Node(ServiceAccount, Arc<str>),
    Pod(ServiceAccount, BoundPod),
}

#[derive(Debug)]
struct Bucket {
    /// How many requests were left at `since`.
    left: f64,
    since: Instant,
}

impl RateLimiter {
    /// The same limit for each caller.
    pub fn new(limit: RateLimit) -> Self {
        Self {
            limit,
            buckets: Mutex::default(),
        }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// [`RateLimited`] if the request must not be served.
    pub fn take(&self, caller: &AuthenticatedCaller, now: Instant) -> Result<(), RateLimited> {
        let key = RateLimitKey::of(caller);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_CALLERS && !buckets.contains_key(&key) {
            // Only full buckets are forgotten, since a forgotten bucket is full when it comes back.
            buckets.retain(|_, bucket| bucket.at(self.limit, now) < self.burst());
            if buckets.len() >= MAX_CALLERS {
                let retry_after = self.until(1.0);
                return Err(RateLimited::TooManyCallers { retry_after });
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket {
            left: self.burst(),
            since: now,
        });
        bucket.left = bucket.at(self.limit, now);
        bucket.since = bucket.since.max(now);
        if bucket.left < 1.0 {
            let retry_after = self.until(1.0 - bucket.left);
            return Err(RateLimited::TooOften { retry_after });
        }
        bucket.left -= 1.0;
        Ok(())
    }

    fn burst(&self) -> f64 {
        f64::from(self.limit.burst.get())
    }

    /// How long it takes until this many requests are allowed.
    fn until(&self, requests: f64) -> Duration {
        Duration::from_secs_f64(requests / f64::from(self.limit.per_second.get()))
    }
}

impl RateLimitKey {
    fn of(caller: &AuthenticatedCaller) -> Self {
        let account = caller.account.clone();
        match &caller.node {
            Some(node) => Self::Node(account, Arc::clone(node)),
            None => Self::Pod(account, caller.pod.clone()),
        }
    }
}

impl Bucket {
    fn at(&self, limit: RateLimit, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        let more = passed * f64::from(limit.per_second.get());
        (self.left + more).min(f64::from(limit.burst.get()))
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::caller;

    use super::*;

    fn limits(burst: u32, per_second: u32) -> RateLimiter {
        RateLimiter::new(RateLimit {
            burst: NonZeroU32::new(burst).expect("not zero"),
            per_second: NonZeroU32::new(per_second).expect("not zero"),
        })
    }

    #[test]
    fn a_burst_is_served_and_then_the_rate_applies() {
        let (limits, start) = (limits(3, 2), Instant::now());
        let agent = caller("mesh/agent", "agent-1", Some("node-1"));
        for _ in 0..3 {
            assert_eq!(limits.take(&agent, start), Ok(()));
        }
        let retry_after = Duration::from_millis(500);
        assert_eq!(
            limits.take(&agent, start),
            Err(RateLimited::TooOften { retry_after })
        );
        assert_eq!(limits.take(&agent, start + retry_after), Ok(()));
        assert!(limits.take(&agent, start + retry_after).is_err());
        // However long the pause, no more than a burst is allowed.
        let later = start + Duration::from_secs(3600);
        let served = (0..10)
            .filter(|_| limits.take(&agent, later).is_ok())
            .count();
        assert_eq!(served, 3);
    }

    #[test]
    fn callers_have_separate_limits_and_pods_of_one_account_and_node_share_one() {
        let (limits, now) = (limits(1, 1), Instant::now());
        for (account, pod, node, is_served) in [
            ("mesh/agent", "agent-1", Some("node-1"), true),
            ("mesh/agent", "agent-2", Some("node-1"), false),
            ("mesh/agent", "agent-1", Some("node-2"), true),
            ("shop/agent", "agent-1", Some("node-1"), true),
            ("mesh/agent", "agent-1", None, true),
            ("mesh/agent", "agent-2", None, true),
            ("mesh/agent", "agent-1", None, false),
        ] {
            let served = limits.take(&caller(account, pod, node), now).is_ok();
            assert_eq!(served, is_served, "{account} {pod} {node:?}");
        }
    }

    #[test]
    fn a_flood_of_callers_refills_no_bucket_and_uses_bounded_memory() {
        let (limits, now) = (limits(1, 1), Instant::now());
        let numbered = |number: usize| caller("shop/web", &format!("web-{number}"), None);
        for number in 0..MAX_CALLERS {
            assert_eq!(limits.take(&numbered(number), now), Ok(()));
        }
        let refused = limits.take(&numbered(MAX_CALLERS), now);
        assert!(matches!(refused, Err(RateLimited::TooManyCallers { .. })));
        let known = limits.take(&numbered(0), now);
        assert!(matches!(known, Err(RateLimited::TooOften { .. })));
        let later = now + Duration::from_secs(1);
        assert_eq!(limits.take(&numbered(MAX_CALLERS), later), Ok(()));
    }
}
