//! The names of Kubernetes service accounts.

use std::fmt;
use std::str::FromStr;

use ambit_model::{IdentityError, ObjectName, TrustDomain, WorkloadIdentity};

/// The prefix of a service account's user name.
const USERNAME_PREFIX: &str = "system:serviceaccount:";

/// The longest name of a Kubernetes object (RFC 1123, DNS subdomain).
const MAX_NAME: usize = 253;

/// A Kubernetes service account. Displays as `namespace/name`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ServiceAccount(ObjectName);

/// A text is not the name of a service account.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not a service account; write NAMESPACE/NAME, in lower case")]
pub struct NotAnAccount(String);

impl ServiceAccount {
    /// The account `name` in a namespace; `None` if either is not a valid name.
    pub fn new(namespace: &str, name: &str) -> Option<Self> {
        (is_name(namespace) && is_name(name)).then(|| Self(ObjectName::new(namespace, name)))
    }

    /// The account of a Kubernetes user name, `system:serviceaccount:NAMESPACE:NAME`.
    pub fn from_username(username: &str) -> Option<Self> {
        let (namespace, name) = username.strip_prefix(USERNAME_PREFIX)?.split_once(':')?;
        Self::new(namespace, name)
    }

    /// The account that an identity belongs to. The trust domain is ignored.
    pub fn of(identity: &WorkloadIdentity) -> Self {
        let (namespace, name) = (identity.namespace(), identity.service_account());
        Self(ObjectName::new(namespace, name))
    }

    /// The namespace that the account is in.
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// The name within the namespace.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The identity of the account's pods.
    ///
    /// # Errors
    /// [`IdentityError`] if the name cannot be part of a SPIFFE ID.
    pub fn identity(&self, trust_domain: &TrustDomain) -> Result<WorkloadIdentity, IdentityError> {
        WorkloadIdentity::new(trust_domain.clone(), self.namespace(), self.name())
    }
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ServiceAccount {
    type Err = NotAnAccount;

    fn from_str(text: &str) -> Result<Self, NotAnAccount> {
        let account = text
            .split_once('/')
            .and_then(|(namespace, name)| Self::new(namespace, name));
        account.ok_or_else(|| NotAnAccount(text.to_owned()))
    }
}

/// Whether a text is a valid object name (RFC 1123, DNS subdomain).
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(valid)
    };
    text.len() <= MAX_NAME && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_names_and_user_names_are_read() {
        let account = ServiceAccount::new("shop", "web.v2").expect("valid");
        assert_eq!("shop/web.v2".parse().as_ref(), Ok(&account));
        let of_user = ServiceAccount::from_username("system:serviceaccount:shop:web.v2");
        assert_eq!(of_user.as_ref(), Some(&account));
        assert_eq!(account.to_string(), "shop/web.v2");
        let domain = TrustDomain::new("cluster.local").expect("valid");
        let identity = account.identity(&domain).expect("valid");
        assert_eq!(identity.principal(), "cluster.local/ns/shop/sa/web.v2");
        assert_eq!(ServiceAccount::of(&identity), account);
    }

    #[test]
    fn other_texts_are_not_accounts() {
        for text in [
            "",
            "shop",
            "shop/",
            "/web",
            "shop/web/x",
            "Shop/web",
            "a/..",
            "a/b\0",
            "a/-b",
        ] {
            assert!(text.parse::<ServiceAccount>().is_err(), "{text:?}");
        }
        for username in [
            "shop:web",
            "system:node:node-1",
            "system:serviceaccount:shop",
            "system:serviceaccount:shop:web:x",
            "system:serviceaccount::web",
            "System:serviceaccount:shop:web",
            " system:serviceaccount:shop:web",
        ] {
            assert_eq!(
                ServiceAccount::from_username(username),
                None,
                "{username:?}"
            );
        }
    }
}
