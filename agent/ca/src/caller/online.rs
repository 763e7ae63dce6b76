//! Authentication with the API server: TokenReview of `authentication.k8s.io/v1`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, Limited};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::client::Body;
use tokio::sync::Semaphore;

use crate::account::ServiceAccount;
use crate::caller::{AuthenticatedCaller, BearerToken, BoundPod, CallerError, ReviewError};
use ambit_model::ObjectName;

/// How many reviews may be under way at a time, so that unknown callers do not overload the API server.
const MAX_UNDER_WAY: usize = 16;

/// How long a review may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The path at which reviews are created.
const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 256 * 1024;

/// The keys in a user's `extra` that name the objects a token is bound to.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// How long a positive review is remembered, which is as long as the API server itself does. A node's
/// agent requests certificates for many pods with one token. A deleted pod's token is accepted for this
/// much longer.
const BELIEVED: Duration = Duration::from_secs(10);

/// How many reviews are remembered.
const MAX_KEPT: usize = 4096;

/// Authenticates callers with the API server, which knows which pods have ended.
pub struct OnlineReviewer {
    client: kube::Client,
    audience: String,
    turns: Semaphore,
    known: Mutex<Reviews>,
}

impl OnlineReviewer {
    /// A reviewer of tokens for `audience`.
    pub fn new(client: kube::Client, audience: String) -> Self {
        Self {
            client,
            audience,
            turns: Semaphore::new(MAX_UNDER_WAY),
            known: Mutex::default(),
        }
    }

    /// Authenticates the bearer of a token.
    ///
    /// # Errors
    /// [`ReviewError`].
    pub async fn review(&self, token: &BearerToken) -> Result<AuthenticatedCaller, ReviewError> {
        let digest = TokenDigest::of(token);
        if let Some(caller) = self.known(digest) {
            return Ok(caller);
        }
        let asked = async {
            let turn = self.turns.acquire().await;
            let _turn = turn.map_err(|error| ReviewError::Unavailable(error.to_string()))?;
            // Another call may have had the same token reviewed in the meantime.
            if let Some(caller) = self.known(digest) {
                return Ok(caller);
            }
            let asked = Instant::now();
            let caller = self.ask(token).await?;
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.keep(digest, caller.clone(), asked);
            Ok(caller)
        };
        match tokio::time::timeout(TIMEOUT, asked).await {
            Ok(result) => result,
            Err(_) => {
                let reason = format!("no answer within {TIMEOUT:?}");
                Err(ReviewError::Unavailable(reason))
            }
        }
    }

    fn known(&self, token: TokenDigest) -> Option<AuthenticatedCaller> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.find(token, Instant::now())
    }

    /// Reads the answer itself, because the client would log an answer that it cannot decode, and the
    /// answer contains the token.
    async fn ask(&self, token: &BearerToken) -> Result<AuthenticatedCaller, ReviewError> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![self.audience.clone()]),
                token: Some(token.expose().to_owned()),
            },
            ..TokenReview::default()
        };
        let answer = self.send(&review).await.map_err(ReviewError::Unavailable)?;
        let answer: TokenReview = serde_json::from_slice(&answer)
            .map_err(|_| ReviewError::Unavailable("its answer is not a TokenReview".to_owned()))?;
        Ok(reviewed_caller(
            answer.status.unwrap_or_default(),
            &self.audience,
        )?)
    }

    /// Creates the review.
    ///
    /// # Errors
    /// What went wrong, without any of the review's contents.
    async fn send(&self, review: &TokenReview) -> Result<Bytes, String> {
        let body = serde_json::to_vec(review).map_err(|error| error.to_string())?;
        let request = Request::post(TOKEN_REVIEWS)
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .map_err(|error| error.to_string())?;
        let response = self.client.send(request).await;
        let response = response.map_err(|error| error.to_string())?;
        if !response.status().is_success() {
            return Err(format!("it answered {}", response.status()));
        }
        let answer = Limited::new(response.into_body(), MAX_ANSWER).collect();
        let answer = answer.await.map_err(|error| error.to_string())?;
        Ok(answer.to_bytes())
    }
}

impl fmt::Debug for OnlineReviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnlineReviewer")
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

/// The caller according to the API server.
fn reviewed_caller(
    status: TokenReviewStatus,
    audience: &str,
) -> Result<AuthenticatedCaller, CallerError> {
    let audiences = status.audiences.unwrap_or_default();
    // An API server that does not support audiences answers without them.
    let is_for_us = audiences.iter().any(|known| known == audience);
    if status.authenticated != Some(true)
        || status.error.is_some_and(|e| !e.is_empty())
        || !is_for_us
    {
        let audience = audience.to_owned();
        return Err(CallerError::NotAccepted { audience });
    }
    let user = status.user.unwrap_or_default();
    let username = user.username.unwrap_or_default();
    let account = ServiceAccount::from_username(&username).ok_or(CallerError::NotAnAccount)?;
    let extra = user.extra.unwrap_or_default();
    let claims = || CallerError::Claims {
        account: account.clone(),
    };
    let pod = match (one(&extra, POD_NAME), one(&extra, POD_UID)) {
        (Value::One(name), Value::One(uid)) => BoundPod {
            name: ObjectName::new(account.namespace(), name),
            uid: uid.into(),
        },
        (Value::None, Value::None) => return Err(CallerError::Unbound { account }),
        _ => return Err(claims()),
    };
    let node = match one(&extra, NODE_NAME) {
        Value::One(name) => Some(name.into()),
        Value::None => None,
        Value::Unclear => return Err(claims()),
    };
    Ok(AuthenticatedCaller { account, pod, node })
}

/// A value in a user's `extra`, where each value is a list.
enum Value<'a> {
    None,
    One(&'a str),
    Unclear,
}

fn one<'a>(extra: &'a BTreeMap<String, Vec<String>>, key: &str) -> Value<'a> {
    match extra.get(key).map(Vec::as_slice) {
        None | Some([]) => Value::None,
        Some([value]) if !value.is_empty() => Value::One(value),
        Some(_) => Value::Unclear,
    }
}

/// SHA-256 of a token, so that tokens do not stay in memory.
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

/// Positive reviews. Negative ones are not remembered, since a token may become valid.
#[derive(Debug, Default)]
pub(super) struct Reviews(HashMap<TokenDigest, (AuthenticatedCaller, Instant)>);

impl Reviews {
    /// The token's caller, if it was reviewed recently.
    pub(super) fn find(&self, token: TokenDigest, now: Instant) -> Option<AuthenticatedCaller> {
        let (caller, since) = self.0.get(&token)?;
        is_believed(*since, now).then(|| caller.clone())
    }

    /// Remembers a token's caller, if there is room.
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
    use serde_json::{Value as Json, json};

    use crate::tests::caller;

    use super::*;

    fn status() -> Json {
        json!({
            "authenticated": true,
            "audiences": ["istio-ca"],
            "user": {
                "username": "system:serviceaccount:shop:web",
                "extra": {(POD_NAME): ["web-0"], (POD_UID): ["2"], (NODE_NAME): ["node-1"]},
            },
        })
    }

    fn with(pointer: &str, value: Json) -> Result<AuthenticatedCaller, CallerError> {
        let mut status = status();
        *status.pointer_mut(pointer).expect("a field") = value;
        reviewed_caller(
            serde_json::from_value(status).expect("a status"),
            "istio-ca",
        )
    }

    #[test]
    fn the_caller_is_the_pod_that_the_api_server_names() {
        let found = with("/authenticated", json!(true)).expect("a caller");
        assert_eq!(found.account.to_string(), "shop/web");
        assert_eq!(found.pod.name.to_string(), "shop/web-0");
        assert_eq!(
            (&*found.pod.uid, found.node.as_deref()),
            ("2", Some("node-1"))
        );
        let key = "/user/extra/authentication.kubernetes.io~1node-name";
        assert_eq!(with(key, json!([])).expect("a caller").node, None);
    }

    #[test]
    fn only_a_clear_yes_is_accepted() {
        let not_accepted = Err(CallerError::NotAccepted {
            audience: "istio-ca".to_owned(),
        });
        assert_eq!(with("/authenticated", json!(false)), not_accepted);
        assert_eq!(with("/authenticated", Json::Null), not_accepted);
        assert_eq!(with("/audiences", json!(["api"])), not_accepted);
        assert_eq!(with("/audiences", Json::Null), not_accepted);
        let mut status = status();
        status["error"] = json!("expired");
        let status = serde_json::from_value(status).expect("a status");
        assert_eq!(reviewed_caller(status, "istio-ca"), not_accepted);
        assert_eq!(
            reviewed_caller(TokenReviewStatus::default(), "istio-ca"),
            not_accepted
        );
    }

    #[test]
    fn users_and_tokens_without_a_pod_are_refused() {
        let user = with("/user/username", json!("system:node:node-1"));
        assert_eq!(user, Err(CallerError::NotAnAccount));
        let unbound = with("/user/extra", json!({}));
        assert!(matches!(unbound, Err(CallerError::Unbound { .. })));
        for (key, value) in [
            ("pod-name", json!(["a", "b"])),
            ("pod-uid", json!([])),
            ("pod-uid", json!([""])),
            ("node-name", json!(["a", "b"])),
        ] {
            let key = format!("/user/extra/authentication.kubernetes.io~1{key}");
            let unclear = with(&key, value);
            assert!(matches!(unclear, Err(CallerError::Claims { .. })), "{key}");
        }
    }

    fn digest(number: usize) -> TokenDigest {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        TokenDigest(bytes)
    }

    #[test]
    fn a_review_is_remembered_for_a_while_and_for_its_token_only() {
        let (mut reviews, start) = (Reviews::default(), Instant::now());
        reviews.keep(digest(1), caller("shop/web", "web-0", None), start);
        assert!(reviews.find(digest(1), start).is_some());
        assert!(reviews.find(digest(2), start).is_none());
        assert!(reviews.find(digest(1), start + BELIEVED).is_none());
    }

    #[test]
    fn memory_is_bounded_and_only_old_reviews_are_forgotten() {
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
