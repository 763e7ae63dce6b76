//! Detects whether Istio's ztunnel serves a pod, without trusting any object.
//!
//! The ztunnel of Istio ambient listens *inside* a pod's network namespace, on ports 15001, 15006 and 15008 of
//! every address. Its sockets belong to a process *outside* the pod, because ztunnel runs in its own pod. So
//! the three listeners have to belong to one process that is neither in the pod's network namespace nor in its
//! cgroup, and is not this agent. A process of the pod may open these listeners and then leave the namespace,
//! but it cannot leave its cgroup. If the cgroup of a process is unknown, that process does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::kernel::cgroup::CgroupError;
use crate::kernel::netns::{NetnsError, NetnsHandle};
use crate::kernel::processes::{processes, processes_in_netns};
use crate::sockets::sock_diag::{DiagError, SockDiag, TcpSocket, TcpState};

/// The ports on which ztunnel listens in a pod: for outbound connections, for plaintext and for tunnels.
const PORTS: [u16; 3] = [15001, 15006, 15008];

/// A ztunnel that listens in a pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ztunnel {
    /// The process that has the listeners.
    pub pid: u32,
}

/// Why it is unknown whether ztunnel listens in a pod.
#[derive(Debug, thiserror::Error)]
pub enum ZtunnelError {
    /// The pod's sockets could not be listed.
    #[error(transparent)]
    Diag(#[from] DiagError),
    /// The processes could not be listed.
    #[error(transparent)]
    Processes(#[from] CgroupError),
    /// The namespace could not be used.
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// Returns the ztunnel that listens in a pod's network namespace, if there is one. `uid` is the pod's.
///
/// # Errors
/// [`ZtunnelError`]; callers must not assume a ztunnel then.
pub fn ztunnel_in(netns: &NetnsHandle, uid: &str) -> Result<Option<Ztunnel>, ZtunnelError> {
    let ports = listeners(&SockDiag::open(netns)?.list()?);
    if !PORTS
        .iter()
        .all(|port| ports.values().any(|one| one == port))
    {
        return Ok(None);
    }
    let inside = processes_in_netns(netns)?;
    let groups: Vec<String> = inside.iter().filter_map(|&pid| group(pid)).collect();
    let of_pod = |pid: u32| {
        inside.contains(&pid)
            || group(pid).is_none_or(|own| groups.iter().any(|pods| shares(&own, pods, uid)))
    };
    let all = processes()?.into_iter();
    let mut others = all.filter(|&pid| pid != std::process::id());
    let found = others.find(|&pid| listens_on_all(&ports, pid) && !of_pod(pid));
    Ok(found.map(|pid| Ztunnel { pid }))
}

/// Returns ztunnel's ports by the inodes of the sockets that listen there on every address.
fn listeners(sockets: &[TcpSocket]) -> BTreeMap<u32, u16> {
    let listening = sockets.iter().filter(|socket| {
        socket.state == TcpState::Listen
            && socket.local.ip().is_unspecified()
            && PORTS.contains(&socket.local.port())
    });
    listening
        .map(|socket| (socket.inode, socket.local.port()))
        .collect()
}

/// Whether a process has a listener on each of the ports.
fn listens_on_all(ports: &BTreeMap<u32, u16>, pid: u32) -> bool {
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    let targets = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    let own: BTreeSet<u16> = targets
        .filter_map(|target| ports.get(&socket_inode(&target)?).copied())
        .collect();
    own.len() == PORTS.len()
}

/// Returns the inode of `socket:[inode]`.
fn socket_inode(target: &Path) -> Option<u32> {
    let inode = target.to_str()?.strip_prefix("socket:[")?;
    inode.strip_suffix(']')?.parse().ok()
}

/// Returns the cgroup of a process in the cgroup2 hierarchy.
fn group(pid: u32) -> Option<String> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let mut unified = groups.lines().filter_map(|line| line.strip_prefix("0::"));
    unified.next().map(str::to_owned)
}

/// Whether a cgroup belongs to a pod that has a process in the cgroup `pods`. The pod's own cgroup, which is
/// named after its uid, is above those of its containers. If no cgroup has that name, `pods` is taken for the
/// pod's own. The root of the hierarchy counts as the pod's, because it proves nothing.
fn shares(group: &str, pods: &str, uid: &str) -> bool {
    let own = group_of_pod(pods, uid);
    let within = |rest: &str| rest.is_empty() || rest.starts_with('/');
    own == "/" || group == "/" || group.strip_prefix(own).is_some_and(within)
}

/// Returns `pods` up to the part with the uid, which has dashes or, if systemd wrote it, underscores.
fn group_of_pod<'a>(pods: &'a str, uid: &str) -> &'a str {
    let forms = [format!("pod{uid}"), format!("pod{}", uid.replace('-', "_"))];
    let mut end = 0;
    for part in pods.split_inclusive('/') {
        end += part.len();
        if forms.iter().any(|form| part.contains(form.as_str())) {
            return pods[..end].trim_end_matches('/');
        }
    }
    pods
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd;
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::kernel::cgroup::{CgroupMount, CgroupPath};
    use crate::testing::{TestCgroup, fresh_netns, is_root};

    #[test]
    fn a_pods_group_is_above_those_of_its_containers() {
        let uid = "0d4c-11";
        let systemd = "/kubepods.slice/kubepods-pod0d4c_11.slice/cri-containerd-1.scope";
        let plain = "/kubepods/besteffort/pod0d4c-11/1";
        for (group, pods, is_pods) in [
            (plain, plain, true),
            ("/kubepods/besteffort/pod0d4c-11/2", plain, true),
            ("/kubepods/besteffort/pod0d4c-11", plain, true),
            ("/kubepods/besteffort/podffff-22/1", plain, false),
            ("/kubepods/besteffort/pod0d4c-111/1", plain, false),
            (
                "/kubepods.slice/kubepods-pod0d4c_11.slice/cri-containerd-2.scope",
                systemd,
                true,
            ),
            ("/kubepods.slice", systemd, false),
            ("/lab/pods/web", "/lab/pods/web", true),
            ("/lab/pods/web/child", "/lab/pods/web", true),
            ("/lab/pods/webs", "/lab/pods/web", false),
            ("/system", "/", true),
            ("/", "/lab/pods/web", true),
        ] {
            assert_eq!(shares(group, pods, uid), is_pods, "{group} and {pods}");
        }
    }

    fn listen(netns: &NetnsHandle, ports: &[u16]) -> Vec<TcpListener> {
        let bind = |port: &u16| TcpListener::bind(("0.0.0.0", *port)).expect("listens");
        netns
            .enter(|| ports.iter().map(bind).collect())
            .expect("enter")
    }

    /// A process that has `listeners` and lives until it is killed.
    fn holder(listeners: &[TcpListener], group: &CgroupPath) -> Child {
        let mut ends = listeners.iter().map(|listener| {
            let copy = listener.as_fd().try_clone_to_owned().expect("copies");
            Stdio::from(copy)
        });
        let mut next = || ends.next().unwrap_or_else(Stdio::null);
        let mut command = Command::new("sleep");
        command.arg("600");
        command.stdin(next()).stdout(next()).stderr(next());
        let child = command.spawn().expect("spawns");
        adopt(group, &child);
        child
    }

    fn adopt(group: &CgroupPath, process: &Child) {
        let procs = group.path().join("cgroup.procs");
        std::fs::write(procs, process.id().to_string()).expect("moves");
    }

    fn end(mut process: Child) {
        process.kill().expect("kills");
        process.wait().expect("waits");
    }

    #[test]
    fn only_a_process_outside_the_pod_that_has_all_three_listeners_is_a_ztunnel() {
        if !is_root() {
            return;
        }
        let mount = CgroupMount::find().expect("mounted");
        let (pods, other) = (
            TestCgroup::make(&mount, "ztunnel-pod"),
            TestCgroup::make(&mount, "ztunnel-own"),
        );
        let netns = fresh_netns();
        let inside = netns
            .enter(|| Command::new("cat").stdin(Stdio::piped()).spawn())
            .expect("enter")
            .expect("spawns");
        adopt(&pods.0, &inside);
        let found = || ztunnel_in(&netns, "uid").expect("scans");
        assert_eq!(found(), None, "no listener");

        let two = listen(&netns, &PORTS[..2]);
        let process = holder(&two, &other.0);
        assert_eq!(found(), None, "two listeners");
        end(process);
        drop(two);

        let three = listen(&netns, &PORTS);
        assert_eq!(found(), None, "the agent's own listeners");
        let process = holder(&three, &pods.0);
        assert_eq!(found(), None, "a process of the pod in another namespace");
        end(process);
        let process = holder(&three, &other.0);
        assert_eq!(found(), Some(Ztunnel { pid: process.id() }));
        end(process);
        end(inside);
    }
}
