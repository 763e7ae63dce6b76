//! What the connect hook sets on the sockets that the agent dials.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use ambit_common::{NodeSettings, Ticket, TicketKind, TicketVerdict};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe, read, write};
use socket2::Socket;

use super::node_maps::NodeMaps;
use crate::KernelLog;
use crate::kernel::cgroup::{CgroupMount, CgroupPath};
use crate::kernel::netns::NetnsHandle;
use crate::programs::node_programs;
use crate::sockets::keep_alive::tests::ensure_kept_alive;
use crate::sockets::ticket::Tickets;
use crate::testing::TestCgroup;

#[test]
fn what_the_agent_dials_is_kept_alive_and_not_delayed() {
    let Some(maps) = NodeMaps::make(1) else {
        return;
    };
    let mount = CgroupMount::find().expect("mounted");
    let cgroup = TestCgroup::make(&mount, "dialled");
    let netns = NetnsHandle::current()
        .and_then(|own| own.cookie())
        .expect("own");
    let settings = NodeSettings {
        host_netns: netns,
        pods_cgroup: 0,
        pods_cgroup_level: 0,
        agent: 0,
    };
    let _programs =
        node_programs::attach_all(&maps.pins, cgroup.0.path(), settings, KernelLog::Off)
            .expect("attaches");
    let tickets = Tickets::open(&maps.pins).expect("opens");
    for (family, listen) in [(libc::AF_INET, "127.0.0.1:0"), (libc::AF_INET6, "[::1]:0")] {
        let listener = TcpListener::bind(listen).expect("listens");
        let to: SocketAddr = listener.local_addr().expect("an address");
        let socket = socket_made_in(&cgroup.0, family);
        assert!(!socket.keepalive().expect("SO_KEEPALIVE"));
        let ticket = Ticket::new(TicketKind::Tunnel, netns, to.into());
        let answer = tickets.connect(&socket, to, ticket).expect("a ticket");
        answer.connect.expect("connects");
        assert_eq!(answer.ticket.verdict, TicketVerdict::Allow as u8);
        ensure_kept_alive(&socket);
        assert!(socket.tcp_nodelay().expect("TCP_NODELAY"));
        // The map would not take a second ticket for the same socket. The hook does not see a connect of a socket that
        // is connected.
        let again = tickets
            .connect(&socket, to, ticket)
            .expect("no ticket is left");
        assert_eq!(again.ticket.verdict, TicketVerdict::Pending as u8);
    }
}

/// Returns a socket that a process in `cgroup` has made: the hook of a cgroup sees the sockets that are made there.
fn socket_made_in(cgroup: &CgroupPath, family: i32) -> Socket {
    let ((told, tell), (heard, say)) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
    // SAFETY: the child only makes system calls, until it is killed.
    let child = match unsafe { fork() }.expect("forks") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => make_socket(family, &told, &say),
    };
    fs::write(cgroup.path().join("cgroup.procs"), child.to_string()).expect("moves");
    write(&tell, b"!").expect("tells");
    let mut number = [0; 4];
    read(heard.as_fd(), &mut number).expect("hears");
    let socket = copy_of(child, i32::from_ne_bytes(number));
    kill(child, Signal::SIGKILL).expect("ends");
    waitpid(child, None).expect("has ended");
    socket
}

/// Makes a socket once it is told to, and says its number. Makes only system calls.
fn make_socket(family: i32, told: &OwnedFd, say: &OwnedFd) -> ! {
    let _ = read(told.as_fd(), &mut [0]);
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK;
    // SAFETY: makes a socket.
    let socket = unsafe { libc::socket(family, kind, 0) };
    let _ = write(say, &socket.to_ne_bytes());
    loop {
        // SAFETY: waits.
        unsafe { libc::pause() };
    }
}

/// Returns a copy of another process's descriptor.
fn copy_of(process: Pid, number: i32) -> Socket {
    // SAFETY: opens a descriptor of the process.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, process.as_raw(), 0) };
    assert!(process >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made it.
    let process = unsafe { OwnedFd::from_raw_fd(process as i32) };
    // SAFETY: copies a descriptor.
    let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) };
    assert!(copy >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made it.
    unsafe { Socket::from_raw_fd(copy as i32) }
}
