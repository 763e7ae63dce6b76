//! The table of destinations: what the connect hook sends to the proxy.
//!
//! A connect to an address in the mesh's ranges goes to the proxy, unless an entry exempts the address. A
//! connect to an address outside the ranges goes on, unless an entry protects the address. If an entry cannot
//! be written, no connect may go on that has to go to the proxy. So a change is made in this order, and
//! continues after an error:
//!
//! 1. Exemptions that end are deleted. That needs no room. What applies to the address then is never looser:
//!    the range, another exemption, or nothing.
//! 2. Entries that protect are added. If there is no room, an exemption is given up for them.
//! 3. Entries that are no longer needed are deleted.
//! 4. Exemptions are added. Without its exemption, an address is called through the proxy, which knows from
//!    the same objects that it has to call the address in plaintext.
//!
//! The kernel's trie replaces a node by changing one pointer, and frees the old node after a grace period. So
//! a look-up sees either the old or the new class, and never misses an entry that exists throughout.

mod prefix;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;

use ambit_common::{Address, MeshClass};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError};
use ipnet::IpNet;

use self::prefix::{Classes, Prefix, Unprotected, is_exemption, needed};
use crate::error::{Failures, removed};
use crate::{DatapathError, Pins};

const MAP: &str = "MESH";

/// After this many failures in a row, no further exemptions are tried.
const FAILED_EXEMPTIONS: usize = 64;

/// The kernel's trie, or one of a test.
trait PrefixMap {
    fn insert(&mut self, prefix: Prefix, class: u8) -> Result<(), DatapathError>;

    /// Removes an entry, if it exists.
    fn remove(&mut self, prefix: Prefix) -> Result<(), DatapathError>;
}

impl PrefixMap for LpmTrie<MapData, Address, u8> {
    fn insert(&mut self, prefix: Prefix, class: u8) -> Result<(), DatapathError> {
        Self::insert(self, &Key::new(prefix.bits, prefix.address), class, 0)
            .map_err(DatapathError::map(MAP, "written"))
    }

    fn remove(&mut self, prefix: Prefix) -> Result<(), DatapathError> {
        let outcome: Result<(), MapError> =
            Self::remove(self, &Key::new(prefix.bits, prefix.address));
        removed(outcome, MAP)
    }
}

/// How the kernel's table of destinations differs from what it should be. The next change tries to correct all
/// of it.
#[derive(Debug, thiserror::Error)]
#[error(
    "the kernel's table of destinations is incomplete ({}). Destinations that must go through the \
     proxy and bypass it in plaintext: {passing}{}. Destinations that could be called directly and go \
     through the proxy: {detours}",
    .cause.as_ref().map_or_else(|| "no error".to_owned(), DatapathError::to_string),
    .example.as_ref().map(|net| format!(", such as {net}")).unwrap_or_default()
)]
pub struct MeshFault {
    cause: Option<DatapathError>,
    /// The number of entries that let calls leave in plaintext that must not.
    passing: usize,
    /// One of them.
    example: Option<Prefix>,
    /// The number of exemptions that are not in force.
    detours: usize,
}

impl MeshFault {
    /// Whether calls leave in plaintext that must not.
    pub fn lets_pass(&self) -> bool {
        self.passing > 0
    }
}

/// The kernel's table of destinations, and its contents.
#[derive(Debug)]
pub struct MeshTable(TrackedMap<LpmTrie<MapData, Address, u8>>);

impl MeshTable {
    /// Opens the table, with what an earlier agent left in it.
    ///
    /// # Errors
    /// [`DatapathError::Map`] if it cannot be read.
    pub fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Self::of(pins.trie(MAP)?)
    }

    fn of(map: LpmTrie<MapData, Address, u8>) -> Result<Self, DatapathError> {
        let mut written = Classes::new();
        for entry in map.iter() {
            let (key, class) = entry.map_err(DatapathError::map(MAP, "read"))?;
            let prefix = Prefix {
                bits: key.prefix_len(),
                address: key.data(),
            };
            written.insert(prefix, class);
        }
        Ok(Self(TrackedMap { map, written }))
    }

    /// Makes the table say `classes`, as far as possible. The module's documentation has the order.
    ///
    /// # Errors
    /// [`MeshFault`] says what could not be done.
    pub fn replace(&mut self, classes: &[(IpNet, MeshClass)]) -> Result<(), MeshFault> {
        self.0.replace(&needed(classes))
    }
}

/// A map, and its contents.
#[derive(Debug)]
struct TrackedMap<M> {
    map: M,
    written: Classes,
}

impl<M: PrefixMap> TrackedMap<M> {
    fn replace(&mut self, wanted: &Classes) -> Result<(), MeshFault> {
        let mut failures = Failures::default();
        self.tighten(wanted, &mut failures);
        if !self.passing(wanted).is_empty() {
            // What has been deleted since has made room.
            self.tighten(wanted, &mut failures);
        }
        self.exempt(wanted, &mut failures);
        self.compare(wanted, failures)
    }

    fn compare(&self, wanted: &Classes, failures: Failures) -> Result<(), MeshFault> {
        if self.written == *wanted {
            return Ok(());
        }
        let passing = self.passing(wanted);
        let is_missing = |&(prefix, class): &(&Prefix, &u8)| {
            is_exemption(*class) && self.written.get(prefix) != Some(class)
        };
        Err(MeshFault {
            cause: failures.into_first(),
            passing: passing.len(),
            example: passing.first().copied(),
            detours: wanted.iter().filter(is_missing).count(),
        })
    }

    /// Returns the entries that let connects go on that have to go to the proxy.
    fn passing(&self, wanted: &Classes) -> Vec<Prefix> {
        let is_wanted = |prefix: &Prefix, exemption: bool| {
            let class = wanted.get(prefix);
            class.is_some_and(|&class| is_exemption(class) == exemption)
        };
        let unprotected = wanted.iter().filter(|&(prefix, class)| {
            is_wanted(prefix, false) && self.written.get(prefix) != Some(class)
        });
        let exempted = self
            .written
            .iter()
            .filter(|&(prefix, &class)| is_exemption(class) && !wanted.contains_key(prefix));
        unprotected
            .chain(exempted)
            .map(|(&prefix, _)| prefix)
            .collect()
    }

    fn tighten(&mut self, wanted: &Classes, failures: &mut Failures) {
        self.withdraw_exemptions(wanted, failures);
        self.protect(wanted, failures);
        self.drop_others(wanted, failures);
    }

    fn withdraw_exemptions(&mut self, wanted: &Classes, failures: &mut Failures) {
        let is_over = |(&prefix, &class): (&Prefix, &u8)| {
            let stays = wanted.get(&prefix).is_some_and(|&now| is_exemption(now));
            (is_exemption(class) && !stays).then_some(prefix)
        };
        let over: Vec<_> = self.written.iter().filter_map(is_over).collect();
        for prefix in over {
            failures.note(self.remove(prefix));
        }
    }

    /// Adds entries that protect, shorter prefixes first.
    fn protect(&mut self, wanted: &Classes, failures: &mut Failures) {
        let mut room = None;
        for (&prefix, &class) in wanted {
            if is_exemption(class) || self.written.get(&prefix) == Some(&class) {
                continue;
            }
            let mut outcome = self.insert(prefix, class);
            if let Err(error) = outcome {
                let room = room.get_or_insert_with(|| Expendable::new(&self.written, wanted));
                outcome = self.insert_instead(room, prefix, class, error);
            }
            failures.note(outcome);
        }
    }

    /// Inserts an entry in the place of another one.
    fn insert_instead(
        &mut self,
        room: &mut Expendable,
        prefix: Prefix,
        class: u8,
        error: DatapathError,
    ) -> Result<(), DatapathError> {
        let Some(given_up) = room.next(&error) else {
            return Err(error);
        };
        self.remove(given_up)?;
        let outcome = self.insert(prefix, class);
        room.is_of_use = outcome.is_ok();
        outcome
    }

    /// Removes entries that are not wanted, unless they protect an address that is not protected otherwise,
    /// for example below an exemption that could not be withdrawn.
    fn drop_others(&mut self, wanted: &Classes, failures: &mut Failures) {
        let unprotected = Unprotected::new(&self.written, wanted);
        let is_over = |prefix: &Prefix| {
            let protects = unprotected.cover(*prefix) || unprotected.lie_within(*prefix);
            !wanted.contains_key(prefix) && !protects
        };
        let others: Vec<_> = self.written.keys().copied().filter(is_over).collect();
        for prefix in others {
            failures.note(self.remove(prefix));
        }
    }

    /// Adds exemptions, unless they would exempt an address that could not be protected.
    fn exempt(&mut self, wanted: &Classes, failures: &mut Failures) {
        let unprotected = Unprotected::new(&self.written, wanted);
        let mut failed_in_a_row = 0;
        for (&prefix, &class) in wanted {
            if !is_exemption(class)
                || self.written.get(&prefix) == Some(&class)
                || unprotected.lie_within(prefix)
            {
                continue;
            }
            if failures.note(self.insert(prefix, class)) {
                failed_in_a_row = 0;
            } else {
                failed_in_a_row += 1;
            }
            if failed_in_a_row == FAILED_EXEMPTIONS {
                break;
            }
        }
    }

    fn insert(&mut self, prefix: Prefix, class: u8) -> Result<(), DatapathError> {
        self.map.insert(prefix, class)?;
        self.written.insert(prefix, class);
        Ok(())
    }

    fn remove(&mut self, prefix: Prefix) -> Result<(), DatapathError> {
        self.map.remove(prefix)?;
        self.written.remove(&prefix);
        Ok(())
    }
}

/// Entries that may be given up for one that has to be written: first exemptions of single addresses, which the
/// proxy also knows, then those of ranges, and then, if the map is full, entries that are not wanted.
struct Expendable {
    exemptions: std::vec::IntoIter<Prefix>,
    others: std::vec::IntoIter<Prefix>,
    /// Whether giving up the last one helped.
    is_of_use: bool,
}

impl Expendable {
    fn new(written: &Classes, wanted: &Classes) -> Self {
        let (mut exemptions, mut others) = (Vec::new(), Vec::new());
        for (&prefix, &class) in written {
            let now = wanted.get(&prefix);
            if now.is_some_and(|&now| !is_exemption(now)) {
                continue;
            }
            if is_exemption(class) {
                exemptions.push((class, Reverse(prefix.bits), prefix));
            } else {
                others.push(prefix);
            }
        }
        exemptions.sort();
        let exemptions: Vec<_> = exemptions.into_iter().map(|(.., prefix)| prefix).collect();
        Self {
            exemptions: exemptions.into_iter(),
            others: others.into_iter(),
            is_of_use: true,
        }
    }

    /// Returns the next entry to give up after this error.
    fn next(&mut self, error: &DatapathError) -> Option<Prefix> {
        if !self.is_of_use {
            return None;
        }
        let exemption = self.exemptions.next();
        exemption.or_else(|| error.is_full().then(|| self.others.next()).flatten())
    }
}
