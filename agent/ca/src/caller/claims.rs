//! What Kubernetes says of the bearer in a token that it has signed.

use serde::Deserialize;

use super::super::account::ServiceAccount;
use super::{AuthenticatedCaller, BoundPod, CallerError};
use ambit_jwt::VerifiedClaims;
use ambit_model::ObjectName;

/// The claim with the objects that a token is bound to.
const BINDING: &str = "kubernetes.io";

/// `kubernetes.io`. Kubernetes adds fields over time.
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

/// The caller of verified claims.
///
/// # Errors
/// Where the token does not expire, is of no service account, or is bound to no pod.
pub(super) fn caller(claims: &VerifiedClaims) -> Result<AuthenticatedCaller, CallerError> {
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

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
    fn the_bearer_is_a_pod() {
        let found = caller(&claims(&binding())).expect("a caller");
        assert_eq!(found.account.to_string(), "shop/web");
        assert_eq!(found.pod.name.to_string(), "shop/web-0");
        assert_eq!(&*found.pod.uid, "2");
        assert_eq!(found.node.as_deref(), Some("node-1"));
        // Kubernetes before 1.30 names no node.
        let found = caller(&with("node", Value::Null)).expect("a caller");
        assert_eq!(found.node, None);
    }

    #[test]
    fn a_token_without_end_or_pod_is_refused() {
        let endless = VerifiedClaims {
            expires: None,
            ..claims(&binding())
        };
        assert_eq!(caller(&endless), Err(CallerError::NoExpiry));
        let unbound = caller(&with("pod", Value::Null));
        assert!(matches!(unbound, Err(CallerError::Unbound { .. })));
        let user = VerifiedClaims {
            subject: "alice".to_owned(),
            ..claims(&binding())
        };
        assert_eq!(caller(&user), Err(CallerError::NotAnAccount));
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
            let error = caller(&claims);
            assert!(
                matches!(error, Err(CallerError::Claims { .. })),
                "{claims:?}"
            );
        }
    }
}
