//! Network namespaces, cgroups and BPF file systems for tests. Each is removed with the test.

use std::path::Path;

use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::kernel::capabilities::{Capabilities, Capability};
use crate::kernel::cgroup::{CgroupMount, CgroupPath};
use crate::kernel::netns::NetnsHandle;
use crate::pins::directory::mount_bpffs;
use ambit_testing::skip;

/// The capabilities that these tests need.
const NEEDED: [Capability; 3] = [Capability::Bpf, Capability::NetAdmin, Capability::SysAdmin];

/// Whether the test can run. If not, it is reported as skipped and has to return.
pub(crate) fn is_root() -> bool {
    match obstacle() {
        None => true,
        Some(why) => {
            skip(&why);
            false
        }
    }
}

fn obstacle() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    let effective = Capabilities::effective().expect("the own capabilities");
    let lacking = NEEDED.into_iter().find(|&needed| !effective.has(needed));
    lacking.map(|capability| format!("this process lacks the capability {capability:?}"))
}

/// Makes an empty network namespace whose loopback interface is down. It ends with its last handle and socket.
pub(crate) fn bare_netns() -> NetnsHandle {
    let made = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare");
        NetnsHandle::current().expect("the new namespace")
    });
    made.join().expect("thread")
}

/// Makes a network namespace with nothing but a loopback interface that is up.
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

/// A bpffs that is unmounted with the value.
pub(crate) struct TestBpffs(tempfile::TempDir);

impl TestBpffs {
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for TestBpffs {
    fn drop(&mut self) {
        umount2(self.path(), MntFlags::MNT_DETACH).expect("unmounts");
    }
}

/// Mounts a bpffs at a temporary directory.
pub(crate) fn mount_for_test() -> TestBpffs {
    let directory = tempfile::tempdir().expect("directory");
    mount_bpffs(directory.path(), &mut Vec::new()).expect("mounts");
    TestBpffs(directory)
}

/// A cgroup that is removed with the value.
pub(crate) struct TestCgroup(pub(crate) CgroupPath);

impl TestCgroup {
    pub(crate) fn make(mount: &CgroupMount, name: &str) -> Self {
        let name = format!("ambit-test-{name}-{}", std::process::id());
        std::fs::create_dir(mount.path().join(&name)).expect("makes");
        Self(mount.cgroup(Path::new(&name)).expect("a cgroup"))
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        std::fs::remove_dir(self.0.path()).expect("removes");
    }
}
