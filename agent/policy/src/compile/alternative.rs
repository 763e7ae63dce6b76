//! The alternatives of a workload's policies: conjunctions over identity, source address, destination
//! address and port, each with the effect that it has if it matches.
//!
//! Criteria that depend on a request have no dimension in the kernel. On ports that carry HTTP, an
//! alternative with such a criterion leads to ASK. On other ports, the criterion means what it means
//! for opaque bytes. A rule with such a criterion therefore has alternatives for both kinds of ports.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;

use super::admits_prefix;
use crate::authorization::{Action, AuthorizationPolicy, Conjunction, Criterion, Rule};
use crate::decision::Decider;
use crate::matcher::Field;
use crate::workload_policies::{Attached, AttachedPorts, WorkloadPolicies};
use ambit_model::WorkloadIdentity;

/// The effect of an alternative that matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    Deny,
    /// The proxy has to decide, or there is something to note.
    Ask,
    Allow,
    /// It may be allowed: the proxy decides.
    AllowAsk,
}

/// A conjunction in the kernel's form: one bit of a bitmap.
#[derive(Clone, Debug)]
pub(super) struct Alternative {
    pub(super) effect: Effect,
    /// The decider of verdicts by this alternative; `None` if it is not of a rule.
    pub(super) decider: Option<Decider>,
    terms: Terms,
    ports: Vec<PortTerm>,
}

/// The criteria of an alternative on identities and addresses. They stay in their policy.
#[derive(Clone, Debug)]
enum Terms {
    Nothing,
    Unidentified,
    Rule {
        policy: Arc<AuthorizationPolicy>,
        rule: usize,
        conjunction: Conjunction,
        bytes: Bytes,
    },
}

/// A criterion of an alternative on ports. All of them have to hold.
#[derive(Clone, Debug)]
enum PortTerm {
    OneOf(BTreeSet<u16>),
    NoneOf(BTreeSet<u16>),
    Field(Field<u16>),
}

/// The kind of ports that an alternative of a rule is for, which determines what its criteria mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bytes {
    Any,
    Http,
    Opaque,
}

impl WorkloadPolicies {
    /// An upper bound of the number of alternatives, known before any is made.
    pub(super) fn alternative_count(&self) -> usize {
        let rules = self
            .policies
            .iter()
            .flat_map(|attached| &attached.policy.rules);
        let of_rules = rules.map(|rule| {
            let kinds = self.kinds_of_bytes(rule).len();
            rule.conjunction_count().saturating_mul(kinds)
        });
        let fixed = self.strictness.ports.len() + self.policies.len() + self.token_rules.len() + 2;
        of_rules.fold(fixed, usize::saturating_add)
    }

    pub(super) fn alternatives(&self) -> Vec<Alternative> {
        let mut all = self.strict_alternatives();
        for attached in &self.policies {
            self.add_policy(&mut all, attached);
        }
        all.extend(self.token_alternatives());
        all.extend(self.unrestricted_ports());
        all
    }

    /// RequestAuthentication: requests have to be read because of their tokens.
    fn token_alternatives(&self) -> impl Iterator<Item = Alternative> {
        let http = || PortTerm::OneOf(self.http_ports.clone());
        self.token_rules.iter().map(move |attached| Alternative {
            effect: Effect::Ask,
            decider: None,
            terms: Terms::Nothing,
            ports: ports_term(&attached.ports)
                .into_iter()
                .chain([http()])
                .collect(),
        })
    }

    /// PeerAuthentication: DENY for callers without an identity.
    fn strict_alternatives(&self) -> Vec<Alternative> {
        let alternative = |decider: &Decider, term| Alternative {
            effect: Effect::Deny,
            decider: Some(decider.clone()),
            terms: Terms::Unidentified,
            ports: vec![term],
        };
        let others: BTreeSet<u16> = self.strictness.ports.keys().copied().collect();
        let base = self.strictness.base.iter();
        let base = base.map(|decider| alternative(decider, PortTerm::NoneOf(others.clone())));
        let ports = self.strictness.ports.iter().filter_map(|(&port, strict)| {
            let term = PortTerm::OneOf(BTreeSet::from([port]));
            Some(alternative(strict.as_ref()?, term))
        });
        base.chain(ports).collect()
    }

    /// If every ALLOW policy applies to certain ports only, all other ports are allowed.
    fn unrestricted_ports(&self) -> Option<Alternative> {
        let mut restricted = BTreeSet::new();
        for attached in &self.policies {
            match &attached.ports {
                _ if !attached.is_enforced(Action::Allow) => {}
                AttachedPorts::All => return None,
                AttachedPorts::These(ports) => restricted.extend(ports),
            }
        }
        Some(Alternative {
            effect: Effect::Allow,
            decider: None,
            terms: Terms::Nothing,
            ports: vec![PortTerm::NoneOf(restricted)],
        })
    }

    fn add_policy(&self, all: &mut Vec<Alternative>, attached: &Attached) {
        let policy = &attached.policy;
        if attached.is_noted() && policy.action == Action::Allow {
            all.push(Alternative {
                effect: Effect::Ask,
                decider: Some(attached.decider(None)),
                terms: Terms::Nothing,
                ports: ports_term(&attached.ports).into_iter().collect(),
            });
            return;
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            for bytes in self.kinds_of_bytes(rule) {
                if *bytes == Bytes::Opaque && rule.is_void_for_opaque(policy.action) {
                    continue;
                }
                for conjunction in rule.conjunctions() {
                    all.push(self.rule_alternative(attached, index, conjunction, *bytes));
                }
            }
        }
    }

    fn kinds_of_bytes(&self, rule: &Rule) -> &'static [Bytes] {
        match (rule.depends_on_request(), self.http_ports.is_empty()) {
            (false, _) => &[Bytes::Any],
            (true, true) => &[Bytes::Opaque],
            (true, false) => &[Bytes::Http, Bytes::Opaque],
        }
    }

    fn rule_alternative(
        &self,
        attached: &Attached,
        index: usize,
        conjunction: Conjunction,
        bytes: Bytes,
    ) -> Alternative {
        let policy = &attached.policy;
        let criteria = || policy.rules[index].criteria(conjunction);
        let asks = bytes == Bytes::Http && criteria().any(Criterion::depends_on_request);
        let effect = match (policy.action, asks) {
            (Action::Allow, false) => Effect::Allow,
            (Action::Allow, true) => Effect::AllowAsk,
            (Action::Deny, false) if !attached.is_noted() => Effect::Deny,
            (Action::Deny | Action::Audit | Action::Custom, _) => Effect::Ask,
        };
        let http = || self.http_ports.clone();
        let of_bytes = match bytes {
            Bytes::Any => None,
            Bytes::Http => Some(PortTerm::OneOf(http())),
            Bytes::Opaque => Some(PortTerm::NoneOf(http())),
        };
        let of_rule = criteria().filter_map(|criterion| match criterion {
            Criterion::DestinationPort(field) => Some(PortTerm::Field(field.clone())),
            _ => None,
        });
        Alternative {
            effect,
            decider: Some(attached.decider(Some(index))),
            ports: of_rule
                .chain(of_bytes)
                .chain(ports_term(&attached.ports))
                .collect(),
            terms: Terms::Rule {
                policy: Arc::clone(policy),
                rule: index,
                conjunction,
                bytes,
            },
        }
    }
}

fn ports_term(ports: &AttachedPorts) -> Option<PortTerm> {
    match ports {
        AttachedPorts::All => None,
        AttachedPorts::These(ports) => Some(PortTerm::OneOf(ports.clone())),
    }
}

impl Alternative {
    pub(super) fn admits_identity(&self, identity: Option<&WorkloadIdentity>) -> bool {
        match &self.terms {
            Terms::Nothing => true,
            Terms::Unidentified => identity.is_none(),
            Terms::Rule { .. } => self.criteria().all(|one| one.admits_identity(identity)),
        }
    }

    /// Whether it admits a port. For ports that some alternative names.
    pub(super) fn admits_port(&self, port: u16) -> bool {
        self.ports.iter().all(|term| match term {
            PortTerm::OneOf(ports) => ports.contains(&port),
            PortTerm::NoneOf(ports) => !ports.contains(&port),
            PortTerm::Field(field) => field.admits_port(port),
        })
    }

    /// Whether it admits the ports that no alternative names.
    pub(super) fn admits_other_ports(&self) -> bool {
        self.ports.iter().all(|term| match term {
            PortTerm::OneOf(_) => false,
            PortTerm::NoneOf(_) => true,
            PortTerm::Field(field) => field.positive.is_empty(),
        })
    }

    /// The ports that it names.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        self.ports.iter().flat_map(|term| {
            let ports: Vec<u16> = match term {
                PortTerm::OneOf(ports) | PortTerm::NoneOf(ports) => ports.iter().copied().collect(),
                PortTerm::Field(field) => [&field.positive[..], &field.negative].concat(),
            };
            ports
        })
    }

    /// The number of comparisons that [`Self::admits_port`] takes.
    pub(super) fn port_comparisons(&self) -> usize {
        let of_term = |term: &PortTerm| match term {
            PortTerm::OneOf(_) | PortTerm::NoneOf(_) => 1,
            PortTerm::Field(field) => field.positive.len() + field.negative.len(),
        };
        1 + self.ports.iter().map(of_term).sum::<usize>()
    }

    /// Whether it admits the source addresses that are in a prefix and in no longer one.
    pub(super) fn admits_source(&self, prefix: &IpNet) -> bool {
        self.source_blocks()
            .all(|blocks| admits_prefix(blocks, prefix))
    }

    /// Whether it admits the destination addresses that are in a prefix and in no longer one.
    pub(super) fn admits_destination(&self, prefix: &IpNet) -> bool {
        self.destination_blocks()
            .all(|blocks| admits_prefix(blocks, prefix))
    }

    /// Its blocks of source addresses. For opaque bytes, the client's address is the source address; for
    /// HTTP it depends on the request.
    pub(super) fn source_blocks(&self) -> impl Iterator<Item = &Field<IpNet>> {
        let is_http = matches!(
            self.terms,
            Terms::Rule {
                bytes: Bytes::Http,
                ..
            }
        );
        self.criteria()
            .filter_map(move |criterion| match criterion {
                Criterion::SourceIp(blocks) => Some(blocks),
                Criterion::RemoteIp(blocks) if !is_http => Some(blocks),
                _ => None,
            })
    }

    pub(super) fn destination_blocks(&self) -> impl Iterator<Item = &Field<IpNet>> {
        self.criteria().filter_map(|criterion| match criterion {
            Criterion::DestinationIp(blocks) => Some(blocks),
            _ => None,
        })
    }

    fn criteria(&self) -> impl Iterator<Item = &Criterion> {
        let rule = match &self.terms {
            Terms::Nothing | Terms::Unidentified => None,
            Terms::Rule {
                policy,
                rule,
                conjunction,
                ..
            } => Some((&policy.rules[*rule], *conjunction)),
        };
        rule.into_iter()
            .flat_map(|(rule, conjunction)| rule.criteria(conjunction))
    }
}
