//! Authentication with the cluster's keys, which are in a file.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use serde::Deserialize;

use crate::account::ServiceAccount;
use crate::caller::{AuthenticatedCaller, BearerToken, BoundPod, CallerError};
use ambit_input::{FileFollower, read_bounded};
use ambit_jwt::{ExpectedToken, KeySet, Unauthenticated, VerifiedClaims, verify_bearer};
use ambit_model::ObjectName;
use ambit_policy::{Jwks, JwksError};

/// How much of a foreign issuer is repeated in an error, in characters.
const MAX_ISSUER: usize = 128;

/// The claim that lists the objects a token is bound to.
const BINDING: &str = "kubernetes.io";

/// How often the file is read.
const LOOK: Duration = Duration::from_secs(5);

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Verifies tokens with the cluster's keys. Clocks may differ by a minute.
#[derive(Debug)]
pub struct OfflineReviewer {
    expected: ExpectedToken,
    keys: JwksFile,
}

impl OfflineReviewer {
    /// A reviewer of tokens from this issuer and for this audience, signed by a key of the file.
    pub fn new(expected: ExpectedToken, keys: JwksFile) -> Self {
        Self { expected, keys }
    }

    /// Authenticates the bearer of a token.
    ///
    /// # Errors
    /// [`CallerError`].
    pub fn review(
        &self,
        token: &BearerToken,
        now: SystemTime,
    ) -> Result<AuthenticatedCaller, CallerError> {
        let verified = verify_bearer(
            token.expose(),
            &self.expected,
            &self.keys.keys().load(),
            now,
        );
        let verified = verified.map_err(|error| match error {
            Unauthenticated::UnknownIssuer { issuer } => CallerError::OtherIssuer {
                issuer: issuer.chars().take(MAX_ISSUER).collect(),
            },
            other => CallerError::Token(other),
        })?;
        claimed_caller(&verified)
    }
}

/// The claim `kubernetes.io`. Kubernetes adds fields over time.
#[derive(Deserialize)]
struct Binding {
    namespace: String,
    serviceaccount: Object,
    pod: Option<Object>,
    node: Option<Object>,
}

#[derive(Deserialize)]
struct Object {
    name: String,
    #[serde(default)]
    uid: String,
}

/// The caller according to verified claims.
///
/// # Errors
/// If the token does not expire, is not for a service account, or is not bound to a pod.
fn claimed_caller(claims: &VerifiedClaims) -> Result<AuthenticatedCaller, CallerError> {
    if claims.expires.is_none() {
        return Err(CallerError::NoExpiry);
    }
    let account = ServiceAccount::from_username(&claims.subject);
    let account = account.ok_or(CallerError::NotAnAccount)?;
    let binding = claims.all.get(BINDING).map(Binding::deserialize);
    let Some(Ok(binding)) = binding else {
        return Err(CallerError::Claims { account });
    };
    let named = (&*binding.namespace, &*binding.serviceaccount.name);
    if named != (account.namespace(), account.name()) {
        return Err(CallerError::Claims { account });
    }
    let Some(pod) = binding.pod else {
        return Err(CallerError::Unbound { account });
    };
    let is_named = |object: &Object| !object.name.is_empty();
    if !is_named(&pod) || pod.uid.is_empty() || !binding.node.as_ref().is_none_or(is_named) {
        return Err(CallerError::Claims { account });
    }
    Ok(AuthenticatedCaller {
        pod: BoundPod {
            name: ObjectName::new(account.namespace(), pod.name),
            uid: pod.uid.into(),
        },
        node: binding.node.map(|node| node.name.into()),
        account,
    })
}

/// Why a file of keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JwksFileError {
    /// It cannot be read.
    #[error("the file of keys {path} cannot be read: {error}", path = path.display())]
    Read {
        /// The path of the file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// It does not contain usable keys.
    #[error(
        "the file of keys {path} cannot be used: {error}; write what the API server has at \
         /openid/v1/jwks to it",
        path = path.display()
    )]
    Keys {
        /// The path of the file.
        path: PathBuf,
        /// What is wrong with its contents.
        error: JwksError,
    },
}

/// A file with the cluster's keys (RFC 7517), which is followed. If it becomes unusable, the last good
/// keys stay in force.
#[derive(Debug)]
pub struct JwksFile {
    keys: Arc<ArcSwap<KeySet>>,
    _follower: FileFollower,
}

impl JwksFile {
    /// Reads the file, and follows it until this is dropped.
    ///
    /// # Errors
    /// [`JwksFileError`] if it cannot be used at first.
    pub fn follow(path: &Path) -> Result<Self, JwksFileError> {
        let mut read = ReadJwks::open(path)?;
        let keys = Arc::clone(&read.keys);
        let report = |fault: Option<&str>| {
            if let Some(fault) = fault {
                tracing::warn!("{fault}; the last good keys stay in force");
            }
        };
        let follower = FileFollower::start("ambit-jwks", LOOK, move || read.look(), report);
        Ok(Self {
            keys,
            _follower: follower.map_err(|error| JwksFileError::Read {
                path: path.to_owned(),
                error,
            })?,
        })
    }

    /// The keys, always the last good ones.
    pub fn keys(&self) -> &ArcSwap<KeySet> {
        &self.keys
    }
}

/// The keys in use, and the text that they were read from.
struct ReadJwks {
    path: PathBuf,
    text: Vec<u8>,
    keys: Arc<ArcSwap<KeySet>>,
}

impl ReadJwks {
    fn open(path: &Path) -> Result<Self, JwksFileError> {
        let text = read(path)?;
        let keys = Arc::new(ArcSwap::from_pointee(parse(path, &text)?));
        Ok(Self {
            path: path.to_owned(),
            text,
            keys,
        })
    }

    /// Reads the file again, and takes over its keys if it has changed.
    fn look(&mut self) -> Result<(), JwksFileError> {
        let text = read(&self.path)?;
        if text == self.text {
            return Ok(());
        }
        let keys = parse(&self.path, &text)?;
        self.keys.store(Arc::new(keys));
        self.text = text;
        tracing::info!(file = %self.path.display(), "the cluster's keys have changed");
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, JwksFileError> {
    let file = File::open(path).and_then(|file| read_bounded(file, MAX_FILE));
    file.map_err(|error| JwksFileError::Read {
        path: path.to_owned(),
        error,
    })
}

fn parse(path: &Path, text: &[u8]) -> Result<KeySet, JwksFileError> {
    let jwks = Jwks::parse(text).map_err(|error| JwksFileError::Keys {
        path: path.to_owned(),
        error,
    })?;
    Ok(KeySet::new(&jwks))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use serde_json::{Value, json};

    use ambit_jwt::testing::TestIssuer;

    use super::*;

    fn claims(binding: &Value) -> VerifiedClaims {
        let all = json!({"kubernetes.io": binding});
        VerifiedClaims {
            subject: "system:serviceaccount:shop:web".to_owned(),
            expires: Some(1),
            all: all.as_object().expect("an object").clone(),
        }
    }

    fn binding() -> Value {
        json!({
            "namespace": "shop",
            "serviceaccount": {"name": "web", "uid": "1"},
            "pod": {"name": "web-0", "uid": "2"},
            "node": {"name": "node-1", "uid": "3"},
            "warnafter": 7,
        })
    }

    fn with(field: &str, value: Value) -> VerifiedClaims {
        let mut binding = binding();
        binding[field] = value;
        claims(&binding)
    }

    #[test]
    fn the_caller_is_the_pod_that_the_claims_name() {
        let found = claimed_caller(&claims(&binding())).expect("a caller");
        assert_eq!(found.account.to_string(), "shop/web");
        assert_eq!(found.pod.name.to_string(), "shop/web-0");
        assert_eq!(&*found.pod.uid, "2");
        assert_eq!(found.node.as_deref(), Some("node-1"));
        // Before 1.30 Kubernetes does not name the node.
        let found = claimed_caller(&with("node", Value::Null)).expect("a caller");
        assert_eq!(found.node, None);
    }

    #[test]
    fn a_token_without_expiry_or_pod_is_refused() {
        let endless = VerifiedClaims {
            expires: None,
            ..claims(&binding())
        };
        assert_eq!(claimed_caller(&endless), Err(CallerError::NoExpiry));
        let unbound = claimed_caller(&with("pod", Value::Null));
        assert!(matches!(unbound, Err(CallerError::Unbound { .. })));
        let user = VerifiedClaims {
            subject: "alice".to_owned(),
            ..claims(&binding())
        };
        assert_eq!(claimed_caller(&user), Err(CallerError::NotAnAccount));
    }

    #[test]
    fn claims_that_contradict_themselves_are_refused() {
        for claims in [
            with("namespace", json!("bank")),
            with("serviceaccount", json!({"name": "root", "uid": "1"})),
            with("serviceaccount", Value::Null),
            with("pod", json!({"name": "web-0"})),
            with("pod", json!({"name": "", "uid": "2"})),
            with("pod", json!("web-0")),
            with("node", json!({"name": ""})),
            with("node", json!("node-1")),
            claims(&Value::Null),
            claims(&json!([])),
        ] {
            let error = claimed_caller(&claims);
            assert!(
                matches!(error, Err(CallerError::Claims { .. })),
                "{claims:?}"
            );
        }
    }

    #[test]
    fn new_keys_replace_old_ones_and_a_broken_file_replaces_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jwks.json");
        let issuers = [TestIssuer::ec("P-256"), TestIssuer::ec("P-256")];
        let accepted = |keys: &ArcSwap<KeySet>| {
            let expected = ExpectedToken {
                issuer: "i".to_owned(),
                audience: "a".to_owned(),
            };
            let claims = json!({"iss": "i", "aud": "a", "exp": 1});
            let is_accepted = |issuer: &TestIssuer| {
                verify_bearer(&issuer.token(&claims), &expected, &keys.load(), UNIX_EPOCH).is_ok()
            };
            [is_accepted(&issuers[0]), is_accepted(&issuers[1])]
        };
        assert!(matches!(
            JwksFile::follow(&path),
            Err(JwksFileError::Read { .. })
        ));
        std::fs::write(&path, "{}").unwrap();
        assert!(matches!(
            JwksFile::follow(&path),
            Err(JwksFileError::Keys { .. })
        ));
        std::fs::write(&path, issuers[0].jwks().to_string()).unwrap();
        let mut file = ReadJwks::open(&path).unwrap();
        let keys = Arc::clone(&file.keys);
        assert_eq!(accepted(&keys), [true, false]);
        for broken in ["", "{}", r#"{"keys": []}"#] {
            std::fs::write(&path, broken).unwrap();
            assert!(file.look().is_err());
            assert_eq!(accepted(&keys), [true, false]);
        }
        std::fs::write(&path, issuers[1].jwks().to_string()).unwrap();
        file.look().unwrap();
        assert_eq!(accepted(&keys), [false, true]);
    }
}
