//! The policies that apply to a workload.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::authorization::{Action, AuthorizationPolicy, Enforcement, Rule};
use super::decision::Decider;
use super::peer_authentication::Strictness;
use super::request_authentication::{JwtRule, RequestAuthentication};
use ambit_model::{ObjectName, PolicyKind};

/// The policies that apply to a workload. Workloads with equal policies share a policy set in the
/// kernel.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct WorkloadPolicies {
    pub(super) strictness: Strictness,
    pub(super) policies: Vec<Attached>,
    /// The rules for the tokens of requests.
    pub(super) token_rules: Vec<AttachedTokenRules>,
    /// Objects that select the workload and cannot be enforced. If there is one, everything is refused.
    pub(super) not_enforced: Vec<Decider>,
    /// The ports that carry HTTP, as the workload's Services declare them.
    pub(super) http_ports: BTreeSet<u16>,
}

/// An AuthorizationPolicy as it is attached to a workload.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Attached {
    pub(super) name: ObjectName,
    pub(super) ports: AttachedPorts,
    pub(super) policy: Arc<AuthorizationPolicy>,
}

/// A RequestAuthentication as it is attached to a workload.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct AttachedTokenRules {
    pub(super) ports: AttachedPorts,
    pub(super) authentication: Arc<RequestAuthentication>,
}

/// The ports of a workload that a policy applies to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum AttachedPorts {
    /// Every port.
    All,
    /// The target ports of the Services that the policy refers to.
    These(BTreeSet<u16>),
}

impl WorkloadPolicies {
    /// Whether a port carries HTTP requests, each of which is judged if a policy depends on it. The
    /// bytes of other ports are opaque.
    pub fn carries_http(&self, port: u16) -> bool {
        self.http_ports.contains(&port)
    }

    /// The rules for the tokens of requests to a port, from all RequestAuthentications that apply.
    pub fn jwt_rules(&self, port: u16) -> Cow<'_, [JwtRule]> {
        let attached = self.token_rules.iter();
        let mut attached = attached.filter(|one| one.ports.include(port));
        let first = attached
            .next()
            .map_or(&[][..], |one| &one.authentication.rules);
        let mut all = Cow::Borrowed(first);
        for one in attached {
            all.to_mut().extend_from_slice(&one.authentication.rules);
        }
        all
    }

    /// Whether a policy depends on requests, on ports that carry them. A CUSTOM policy always does,
    /// because its authorizer may.
    pub(super) fn depends_on_requests(&self) -> bool {
        let mut policies = self.policies.iter().map(|attached| &attached.policy);
        let depends = policies.any(|policy| {
            policy.action == Action::Custom || policy.rules.iter().any(Rule::depends_on_request)
        });
        depends || !self.token_rules.is_empty()
    }

    /// Whether the CUSTOM policies of a port name more than one provider. Istio does not combine
    /// providers unless PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS is set: it refuses what these
    /// policies match.
    pub(super) fn names_several_providers(&self, port: u16) -> bool {
        let policies = self.enforced(Action::Custom, port);
        let mut providers = policies.map(|attached| &attached.policy.provider);
        let first = providers.next();
        providers.any(|provider| Some(provider) != first)
    }

    /// The enforced policies with an action that apply to a port.
    pub(super) fn enforced(&self, action: Action, port: u16) -> impl Iterator<Item = &Attached> {
        self.policies
            .iter()
            .filter(move |attached| attached.is_enforced(action) && attached.ports.include(port))
    }
}

impl Attached {
    pub(super) fn is_enforced(&self, action: Action) -> bool {
        self.policy.action == action && self.policy.enforcement == Enforcement::Enforced
    }

    /// The policy, or one of its rules, as a decider.
    pub(super) fn decider(&self, rule: Option<usize>) -> Decider {
        Decider {
            kind: PolicyKind::AuthorizationPolicy,
            name: self.name.clone(),
            rule,
        }
    }
}

impl AttachedPorts {
    /// Whether both include a common port.
    pub(super) fn meet(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => true,
            (Self::These(ports), Self::These(others)) => !ports.is_disjoint(others),
        }
    }

    pub(super) fn include(&self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::These(ports) => ports.contains(&port),
        }
    }
}
