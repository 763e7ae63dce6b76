//! Pinned bpf_links: reading what they are attached to, and replacing their program.
//!
//! An upgraded agent replaces the program of the link that its predecessor pinned. A second attachment would
//! be wrong even for a moment: with several `sk_lookup` programs, a socket that one of them selects overrides
//! another one's refusal.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya_obj::generated::{bpf_link_info, bpf_link_type};

use crate::kernel::bpf::{link_info, open_pinned, update_link};

/// Why a pinned link could not be used.
#[derive(Debug, thiserror::Error)]
#[error("the pinned bpf_link {} could not be {what}: {source}", path.display())]
pub struct LinkError {
    path: PathBuf,
    what: &'static str,
    source: io::Error,
}

impl LinkError {
    /// What the kernel answered.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

/// A link that is pinned in a bpffs. Dropping it closes the file; the pin keeps the link attached.
#[derive(Debug)]
pub(crate) struct PinnedLink {
    link: OwnedFd,
    path: PathBuf,
}

/// What the kernel says about a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LinkInfo {
    /// The kernel's id of the link.
    pub id: u32,
    /// The kernel's id of the program that it runs.
    pub program: u32,
    /// What it is attached to.
    pub target: LinkTarget,
}

/// What a link is attached to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LinkTarget {
    /// A cgroup, by its id; `None` if it has been removed.
    Cgroup(Option<u64>),
    /// A network namespace, by its inode; `None` if it is gone.
    Netns(Option<u64>),
    /// A link of a type that Ambit does not use (`enum bpf_link_type`).
    Other(u32),
}

impl PinnedLink {
    /// Opens the link that is pinned at `path`.
    ///
    /// # Errors
    /// [`LinkError`] of kind `NotFound` if nothing is pinned there.
    pub(crate) fn open(path: &Path) -> Result<Self, LinkError> {
        let path = path.to_owned();
        match open_pinned(&path) {
            Ok(link) => Ok(Self { link, path }),
            Err(source) => Err(LinkError {
                path,
                what: "opened",
                source,
            }),
        }
    }

    /// Replaces the link's program. Each event runs either the old or the new one.
    ///
    /// # Errors
    /// [`LinkError`] if the link has lost its target, or `program` is of another type.
    pub(crate) fn update(&self, program: BorrowedFd<'_>) -> Result<(), LinkError> {
        update_link(self.link.as_fd(), program).map_err(|source| self.failed("updated", source))
    }

    /// Reads what the link is attached to.
    ///
    /// # Errors
    /// [`LinkError`] if what is pinned is not a link.
    pub(crate) fn info(&self) -> Result<LinkInfo, LinkError> {
        let info =
            link_info(self.link.as_fd()).map_err(|source| self.failed("inspected", source))?;
        Ok(LinkInfo {
            id: info.id,
            program: info.prog_id,
            target: target(&info),
        })
    }

    fn failed(&self, what: &'static str, source: io::Error) -> LinkError {
        LinkError {
            path: self.path.clone(),
            what,
            source,
        }
    }
}

/// Reads what a link is attached to.
fn target(info: &bpf_link_info) -> LinkTarget {
    const CGROUP: u32 = bpf_link_type::BPF_LINK_TYPE_CGROUP as u32;
    const NETNS: u32 = bpf_link_type::BPF_LINK_TYPE_NETNS as u32;
    match info.type_ {
        CGROUP => {
            // SAFETY: the kernel has written this member of the union for a link of this type.
            let id = unsafe { info.__bindgen_anon_1.cgroup.cgroup_id };
            LinkTarget::Cgroup((id != 0).then_some(id))
        }
        NETNS => {
            // SAFETY: as above.
            let inode = unsafe { info.__bindgen_anon_1.netns.netns_ino };
            LinkTarget::Netns((inode != 0).then_some(inode.into()))
        }
        other => LinkTarget::Other(other),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::kernel::bpf::{AttachPoint, create_link, load_trivial_program, pin, query_programs};
    use crate::testing::{fresh_netns, is_root, mount_for_test};

    #[test]
    fn a_pinned_link_is_updated_and_outlives_its_namespace_without_a_target() {
        if !is_root() {
            return;
        }
        let bpffs = mount_for_test();
        let path = bpffs.path().join("link");
        let pod = fresh_netns();
        let hook = AttachPoint::SkLookup;
        let old = load_trivial_program(hook).expect("loads");
        let target = pod.as_fd().as_raw_fd();
        let link = create_link(old.as_raw_fd(), target, hook).expect("attaches");
        pin(link.as_fd(), &path).expect("pins");
        drop((link, old));

        let pinned = PinnedLink::open(&path).expect("opens");
        let before = pinned.info().expect("link");
        assert_eq!(
            before.target,
            LinkTarget::Netns(Some(pod.inode().expect("inode")))
        );
        assert_eq!(
            query_programs(pod.as_fd(), hook).expect("query"),
            [before.program]
        );

        let new = load_trivial_program(hook).expect("loads");
        pinned.update(new.as_fd()).expect("updates");
        let after = pinned.info().expect("link");
        assert_eq!(after.id, before.id);
        assert_ne!(after.program, before.program);
        assert_eq!(
            query_programs(pod.as_fd(), hook).expect("query"),
            [after.program]
        );

        let other = load_trivial_program(AttachPoint::Connect4).expect("loads");
        pinned
            .update(other.as_fd())
            .expect_err("a program of another type");
        drop(pod);
        // The kernel takes a namespace apart in the background.
        while pinned.info().expect("link").target != LinkTarget::Netns(None) {
            std::thread::yield_now();
        }
        pinned
            .update(new.as_fd())
            .expect_err("nothing to attach to");
    }

    #[test]
    fn what_is_not_pinned_is_not_found() {
        let error = PinnedLink::open(Path::new("/nowhere/link")).expect_err("missing");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("/nowhere/link"), "{error}");
    }
}
