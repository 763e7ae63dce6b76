//! Programs of other software on the hooks that Ambit uses. Each of them can refuse or redirect what Ambit
//! allows, so `ambit check` and `ambit status` show them.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use aya::programs::{ProgramError, loaded_programs};
use serde::Serialize;

pub use crate::kernel::bpf::AttachPoint;
use crate::kernel::bpf::query_programs;
use crate::kernel::cgroup::{CgroupError, CgroupPath};
use crate::kernel::netns::NetnsHandle;

/// Why programs could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    /// The cgroup could not be opened.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The kernel did not list the programs of a hook.
    #[error("the programs attached to {} could not be listed: {source}", hook.as_str())]
    Query {
        /// The hook.
        hook: AttachPoint,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The kernel did not list its programs.
    #[error("the programs that the kernel has loaded could not be listed: {0}")]
    Programs(#[from] ProgramError),
}

/// A program that is not Ambit's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ForeignProgram {
    /// The kernel's id of the program.
    pub id: u32,
    /// Its name, at most 15 characters; often empty.
    pub name: String,
    /// The hook to which it is attached.
    pub hook: AttachPoint,
}

/// The prefix of the names of Ambit's programs.
const OWN_PREFIX: &str = "ambit_";

/// Returns the ids of the programs of all Ambit agents on this kernel. They are known by their names, which
/// other programs could have, too. So the result is only shown, and decides nothing.
///
/// # Errors
/// [`ForeignError::Programs`] without CAP_SYS_ADMIN.
pub fn own_programs() -> Result<BTreeSet<u32>, ForeignError> {
    let mut own = BTreeSet::new();
    for loaded in loaded_programs() {
        let loaded = loaded?;
        let name = loaded.name_as_str().unwrap_or_default();
        if name.starts_with(OWN_PREFIX) {
            own.insert(loaded.id());
        }
    }
    Ok(own)
}

/// Returns the programs that run for processes of `cgroup`, attached to it or to a cgroup above it, except those
/// whose ids are in `own`.
///
/// # Errors
/// [`ForeignError`] without CAP_NET_ADMIN, or CAP_SYS_ADMIN for the names.
pub fn foreign_programs_of_cgroup(
    cgroup: &CgroupPath,
    own: &BTreeSet<u32>,
) -> Result<Vec<ForeignProgram>, ForeignError> {
    foreign_programs(cgroup.open()?.as_fd(), &AttachPoint::CGROUP, own)
}

/// Returns the `sk_lookup` programs of a network namespace, except those whose ids are in `own`. A socket that one
/// of them selects overrides a refusal of Ambit's.
///
/// # Errors
/// As [`foreign_programs_of_cgroup`].
pub fn foreign_programs_of_netns(
    netns: &NetnsHandle,
    own: &BTreeSet<u32>,
) -> Result<Vec<ForeignProgram>, ForeignError> {
    foreign_programs(netns.as_fd(), &[AttachPoint::SkLookup], own)
}

fn foreign_programs(
    target: BorrowedFd<'_>,
    hooks: &[AttachPoint],
    own: &BTreeSet<u32>,
) -> Result<Vec<ForeignProgram>, ForeignError> {
    let mut programs = Vec::new();
    for &hook in hooks {
        let ids = query_programs(target, hook);
        let ids = ids.map_err(|source| ForeignError::Query { hook, source })?;
        let foreign = ids.into_iter().filter(|id| !own.contains(id));
        programs.extend(foreign.map(|id| ForeignProgram {
            id,
            name: String::new(),
            hook,
        }));
    }
    if !programs.is_empty() {
        name_programs(&mut programs)?;
    }
    Ok(programs)
}

fn name_programs(programs: &mut [ForeignProgram]) -> Result<(), ForeignError> {
    for loaded in loaded_programs() {
        let loaded = loaded?;
        for program in programs
            .iter_mut()
            .filter(|program| program.id == loaded.id())
        {
            program.name = loaded.name_as_str().unwrap_or_default().to_owned();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::kernel::bpf::{create_link, load_trivial_program};
    use crate::kernel::cgroup::CgroupMount;
    use crate::testing::{TestCgroup, fresh_netns, is_root};

    #[test]
    fn programs_of_a_cgroup_are_seen_below_it_too() {
        if !is_root() {
            return;
        }
        let mount = CgroupMount::find().expect("mounted");
        let outer = TestCgroup::make(&mount, "foreign");
        std::fs::create_dir(outer.0.path().join("pod")).expect("makes");
        let inner = TestCgroup(mount.cgroup(&outer.0.path().join("pod")).expect("a cgroup"));
        let before = foreign_programs_of_cgroup(&inner.0, &BTreeSet::new()).expect("lists");

        let program = load_trivial_program(AttachPoint::Connect6).expect("loads");
        let directory = outer.0.open().expect("opens");
        let _link = create_link(
            program.as_raw_fd(),
            directory.as_raw_fd(),
            AttachPoint::Connect6,
        )
        .expect("attaches");
        let mut after = foreign_programs_of_cgroup(&inner.0, &BTreeSet::new()).expect("lists");
        after.retain(|program| !before.contains(program));
        let [found] = after.as_slice() else {
            panic!("{after:?}")
        };
        assert_eq!(
            (found.hook, found.name.as_str()),
            (AttachPoint::Connect6, "ambit_trivial")
        );

        let own = BTreeSet::from([found.id]);
        let foreign = foreign_programs_of_cgroup(&inner.0, &own).expect("lists");
        assert!(!foreign.contains(found));
        drop((inner, outer));
    }

    #[test]
    fn programs_of_a_network_namespace_are_seen() {
        if !is_root() {
            return;
        }
        let pod = fresh_netns();
        let none = BTreeSet::new();
        assert_eq!(foreign_programs_of_netns(&pod, &none).expect("lists"), []);
        let program = load_trivial_program(AttachPoint::SkLookup).expect("loads");
        let target = pod.as_fd().as_raw_fd();
        let _link =
            create_link(program.as_raw_fd(), target, AttachPoint::SkLookup).expect("attaches");
        let found = foreign_programs_of_netns(&pod, &none).expect("lists");
        assert_eq!(found.len(), 1);
    }
}
