//! The kernel's form of a workload's policies: bit vectors, one bit for each alternative.
//!
//! An alternative is a source and an operation of a rule: a conjunction over identity, source
//! address and port. PeerAuthentication becomes DENY alternatives for callers without identity.

use std::collections::BTreeSet;
use std::sync::Arc;

use ambit_common::{
    Address, Bitmap, Judgement, MAX_ALTERNATIVES, MESH_PREFIX_BITS, PolicySetHeader, SetMode, judge,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::authorization::{Action, Authorization, Operation, Source};
use super::decision::{Attributes, Decider};
use super::matcher::Field;
use super::workload_policies::WorkloadPolicies;
use crate::model::{ObjectName, PolicyKind, WorkloadIdentity};

/// A policy set as the kernel has it.
#[derive(Clone, Debug)]
pub struct CompiledSet {
    /// What does not depend on a dimension's value.
    pub header: PolicySetHeader,
    /// What decided, by alternative.
    pub deciders: Vec<Decider>,
    /// Ports that an alternative names.
    pub ports: Vec<(u16, Bitmap)>,
    /// Source prefixes (address, bits), of which the longest that matches counts. There is one for
    /// all addresses.
    pub sources: Vec<(Address, u8, Bitmap)>,
    /// The same, for destination addresses.
    pub destinations: Vec<(Address, u8, Bitmap)>,
    alternatives: Vec<Alternative>,
}

#[derive(Clone, Debug)]
struct Alternative {
    decider: Decider,
    action: Action,
    peer: Peer,
    ports: Field<u16>,
}

/// Who may be calling.
#[derive(Clone, Debug)]
enum Peer {
    Anyone,
    Unidentified,
    Source(Arc<Authorization>, usize, usize),
}

impl WorkloadPolicies {
    /// Compiles the policies. What does not fit the tables is asked of userspace.
    pub fn compile(&self) -> CompiledSet {
        if !self.not_enforced.is_empty() {
            return CompiledSet::without_tables(SetMode::Refuse);
        }
        if self.count() > MAX_ALTERNATIVES {
            return CompiledSet::without_tables(SetMode::Ask);
        }
        CompiledSet::new(self.alternatives(), self.has_allow())
    }

    /// How many alternatives there are, before any is made.
    fn count(&self) -> usize {
        let rules = self.policies.iter().flat_map(|(_, policy)| &policy.rules);
        let of_rules =
            rules.map(|rule| rule.from.len().max(1).saturating_mul(rule.to.len().max(1)));
        of_rules.fold(self.strictness.ports.len() + 1, usize::saturating_add)
    }

    fn alternatives(&self) -> Vec<Alternative> {
        let mut all = Vec::new();
        self.add_strictness(&mut all);
        for (name, policy) in &self.policies {
            add_policy(&mut all, name, policy);
        }
        all
    }

    fn add_strictness(&self, all: &mut Vec<Alternative>) {
        let mut add = |decider: &Decider, ports: Field<u16>| {
            all.push(Alternative {
                decider: decider.clone(),
                action: Action::Deny,
                peer: Peer::Unidentified,
                ports,
            });
        };
        if let Some(decider) = &self.strictness.base {
            let others = self.strictness.ports.keys().copied().collect();
            add(
                decider,
                Field {
                    positive: Vec::new(),
                    negative: others,
                },
            );
        }
        for (&port, strict) in &self.strictness.ports {
            if let Some(decider) = strict {
                add(
                    decider,
                    Field {
                        positive: vec![port],
                        negative: Vec::new(),
                    },
                );
            }
        }
    }
}

fn add_policy(all: &mut Vec<Alternative>, name: &ObjectName, policy: &Arc<Authorization>) {
    let anything = [Operation::default()];
    for (index, rule) in policy.rules.iter().enumerate() {
        let peers: Vec<Peer> = match rule.from.len() {
            0 => vec![Peer::Anyone],
            count => (0..count)
                .map(|n| Peer::Source(Arc::clone(policy), index, n))
                .collect(),
        };
        let operations = if rule.to.is_empty() {
            &anything[..]
        } else {
            &rule.to
        };
        for peer in peers {
            for operation in operations {
                all.push(Alternative {
                    decider: Decider {
                        kind: PolicyKind::AuthorizationPolicy,
                        name: name.clone(),
                        rule: Some(index),
                    },
                    action: policy.action,
                    peer: peer.clone(),
                    ports: operation.ports.clone(),
                });
            }
        }
    }
}

impl Peer {
    fn source(&self) -> Option<&Source> {
        match self {
            Self::Anyone | Self::Unidentified => None,
            Self::Source(policy, rule, source) => policy.rules.get(*rule)?.from.get(*source),
        }
    }

    fn admits_identity(&self, identity: Option<&WorkloadIdentity>) -> bool {
        match self {
            Self::Anyone => true,
            Self::Unidentified => identity.is_none(),
            Self::Source(..) => self.source().is_some_and(|s| s.admits_identity(identity)),
        }
    }
}

impl CompiledSet {
    fn without_tables(mode: SetMode) -> Self {
        let mut set = Self::new(Vec::new(), false);
        set.header.mode = mode as u8;
        set
    }

    fn new(alternatives: Vec<Alternative>, has_allow: bool) -> Self {
        let matching = |test: &dyn Fn(&Alternative) -> bool| bitmap(&alternatives, test);
        let named: BTreeSet<u16> = alternatives
            .iter()
            .flat_map(|a| a.ports.positive.iter().chain(&a.ports.negative).copied())
            .collect();
        let header = PolicySetHeader {
            deny: matching(&|a| a.action == Action::Deny),
            deny_ask: Bitmap::EMPTY,
            allow: matching(&|a| a.action == Action::Allow),
            allow_ask: Bitmap::EMPTY,
            other_ports: matching(&|a| a.ports.positive.is_empty()),
            mode: SetMode::Tables as u8,
            has_allow: has_allow.into(),
            zero: [0; 6],
        };
        let ports = named
            .into_iter()
            .map(|port| (port, matching(&|a| a.ports.admits_port(port))))
            .collect();
        let everything = (Address::UNSPECIFIED, 0, matching(&|_| true));
        Self {
            header,
            deciders: alternatives.iter().map(|a| a.decider.clone()).collect(),
            ports,
            sources: sources(&alternatives),
            destinations: vec![everything],
            alternatives,
        }
    }

    /// The alternatives that a peer satisfies.
    pub fn identity_bits(&self, identity: Option<&WorkloadIdentity>) -> Bitmap {
        bitmap(&self.alternatives, &|a| a.peer.admits_identity(identity))
    }

    /// Judges a connection as the kernel does.
    pub fn judge(&self, connection: &Attributes) -> Judgement {
        let port = connection.destination.port();
        let listed = self.ports.iter().find(|(own, _)| *own == port);
        judge(
            &self.header,
            &self.identity_bits(connection.identity.as_ref()),
            &longest(&self.sources, connection.source.into()),
            &longest(&self.destinations, connection.destination.ip().into()),
            listed.map_or(&self.header.other_ports, |(_, bits)| bits),
        )
    }
}

fn bitmap(alternatives: &[Alternative], test: &dyn Fn(&Alternative) -> bool) -> Bitmap {
    let mut bits = Bitmap::EMPTY;
    for (number, alternative) in alternatives.iter().enumerate() {
        if test(alternative) {
            bits.insert(number);
        }
    }
    bits
}

/// A prefix for each block that an alternative names, and one for all other addresses of each
/// family: within a prefix, and outside the longer ones, all addresses are alike. IPv4 lies inside
/// `::/0` in the one form of addresses, so it always has a prefix of its own.
fn sources(alternatives: &[Alternative]) -> Vec<(Address, u8, Bitmap)> {
    let blocks = alternatives
        .iter()
        .filter_map(|a| Some(&a.peer.source()?.blocks));
    let named = blocks.flat_map(|b| b.positive.iter().chain(&b.negative).copied());
    let all = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
    let prefixes: BTreeSet<IpNet> = named.chain(all).collect();
    let bits = |net: &IpNet| {
        bitmap(alternatives, &|a| {
            a.peer
                .source()
                .is_none_or(|source| admits_prefix(&source.blocks, net))
        })
    };
    prefixes
        .iter()
        .map(|net| (net.network().into(), prefix_bits(net), bits(net)))
        .collect()
}

/// Whether the addresses of a prefix that are in no longer one are admitted: those blocks matter
/// that cover the whole prefix.
fn admits_prefix(blocks: &Field<IpNet>, prefix: &IpNet) -> bool {
    blocks.admits(Some(prefix), |block, prefix| block.contains(prefix))
}

fn prefix_bits(net: &IpNet) -> u8 {
    match net {
        IpNet::V4(_) => 96 + net.prefix_len(),
        IpNet::V6(_) => net.prefix_len(),
    }
}

fn longest(prefixes: &[(Address, u8, Bitmap)], address: Address) -> Bitmap {
    let covering = prefixes
        .iter()
        .filter(|(prefix, bits, _)| covers(*prefix, *bits, address));
    let longest = covering.max_by_key(|(_, bits, _)| *bits);
    longest.map_or(Bitmap::EMPTY, |(_, _, bits)| *bits)
}

fn covers(prefix: Address, bits: u8, address: Address) -> bool {
    let number = |address: Address| u128::from_be_bytes(address.octets());
    let differing = number(prefix) ^ number(address);
    bits == 0 || differing >> (MESH_PREFIX_BITS - u32::from(bits)) == 0
}
