//! Identities of workloads, and the trust domains in which they are issued.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The SPIFFE trust domain of a mesh, for example `cluster.local`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(Arc<str>);

/// Why a text is not the SPIFFE identity of a workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    #[error("{0:?} is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
    Form(String),
    /// A part is empty or has a character that the SPIFFE ID specification (section 2) forbids.
    #[error("{part:?} is not a valid {what} of a SPIFFE identity")]
    Part {
        /// Which part.
        what: &'static str,
        /// Its text.
        part: String,
    },
}

impl TrustDomain {
    /// Reads a trust domain: lower-case letters, digits, `.`, `-` and `_` (SPIFFE ID specification,
    /// section 2.1), at most 255 characters.
    ///
    /// # Errors
    /// [`IdentityError::Part`] for anything else.
    pub fn new(text: &str) -> Result<Self, IdentityError> {
        let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
        if text.is_empty() || text.len() > 255 || !text.chars().all(valid) {
            return Err(IdentityError::Part {
                what: "trust domain",
                part: text.to_owned(),
            });
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = IdentityError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0.to_string()
    }
}

/// A workload's identity: trust domain, namespace and service account.
///
/// Displays as Istio's *principal*, which is the SPIFFE ID without its scheme.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct WorkloadIdentity {
    trust_domain: TrustDomain,
    namespace: Arc<str>,
    service_account: Arc<str>,
    /// Made from the other three. It is kept because thousands of rules may be compared with it.
    principal: Arc<str>,
}

impl WorkloadIdentity {
    /// An identity from its parts.
    ///
    /// # Errors
    /// [`IdentityError::Part`] if a part has a character that a SPIFFE path segment cannot have.
    pub fn new(
        trust_domain: TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, IdentityError> {
        let namespace = segment("namespace", namespace)?;
        let service_account = segment("service account", service_account)?;
        let principal = format!("{trust_domain}/ns/{namespace}/sa/{service_account}");
        Ok(Self {
            trust_domain,
            namespace,
            service_account,
            principal: principal.into(),
        })
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The Kubernetes namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Kubernetes service account.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }

    /// The principal, for example `cluster.local/ns/orders/sa/default`.
    pub fn principal(&self) -> &str {
        &self.principal
    }

    /// The SPIFFE ID, for example `spiffe://cluster.local/ns/orders/sa/default`.
    pub fn spiffe_id(&self) -> String {
        format!("spiffe://{self}")
    }

    /// Reads a SPIFFE ID of exactly the five-part form.
    ///
    /// # Errors
    /// [`IdentityError`] for anything else: another scheme, more or fewer parts, an empty part.
    pub fn from_spiffe_id(id: &str) -> Result<Self, IdentityError> {
        id.strip_prefix("spiffe://")
            .ok_or_else(|| IdentityError::Form(id.to_owned()))?
            .parse()
    }
}

impl fmt::Display for WorkloadIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.principal)
    }
}

impl FromStr for WorkloadIdentity {
    type Err = IdentityError;

    /// From the principal form.
    fn from_str(principal: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = principal.split('/').collect();
        match parts.as_slice() {
            [trust_domain, "ns", namespace, "sa", service_account] => {
                Self::new(TrustDomain::new(trust_domain)?, namespace, service_account)
            }
            _ => Err(IdentityError::Form(principal.to_owned())),
        }
    }
}

impl Serialize for WorkloadIdentity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WorkloadIdentity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// A path segment (SPIFFE ID specification, section 2.2): letters, digits, `.`, `-` and `_`, but not
/// empty, `.` or `..`.
fn segment(what: &'static str, part: &str) -> Result<Arc<str>, IdentityError> {
    let valid = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if part.is_empty() || part == "." || part == ".." || !part.chars().all(valid) {
        return Err(IdentityError::Part {
            what,
            part: part.to_owned(),
        });
    }
    Ok(part.into())
}

/// The trust domains of the mesh (Istio's `trustDomain` and `trustDomainAliases`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TrustBundle {
    /// The domain in which the mesh's identities are issued.
    pub own: TrustDomain,
    /// Further domains, for example the former name of the mesh.
    pub aliases: Vec<TrustDomain>,
}

impl TrustBundle {
    /// The bundle of a mesh without aliases.
    pub fn without_aliases(own: TrustDomain) -> Self {
        Self {
            own,
            aliases: Vec::new(),
        }
    }

    /// All domains, the mesh's own first.
    pub fn domains(&self) -> impl Iterator<Item = &TrustDomain> {
        std::iter::once(&self.own).chain(&self.aliases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_five_part_id_round_trips() {
        let id = "spiffe://cluster.local/ns/orders/sa/default";
        let identity = WorkloadIdentity::from_spiffe_id(id).expect("valid");
        assert_eq!(identity.spiffe_id(), id);
        assert_eq!(identity.to_string(), "cluster.local/ns/orders/sa/default");
        assert_eq!(identity.namespace(), "orders");
    }

    #[test]
    fn everything_else_is_refused() {
        for id in [
            "",
            "cluster.local/ns/a/sa/b",
            "https://cluster.local/ns/a/sa/b",
            "SPIFFE://cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa",
            "spiffe://cluster.local/ns/a/sa/b/c",
            "spiffe://cluster.local/ns/a/sa/b/",
            "spiffe://cluster.local//ns/a/sa/b",
            "spiffe:///ns/a/sa/b",
            "spiffe://cluster.local/ns//sa/b",
            "spiffe://cluster.local/sa/a/ns/b",
            "spiffe://Cluster.local/ns/a/sa/b",
            "spiffe://cluster.local:80/ns/a/sa/b",
            "spiffe://user@cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/../sa/b",
            "spiffe://cluster.local/ns/a/sa/b?x",
            "spiffe://cluster.local/ns/a/sa/b#x",
            "spiffe://cluster.local/ns/a%2f/sa/b",
            "spiffe://cluster.local/ns/a/sa/b\0",
        ] {
            assert!(WorkloadIdentity::from_spiffe_id(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn the_own_domain_comes_first() {
        let domain = |text| TrustDomain::new(text).expect("valid");
        let bundle = TrustBundle {
            own: domain("cluster.local"),
            aliases: vec![domain("old.example"), domain("a.example")],
        };
        let domains: Vec<_> = bundle.domains().map(TrustDomain::as_str).collect();
        assert_eq!(domains, ["cluster.local", "old.example", "a.example"]);
        let alone = TrustBundle::without_aliases(domain("cluster.local"));
        assert_eq!(alone.domains().count(), 1);
    }
}
