//! Network namespaces for tests.

use nix::sched::{CloneFlags, unshare};

use super::netns::NetnsHandle;

/// Whether the test may go on; it says so where it may not.
pub(crate) fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: not root");
    }
    root
}

/// A new network namespace without anything in it, its loopback interface down. It goes with its
/// last handle and socket.
pub(crate) fn bare_netns() -> NetnsHandle {
    let made = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare");
        NetnsHandle::current().expect("the new namespace")
    });
    made.join().expect("thread")
}

/// A new network namespace with nothing but a loopback interface that is up.
pub(crate) fn fresh_netns() -> NetnsHandle {
    let netns = bare_netns();
    netns.enter(bring_loopback_up).expect("enter");
    netns
}

fn bring_loopback_up() {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("socket");
    // SAFETY: all-zero bytes are a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: SIOCSIFFLAGS reads an ifreq.
    let result = unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS, &raw const request) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
