//! The processes of a pod, and whether the kernel programs see all of them.

use std::io::ErrorKind::PermissionDenied;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::kernel::capabilities::{Capabilities, Capability};
use crate::kernel::cgroup::{CgroupError, CgroupPath, is_gone};
use crate::kernel::netns::NetnsHandle;

/// Returns the processes of a pod that are not below `cgroup`, so that the programs attached to it do not see
/// them.
///
/// # Errors
/// [`CgroupError`] if /proc cannot be read or the cgroup of a process is unknown.
pub(crate) fn processes_outside(
    cgroup: &CgroupPath,
    netns: &NetnsHandle,
) -> Result<Vec<u32>, CgroupError> {
    let mut outside = Vec::new();
    if cgroup.level() == 0 {
        return Ok(outside);
    }
    for pid in processes_in_netns(netns)? {
        if cgroup.contains_process(pid)? == Some(false) {
            outside.push(pid);
        }
    }
    Ok(outside)
}

/// Returns the processes whose main thread is in a network namespace, as far as they are visible in this
/// process's pid namespace. Processes that end or start meanwhile may be missing.
///
/// # Errors
/// [`CgroupError`] if /proc cannot be read, or a process may not be inspected.
pub(crate) fn processes_in_netns(netns: &NetnsHandle) -> Result<Vec<u32>, CgroupError> {
    let wanted = netns.file_id()?;
    let may_inspect_all = Capabilities::effective()
        .map_err(unlisted)?
        .has(Capability::SysPtrace);
    let mut pids = Vec::new();
    for pid in processes()? {
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        match std::fs::metadata(&path) {
            Ok(file) if (file.dev(), file.ino()) == wanted => pids.push(pid),
            Ok(_) => {}
            Err(error) if is_gone(&error) => {}
            // A security module protects the process even from root. That is not done to processes of pods.
            Err(error) if error.kind() == PermissionDenied && may_inspect_all => {}
            Err(source) => return Err(CgroupError::Read { path, source }),
        }
    }
    Ok(pids)
}

/// Returns all processes that are visible in this process's pid namespace.
///
/// # Errors
/// [`CgroupError`] if /proc cannot be read.
pub(crate) fn processes() -> Result<Vec<u32>, CgroupError> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc").map_err(unlisted)? {
        let name = entry.map_err(unlisted)?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(pids)
}

fn unlisted(source: std::io::Error) -> CgroupError {
    CgroupError::Read {
        path: "/proc".into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::kernel::cgroup::CgroupMount;
    use crate::testing::{TestCgroup, fresh_netns, is_root};

    /// A process in a network namespace that lives until it is killed.
    fn process_in(netns: &NetnsHandle) -> Child {
        let spawn = || Command::new("cat").stdin(Stdio::piped()).spawn();
        netns.enter(spawn).expect("enter").expect("spawns")
    }

    fn end(mut process: Child) {
        process.kill().expect("kills");
        process.wait().expect("waits");
    }

    fn adopt(cgroup: &CgroupPath, pid: u32) {
        std::fs::write(cgroup.path().join("cgroup.procs"), pid.to_string()).expect("moves");
    }

    #[test]
    fn processes_of_a_pod_outside_the_cgroup_are_named() {
        if !is_root() {
            return;
        }
        let mount = CgroupMount::find().expect("mounted");
        let cgroup = TestCgroup::make(&mount, "outside");
        let pod = fresh_netns();
        assert!(processes_in_netns(&pod).expect("scans").is_empty());
        let (inside, outside) = (process_in(&pod), process_in(&pod));
        adopt(&cgroup.0, inside.id());
        let mut all = processes_in_netns(&pod).expect("scans");
        all.sort_unstable();
        let mut expected = [inside.id(), outside.id()];
        expected.sort_unstable();
        assert_eq!(all, expected);
        assert_eq!(
            processes_outside(&cgroup.0, &pod).expect("scans"),
            [outside.id()]
        );
        assert_eq!(
            cgroup.0.contains_process(inside.id()).expect("reads"),
            Some(true)
        );
        let gone = outside.id();
        end(outside);
        end(inside);
        assert_eq!(cgroup.0.contains_process(gone).expect("reads"), None);
        assert!(
            processes_outside(&cgroup.0, &pod)
                .expect("scans")
                .is_empty()
        );
    }
}
