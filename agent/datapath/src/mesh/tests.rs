//! Whatever fails, no connect that has to go to the proxy bypasses it for longer than before.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use ambit_common::MeshClass::{self, NotOptedIn, Outside, Proxy};
use aya::maps::MapError;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::sys::SyscallError;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::testing::is_root;

const NO_PREALLOC: u32 = 1;

/// A trie with limited room, some of whose writes fail. It remembers each of its states.
struct Fallible {
    entries: Classes,
    capacity: usize,
    /// Which of the next writes fail. Later ones succeed.
    failures: std::vec::IntoIter<bool>,
    states: Vec<Classes>,
}

impl Fallible {
    fn table(entries: Classes, capacity: usize, failures: Vec<bool>) -> TrackedMap<Self> {
        let map = Self {
            entries: entries.clone(),
            capacity,
            failures: failures.into_iter(),
            states: Vec::new(),
        };
        TrackedMap {
            map,
            written: entries,
        }
    }

    fn attempt(&mut self) -> Result<(), DatapathError> {
        if self.failures.next().unwrap_or(false) {
            return Err(DatapathError::map(MAP, "written")(MapError::KeyNotFound));
        }
        Ok(())
    }
}

impl PrefixMap for Fallible {
    fn insert(&mut self, prefix: Prefix, class: u8) -> Result<(), DatapathError> {
        self.attempt()?;
        // Before Linux 6.13, a full trie does not even take an entry that replaces an old one.
        if self.entries.len() >= self.capacity {
            let full = SyscallError {
                call: "bpf_map_update_elem",
                io_error: io::Error::from_raw_os_error(libc::ENOSPC),
            };
            return Err(DatapathError::map(MAP, "written")(full.into()));
        }
        self.entries.insert(prefix, class);
        self.states.push(self.entries.clone());
        Ok(())
    }

    fn remove(&mut self, prefix: Prefix) -> Result<(), DatapathError> {
        self.attempt()?;
        self.entries.remove(&prefix);
        self.states.push(self.entries.clone());
        Ok(())
    }
}

fn classes(of: &[(&str, MeshClass)]) -> Vec<(IpNet, MeshClass)> {
    let net = |text: &str| text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
    of.iter().map(|&(text, class)| (net(text), class)).collect()
}

/// Whether the connect hook sends an address to the proxy.
fn is_proxied(table: &Classes, address: IpAddr) -> bool {
    let whole = Prefix::from(&IpNet::from(address));
    let covering = table.iter().filter(|(prefix, _)| prefix.contains(whole));
    let longest = covering.max_by_key(|(prefix, _)| prefix.bits);
    longest.is_some_and(|(_, &class)| !is_exemption(class))
}

/// A few networks, so that they overlap: addresses, and ranges around them, of both IP versions.
fn net() -> impl Strategy<Value = IpNet> {
    let v4 = (0..4_u8, 0..4_u8, select(&[8, 24, 32][..]))
        .prop_map(|(a, b, bits)| IpNet::new(IpAddr::from([10, 0, a, b]), bits));
    let v6 = (0..2_u16, 0..4_u16, select(&[16, 112, 128][..]))
        .prop_map(|(a, b, bits)| IpNet::new(IpAddr::from([0xfd00, 0, 0, 0, 0, 0, a, b]), bits));
    prop_oneof![3 => v4, 1 => v6].prop_map(|net| net.expect("a prefix length").trunc())
}

fn mesh() -> impl Strategy<Value = Vec<(IpNet, MeshClass)>> {
    btree_map(net(), select(&[Proxy, NotOptedIn, Outside][..]), 0..12)
        .prop_map(|classes| classes.into_iter().collect())
}

fn addresses() -> impl Iterator<Item = IpAddr> {
    let v4 = (0..5).flat_map(|a| (0..5).map(move |b| IpAddr::from([10, 0, a, b])));
    let v6 = (0..3).flat_map(|a| (0..5).map(move |b| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, a, b])));
    v4.chain(v6).chain([IpAddr::from([192, 0, 2, 1])])
}

fn all(classes: &[(IpNet, MeshClass)]) -> Classes {
    let all = classes.iter();
    all.map(|(net, class)| (Prefix::from(net), *class as u8))
        .collect()
}

proptest! {
    #[test]
    fn what_is_left_out_makes_no_difference(mesh in mesh()) {
        for address in addresses() {
            let (whole, part) = (all(&mesh), needed(&mesh));
            prop_assert_eq!(is_proxied(&whole, address), is_proxied(&part, address), "{}", address);
        }
    }

    /// A table with enough room.
    #[test]
    fn a_change_never_lets_pass_what_is_proxied_before_and_after(
        before in mesh(), after in mesh(), failures in vec(prop::bool::weighted(0.3), 0..40),
    ) {
        let (before, wanted) = (needed(&before), needed(&after));
        let mut table = Fallible::table(before.clone(), usize::MAX, failures);
        let outcome = table.replace(&wanted);
        for address in addresses() {
            if is_proxied(&before, address) && is_proxied(&wanted, address) {
                for state in &table.map.states {
                    prop_assert!(is_proxied(state, address), "{} in {:?}", address, state);
                }
            }
        }
        prop_assert_eq!(outcome.is_ok(), table.map.entries == wanted);
        prop_assert_eq!(&table.map.entries, &table.written);
        let exposed = addresses().any(|address| {
            is_proxied(&wanted, address) && !is_proxied(&table.written, address)
        });
        let told = outcome.as_ref().is_err_and(MeshFault::lets_pass);
        prop_assert!(!exposed || told, "{:?}", outcome);
        // The next change corrects it.
        while table.map.failures.len() > 0 {
            let _ = table.replace(&wanted);
            table.map.failures.next();
        }
        table.replace(&wanted).expect("nothing fails any more");
        prop_assert_eq!(&table.map.entries, &wanted);
    }

    /// A table that an earlier agent left full, but with enough room for the entries that protect.
    #[test]
    fn a_full_table_protects_and_drains(before in mesh(), after in mesh(), spare in 0..3_usize) {
        let (before, wanted) = (all(&before), needed(&after));
        let protected = wanted.values().filter(|&&class| !is_exemption(class)).count();
        let capacity = before.len().max(protected) + spare;
        let mut table = Fallible::table(before, capacity, Vec::new());
        let outcome = table.replace(&wanted);
        for address in addresses() {
            if is_proxied(&wanted, address) {
                prop_assert!(is_proxied(&table.map.entries, address), "{}: {:?}", address, outcome);
            }
        }
        prop_assert!(table.written.keys().all(|prefix| wanted.contains_key(prefix)));
        prop_assert_eq!(outcome.is_ok(), table.written == wanted);
        prop_assert!(!outcome.is_err_and(|fault| fault.lets_pass()));
    }
}

#[test]
fn the_order_of_a_change() {
    let before = classes(&[
        ("10.0.0.0/8", Proxy),
        ("10.0.0.1/32", NotOptedIn),
        ("10.0.0.2/32", NotOptedIn),
        ("192.0.2.1/32", Proxy),
    ]);
    let after = classes(&[
        ("10.0.0.0/8", Proxy),
        ("10.0.0.1/32", Proxy),
        ("10.0.0.3/32", NotOptedIn),
        ("192.0.2.2/32", Proxy),
    ]);
    let mut table = Fallible::table(needed(&before), usize::MAX, Vec::new());
    table.replace(&needed(&after)).expect("room");
    let mut known = needed(&before);
    let mut steps = Vec::new();
    for state in &table.map.states {
        steps.extend(
            known
                .keys()
                .filter(|key| !state.contains_key(key))
                .map(|key| format!("-{key}")),
        );
        steps.extend(
            state
                .keys()
                .filter(|key| !known.contains_key(key))
                .map(|key| format!("+{key}")),
        );
        known.clone_from(state);
    }
    assert_eq!(
        steps,
        [
            "-10.0.0.1/32",
            "-10.0.0.2/32",
            "+192.0.2.2/32",
            "-192.0.2.1/32",
            "+10.0.0.3/32"
        ]
    );
}

#[test]
fn a_full_kernel_table_takes_exemptions_away() {
    if !is_root() {
        return;
    }
    const ROOM: u32 = 4;
    let map: LpmTrie<_, Address, u8> = LpmTrie::create(ROOM, NO_PREALLOC).expect("a map");
    let mut table = MeshTable::of(map).expect("reads");
    let mut mesh: BTreeMap<&str, MeshClass> = [
        ("10.0.0.0/8", Proxy),
        ("10.0.0.1/32", NotOptedIn),
        ("10.0.0.2/32", NotOptedIn),
        ("10.0.0.3/32", NotOptedIn),
    ]
    .into();
    let replace = |table: &mut MeshTable, mesh: &BTreeMap<&str, MeshClass>| {
        let mesh: Vec<_> = mesh.iter().map(|(&net, &class)| (net, class)).collect();
        table.replace(&classes(&mesh))
    };
    let class = |table: &MeshTable, address: &str| {
        let address: IpAddr = address.parse().expect("an address");
        let found = table.0.map.get(&Key::new(128, address.into()), 0);
        found.ok().and_then(MeshClass::from_u8)
    };
    replace(&mut table, &mesh).expect("room");

    // The table is full: what is opted in goes to the proxy immediately, and no more exemptions fit.
    mesh.extend([
        ("10.0.0.1/32", Proxy),
        ("10.0.0.4/32", NotOptedIn),
        ("10.0.0.5/32", NotOptedIn),
        ("192.0.2.1/32", Proxy),
    ]);
    let fault = replace(&mut table, &mesh).expect_err("no room");
    assert!(!fault.lets_pass(), "{fault}");
    assert_eq!(class(&table, "10.0.0.1"), Some(Proxy));
    assert_eq!(class(&table, "192.0.2.1"), Some(Proxy));

    // The table is full of entries that protect. One more does not fit, and is reported.
    mesh.extend([
        ("192.0.2.2/32", Proxy),
        ("192.0.2.3/32", Proxy),
        ("192.0.2.4/32", Proxy),
    ]);
    let fault = replace(&mut table, &mesh).expect_err("no room");
    assert!(
        fault.lets_pass() && fault.to_string().contains("192.0.2."),
        "{fault}"
    );
    for address in ["10.0.0.2", "10.0.0.3", "10.0.0.4", "192.0.2.2", "192.0.2.3"] {
        assert_eq!(class(&table, address), Some(Proxy), "{address}");
    }

    // A new agent finds the table full, and drains it.
    let TrackedMap { map, .. } = table.0;
    let mut table = MeshTable::of(map).expect("reads");
    let mesh = [("10.0.0.0/8", Proxy), ("10.0.0.9/32", NotOptedIn)].into();
    replace(&mut table, &mesh).expect("room");
    assert_eq!(class(&table, "10.0.0.9"), Some(NotOptedIn));
    assert_eq!(class(&table, "192.0.2.1"), None);
}
