//! Which pod a network namespace belongs to. The record is kept beside the namespace's pins.
//!
//! The record is the target of a symbolic link in the bpffs. It is written in one step, survives the agent, and
//! goes with the pins at a reboot, after which the kernel starts its cookies again. It is written before
//! anything is attached, so that everything that is pinned has an owner.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::{DatapathError, pins};
use ambit_model::{ObjectName, Workload};

/// The record's name in the folder of a pod's pins.
pub(crate) const OWNER: &str = "owner";

/// The name under which a new record is written before it takes the old one's place.
const NEXT: &str = "owner-next";

/// The longest uid, in bytes, that a record contains. A longer one is replaced by its digest, because a record
/// has to fit into a path (`PATH_MAX`).
const LONGEST_UID: usize = 256;

/// The pod that a network namespace belongs to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PodOwner {
    /// Namespace and name.
    pub pod: ObjectName,
    /// Its uid, or the digest of a long one.
    uid: Arc<str>,
}

impl PodOwner {
    /// Makes the owner record of a workload.
    pub fn of(workload: &Workload) -> Self {
        Self {
            pod: workload.name.clone(),
            uid: short(&workload.uid),
        }
    }

    /// Whether a workload is this pod, and not another one of the same name.
    pub fn is(&self, workload: &Workload) -> bool {
        *self == Self::of(workload)
    }
}

fn short(uid: &Arc<str>) -> Arc<str> {
    if uid.len() <= LONGEST_UID {
        return Arc::clone(uid);
    }
    let bytes = digest(&SHA256, uid.as_bytes());
    let digits: String = bytes.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{digits}").into()
}

/// Reads the record in a folder of pins; `None` if the namespace belongs to no pod.
///
/// # Errors
/// [`DatapathError::Pin`] if it cannot be read. The owner is unknown then, and there may be one.
pub(crate) fn read(folder: &Path) -> Result<Option<PodOwner>, DatapathError> {
    let path = folder.join(OWNER);
    let failed = DatapathError::pin(path.clone(), "read");
    let text = match std::fs::read_link(path) {
        Ok(text) => OsString::from(text).into_vec(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    match serde_json::from_slice(&text) {
        Ok(owner) => Ok(Some(owner)),
        Err(error) => Err(failed(error.into())),
    }
}

/// Writes the record in a folder of pins.
///
/// # Errors
/// [`DatapathError::Pin`]; the former record stays.
pub(crate) fn write(folder: &Path, owner: &PodOwner) -> Result<(), DatapathError> {
    let path = folder.join(OWNER);
    if matches!(read(folder), Ok(Some(known)) if known == *owner) {
        return Ok(());
    }
    let text = serde_json::to_string(owner)
        .map_err(|error| DatapathError::pin(path.clone(), "written")(error.into()))?;
    let next = folder.join(NEXT);
    pins::remove(&next)?;
    symlink(text, &next)
        .and_then(|()| std::fs::rename(&next, &path))
        .map_err(DatapathError::pin(path, "written"))
}

/// Removes the record.
///
/// # Errors
/// [`DatapathError::Pin`] if it cannot be removed.
pub(crate) fn remove(folder: &Path) -> Result<(), DatapathError> {
    pins::remove(&folder.join(NEXT))?;
    pins::remove(&folder.join(OWNER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{is_root, mount_for_test};
    use ambit_model::testing::pod;

    #[test]
    fn a_record_is_kept_in_a_bpffs_and_replaced_in_one_step() {
        if !is_root() {
            return;
        }
        let bpffs = mount_for_test();
        let folder = bpffs.path().join("4711");
        std::fs::create_dir(&folder).expect("made");
        assert_eq!(read(&folder).expect("reads"), None);
        let first = pod("shop/cart", &[]);
        write(&folder, &PodOwner::of(&first)).expect("written");
        let longest = Workload {
            uid: "x".repeat(8000).into(),
            ..first.clone()
        };
        for workload in [&first, &longest, &first] {
            write(&folder, &PodOwner::of(workload)).expect("written");
            let owner = read(&folder).expect("reads").expect("an owner");
            assert!(owner.is(workload), "{owner:?}");
            assert_eq!(owner.pod, workload.name);
        }
        std::fs::rename(folder.join(OWNER), folder.join("other")).expect("moved");
        symlink("no record", folder.join(OWNER)).expect("made");
        let error = read(&folder).expect_err("unreadable");
        assert!(
            error.to_string().contains("/owner could not be read"),
            "{error}"
        );
        remove(&folder).expect("removed");
        assert_eq!(read(&folder).expect("reads"), None);
    }

    #[test]
    fn another_pod_of_the_same_name_is_not_the_owner() {
        let first = pod("shop/cart", &[]);
        let second = Workload {
            uid: "another".into(),
            ..first.clone()
        };
        let owner = PodOwner::of(&first);
        assert!(owner.is(&first));
        assert!(!owner.is(&second));
        let long = |tail: &str| Workload {
            uid: format!("{}{tail}", "x".repeat(300)).into(),
            ..first.clone()
        };
        assert!(PodOwner::of(&long("a")).is(&long("a")));
        assert!(!PodOwner::of(&long("a")).is(&long("b")));
    }
}
