//! The kernel's form of a workload's policies: bit vectors, one bit for each alternative.

mod alternative;

use std::collections::BTreeSet;

use ambit_common::{
    Address, Bitmap, Judgement, MAX_ALTERNATIVES, MESH_PREFIX_BITS, PolicySetHeader, PolicySetId,
    SetMode, judge,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::decision::{ConnectionAttributes, Decider};
use super::matcher::Field;
use super::workload_policies::WorkloadPolicies;
use alternative::{Alternative, Effect};
use ambit_model::WorkloadIdentity;

/// The most comparisons of a value with a criterion that building a pod's tables may take: tens of
/// milliseconds, which 4,000 address blocks in one rule need.
const MOST_COMPARISONS: usize = 16 << 20;

/// The most ports that the alternatives of a pod may name in all, since each may repeat the HTTP ports:
/// a thousand alternatives of a workload with a thousand HTTP ports.
const MOST_REPEATED_PORTS: usize = 1 << 20;

/// A policy set as the kernel has it.
#[derive(Clone, Debug)]
pub struct CompiledSet {
    /// The part that does not depend on a dimension's value.
    pub header: PolicySetHeader,
    /// The ports that an alternative names.
    pub ports: Vec<(u16, Bitmap)>,
    /// Source prefixes (address, bits). The longest one that matches counts. Each address family has
    /// one that matches all of its addresses.
    pub sources: Vec<(Address, u8, Bitmap)>,
    /// Destination prefixes, likewise.
    pub destinations: Vec<(Address, u8, Bitmap)>,
    alternatives: Vec<Alternative>,
}

impl WorkloadPolicies {
    /// Compiles the policies. If they do not fit the tables, every verdict is ASK.
    pub fn compile(&self) -> CompiledSet {
        if !self.not_enforced.is_empty() {
            return CompiledSet::without_tables(SetMode::Refuse);
        }
        match self.fitting_alternatives() {
            Some(alternatives) => CompiledSet::new(alternatives),
            None => CompiledSet::without_tables(SetMode::Ask),
        }
    }

    /// Whether the policies fit the kernel's tables.
    pub(super) fn fit_tables(&self) -> bool {
        self.fitting_alternatives().is_some()
    }

    /// The alternatives, unless they are more than the tables hold or take too long to build.
    fn fitting_alternatives(&self) -> Option<Vec<Alternative>> {
        let count = self.alternative_count();
        // Each may repeat the workload's HTTP ports.
        let repeated = count.saturating_mul(self.http_ports.len());
        if count > MAX_ALTERNATIVES || repeated > MOST_REPEATED_PORTS {
            return None;
        }
        let alternatives = self.alternatives();
        (comparisons(&alternatives) <= MOST_COMPARISONS).then_some(alternatives)
    }
}

/// The number of comparisons that building the tables takes: each port and prefix that is named is
/// compared with each alternative.
fn comparisons(alternatives: &[Alternative]) -> usize {
    let ports: BTreeSet<u16> = alternatives.iter().flat_map(Alternative::ports).collect();
    let of_ports = alternatives.iter().map(Alternative::port_comparisons).sum();
    let sources = block_count(alternatives.iter().flat_map(Alternative::source_blocks));
    let destinations = alternatives
        .iter()
        .flat_map(Alternative::destination_blocks);
    let destinations = block_count(destinations);
    let products = [
        (ports.len(), of_ports),
        (sources, sources),
        (destinations, destinations),
    ];
    let products = products.map(|(one, other): (usize, usize)| one.saturating_mul(other));
    products.into_iter().fold(0, usize::saturating_add)
}

impl CompiledSet {
    fn without_tables(mode: SetMode) -> Self {
        let mut set = Self::new(Vec::new());
        set.header.mode = mode as u8;
        set
    }

    fn new(alternatives: Vec<Alternative>) -> Self {
        let matching = |test: &dyn Fn(&Alternative) -> bool| bitmap(&alternatives, test);
        let of_effect = |effect| matching(&|one| one.effect == effect);
        let named: BTreeSet<u16> = alternatives.iter().flat_map(Alternative::ports).collect();
        let ports = named
            .into_iter()
            .map(|port| (port, matching(&|one| one.admits_port(port))))
            .collect();
        let header = PolicySetHeader {
            deny: of_effect(Effect::Deny),
            deny_ask: of_effect(Effect::Ask),
            allow: of_effect(Effect::Allow),
            allow_ask: of_effect(Effect::AllowAsk),
            other_ports: matching(&Alternative::admits_other_ports),
            mode: SetMode::Tables as u8,
            // If no ALLOW policy applies, an alternative without a rule allows.
            has_allow: 1,
            zero: [0; 2],
            // The set gets its number when it is written.
            set: PolicySetId::NONE,
        };
        let sources = alternatives.iter().flat_map(Alternative::source_blocks);
        let destinations = alternatives
            .iter()
            .flat_map(Alternative::destination_blocks);
        Self {
            header,
            ports,
            sources: prefixes(sources, |net| matching(&|one| one.admits_source(net))),
            destinations: prefixes(destinations, |net| {
                matching(&|one| one.admits_destination(net))
            }),
            alternatives,
        }
    }

    /// The rule of an alternative; `None` if it has none.
    pub fn decider(&self, alternative: u32) -> Option<&Decider> {
        let number = usize::try_from(alternative).ok()?;
        self.alternatives.get(number)?.decider.as_ref()
    }

    /// The alternatives that a caller's identity satisfies.
    pub fn identity_bits(&self, identity: Option<&WorkloadIdentity>) -> Bitmap {
        bitmap(&self.alternatives, &|one| one.admits_identity(identity))
    }

    /// Judges a connection as the kernel does.
    pub fn judge(&self, connection: &ConnectionAttributes) -> Judgement {
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

/// The prefixes that blocks name, and one for all other addresses of each family. In the kernel's one
/// form of addresses IPv4 lies inside `::/0`, so it needs a prefix of its own.
///
/// All addresses that are in a prefix, and in no longer one of these, satisfy the same alternatives.
fn prefixes<'a>(
    blocks: impl Iterator<Item = &'a Field<IpNet>>,
    bits: impl Fn(&IpNet) -> Bitmap,
) -> Vec<(Address, u8, Bitmap)> {
    let named = blocks.flat_map(|field| field.positive.iter().chain(&field.negative).copied());
    let all = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
    let prefixes: BTreeSet<IpNet> = named.chain(all).collect();
    prefixes
        .iter()
        .map(|net| (net.network().into(), prefix_bits(net), bits(net)))
        .collect()
}

/// The number of blocks.
fn block_count<'a>(blocks: impl Iterator<Item = &'a Field<IpNet>>) -> usize {
    blocks
        .map(|field| field.positive.len() + field.negative.len())
        .sum()
}

/// Whether the addresses that are in a prefix and in no longer one are admitted. Only blocks that cover
/// the whole prefix matter.
pub(super) fn admits_prefix(blocks: &Field<IpNet>, prefix: &IpNet) -> bool {
    blocks.admits(Some(prefix), |block, prefix| block.contains(prefix))
}

/// The bitmap of the longest prefix that covers an address.
fn longest(prefixes: &[(Address, u8, Bitmap)], address: Address) -> Bitmap {
    let covering = prefixes
        .iter()
        .filter(|(prefix, bits, _)| covers(*prefix, *bits, address));
    let longest = covering.max_by_key(|(_, bits, _)| *bits);
    longest.map_or(Bitmap::EMPTY, |(_, _, bits)| *bits)
}

fn prefix_bits(net: &IpNet) -> u8 {
    match net {
        IpNet::V4(_) => 96 + net.prefix_len(),
        IpNet::V6(_) => net.prefix_len(),
    }
}

fn covers(prefix: Address, bits: u8, address: Address) -> bool {
    let number = |address: Address| u128::from_be_bytes(address.octets());
    let differing = number(prefix) ^ number(address);
    bits == 0 || differing >> (MESH_PREFIX_BITS - u32::from(bits)) == 0
}
