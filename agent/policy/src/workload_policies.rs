//! Everything that decides who may reach a workload.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::authorization::{Action, AuthorizationPolicy, Enforcement, Rule};
use super::decision::Decider;
use super::peer_authentication::Strictness;
use super::request_authentication::{JwtRule, RequestAuthentication};
use ambit_model::{ObjectName, PolicyKind};

/// The policies of a workload, resolved. Equal ones share a set in the kernel.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct WorkloadPolicies {
    pub(super) strictness: Strictness,
    pub(super) policies: Vec<Attached>,
    /// What tokens of requests have to satisfy.
    pub(super) token_rules: Vec<AttachedTokenRules>,
    /// Objects that select the workload and cannot be enforced: all is refused.
    pub(super) not_enforced: Vec<Decider>,
    /// Ports whose bytes are HTTP, as the workload's Services declare them.
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
    /// All of them.
    All,
    /// The target ports of the Services that the policy refers to.
    These(BTreeSet<u16>),
}

impl WorkloadPolicies {
    /// Whether the bytes that a port takes are HTTP requests, each of which is judged where a policy
    /// depends on it. What other ports carry is opaque.
    pub fn carries_http(&self, port: u16) -> bool {
        self.http_ports.contains(&port)
    }

    /// The rules that the tokens of requests to a port have to satisfy: all that apply, together.
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

    /// Whether a policy depends on what a request says, where a port carries requests. An external
    /// authorizer always may.
    pub(super) fn depends_on_requests(&self) -> bool {
        let mut policies = self.policies.iter().map(|attached| &attached.policy);
        let depends = policies.any(|policy| {
            policy.action == Action::Custom || policy.rules.iter().any(Rule::depends_on_request)
        });
        depends || !self.token_rules.is_empty()
    }

    /// Whether the CUSTOM policies of a port name more than one external authorizer. Istio does not
    /// combine authorizers unless it is told to (PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS): it
    /// refuses what such policies match.
    pub(super) fn names_several_providers(&self, port: u16) -> bool {
        let policies = self.enforced(Action::Custom, port);
        let mut providers = policies.map(|attached| &attached.policy.provider);
        let first = providers.next();
        providers.any(|provider| Some(provider) != first)
    }

    /// The policies of an action that apply to a port and decide.
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

    /// A rule of it, or all of it, as what decides.
    pub(super) fn decider(&self, rule: Option<usize>) -> Decider {
        Decider {
            kind: PolicyKind::AuthorizationPolicy,
            name: self.name.clone(),
            rule,
        }
    }
}

impl AttachedPorts {
    /// Whether there is a port that both include.
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
