//! Tables of the kernel that are not up to date. Each is written again until it is, and the node is not
//! ready meanwhile.

use std::collections::BTreeMap;

use super::leftovers::LeftoverError;
use ambit_datapath::{DatapathError, MeshFault};
use ambit_model::Fault;

/// A table, or group of tables.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum KernelTable {
    /// The table of destinations.
    Destinations,
    /// The policy tables: sets that are out of use are still there.
    Policies,
    /// The table of pods: pods that are not enrolled are still there.
    Pods,
}

impl KernelTable {
    fn subject(self) -> &'static str {
        match self {
            Self::Destinations => "the kernel's table of destinations",
            Self::Policies => "the kernel's policy tables",
            Self::Pods => "the kernel's table of pods",
        }
    }
}

/// The current faults.
#[derive(Default)]
pub(super) struct KernelFaults(BTreeMap<KernelTable, Fault>);

/// Why a table is not up to date, and whether that is safe.
pub(super) trait TableError: std::error::Error {
    /// Whether the table can only be stricter than it should be.
    fn is_safe(&self) -> bool;
}

impl TableError for MeshFault {
    fn is_safe(&self) -> bool {
        !self.lets_pass()
    }
}

impl TableError for DatapathError {
    fn is_safe(&self) -> bool {
        true
    }
}

impl TableError for LeftoverError {
    fn is_safe(&self) -> bool {
        true
    }
}

impl KernelFaults {
    /// Notes whether a table could be brought up to date. Changes are logged.
    pub(super) fn note<E: TableError>(&mut self, table: KernelTable, outcome: Result<(), E>) {
        let Err(error) = outcome else {
            if self.0.remove(&table).is_some() {
                tracing::info!(table = table.subject(), "up to date again");
            }
            return;
        };
        let fault = Fault {
            subject: table.subject().to_owned(),
            message: format!("It could not be brought up to date, and is tried again: {error}"),
            last_good_in_force: error.is_safe(),
        };
        if self.0.get(&table) != Some(&fault) {
            tracing::error!(table = table.subject(), %error, "not up to date; it is tried again");
            self.0.insert(table, fault);
        }
    }

    /// Whether a table is not up to date.
    pub(super) fn concern(&self, table: KernelTable) -> bool {
        self.0.contains_key(&table)
    }

    /// All of them.
    pub(super) fn list(&self) -> Vec<Fault> {
        self.0.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_stays_until_it_is_resolved() {
        let mut faults = KernelFaults::default();
        faults.note(KernelTable::Pods, Err(DatapathError::NoSlot));
        faults.note(KernelTable::Policies, Ok::<_, DatapathError>(()));
        assert!(faults.concern(KernelTable::Pods) && !faults.concern(KernelTable::Policies));
        assert_eq!(faults.list().len(), 1);
        faults.note(KernelTable::Pods, Ok::<_, DatapathError>(()));
        assert!(faults.list().is_empty());
    }
}
