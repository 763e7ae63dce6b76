//! No connect of an enrolled pod leaves as it is while the table of pods changes.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ambit_common::{MeshClass, NodeSettings};
use nix::sched::{CloneFlags, setns};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe, read, write};

use super::node_maps::{Hammer, NodeMaps, entry};
use crate::kernel::cgroup::CgroupMount;
use crate::kernel::netns::NetnsHandle;
use crate::programs::node_programs;
use crate::testing::{TestCgroup, fresh_netns};
use crate::{KernelLog, MeshTable};

/// How long the dialler dials.
const DIALLING: Duration = Duration::from_secs(3);

/// The exit codes of the dialler.
const NONE_LEFT: i32 = 0;
const ONE_LEFT: i32 = 1;
const NOT_A_TEST: i32 = 2;

/// The address that it dials, which is in the mesh.
const DIALLED: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);

#[test]
fn no_connect_of_an_enrolled_pod_leaves_while_the_table_changes() {
    let Some(maps) = NodeMaps::make(Hammer::ROOM) else {
        return;
    };
    let mount = CgroupMount::find().expect("mounted");
    let cgroup = TestCgroup::make(&mount, "connects");
    let settings = NodeSettings {
        host_netns: NetnsHandle::current()
            .and_then(|own| own.cookie())
            .expect("own"),
        pods_cgroup: 0,
        pods_cgroup_level: 0,
        agent: 0,
    };
    let _programs =
        node_programs::attach_all(&maps.pins, cgroup.0.path(), settings, KernelLog::Off)
            .expect("attaches");
    let mut mesh = MeshTable::open(&maps.pins).expect("opens");
    let range = "10.0.0.0/8".parse().expect("a range");
    mesh.replace(&[(range, MeshClass::Proxy)]).expect("written");
    let pod = fresh_netns();
    let netns = pod.cookie().expect("a cookie");
    let mut table = maps.pods();
    let mut hammer = Hammer::start(&mut table);
    let (told, tell) = pipe().expect("a pipe");
    // SAFETY: the child only makes system calls, and ends with `_exit`.
    let dialler = match unsafe { fork() }.expect("forks") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let outcome = dial(&pod, &told);
            // SAFETY: ends this process and runs nothing of the parent's.
            unsafe { libc::_exit(outcome) };
        }
    };
    fs::write(cgroup.0.path().join("cgroup.procs"), dialler.to_string()).expect("moves");
    table.set(entry(netns, 1)).expect("written");
    write(&tell, b"!").expect("tells");
    let mut round = 1;
    let ended = loop {
        hammer.strike(&mut table);
        round += 1;
        table.set(entry(netns, round)).expect("written");
        if let Some(ended) = ended(dialler) {
            break ended;
        }
    };
    println!("{round} changes of the pod");
    assert_eq!(
        ended, NONE_LEFT,
        "{ONE_LEFT}: a connect left; {NOT_A_TEST}: the test is void"
    );
}

/// The exit code of the dialler, if it has ended.
fn ended(dialler: Pid) -> Option<i32> {
    match waitpid(dialler, Some(WaitPidFlag::WNOHANG)).expect("a child") {
        WaitStatus::Exited(_, outcome) => Some(outcome),
        WaitStatus::StillAlive => None,
        other => panic!("{other:?}"),
    }
}

/// Dials from the pod until a connect is not refused. Makes only system calls.
fn dial(pod: &NetnsHandle, told: &impl AsFd) -> i32 {
    let mut byte = [0];
    let started = read(told.as_fd(), &mut byte).is_ok_and(|length| length == 1);
    if !started || setns(pod.as_fd(), CloneFlags::CLONE_NEWNET).is_err() {
        return NOT_A_TEST;
    }
    // SAFETY: makes a socket.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0) };
    let mut attempts = 0_u64;
    let end = Instant::now() + DIALLING;
    while Instant::now() < end {
        for _ in 0..1000 {
            attempts += 1;
            if connect_errno(socket) != libc::ECONNREFUSED {
                return ONE_LEFT;
            }
        }
    }
    if attempts < 100_000 {
        return NOT_A_TEST;
    }
    NONE_LEFT
}

/// Connects, and returns the error number: ECONNREFUSED if the hook refuses the connect, and another one if it
/// does not, because the namespace has neither a route nor a device that is up (ENETUNREACH).
fn connect_errno(socket: i32) -> i32 {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 80_u16.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(DIALLED).to_be(),
        },
        sin_zero: [0; 8],
    };
    let length = size_of_val(&address) as u32;
    // SAFETY: the address is valid and as long as is said.
    let result = unsafe { libc::connect(socket, (&raw const address).cast(), length) };
    if result == 0 {
        return 0;
    }
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
