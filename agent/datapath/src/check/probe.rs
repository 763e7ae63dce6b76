//! Tries out what the kernel can do. Each function uses one feature and undoes what it did.

use std::io::{self, Read};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported};

use crate::kernel::bpf::{AttachPoint, create_link, load_trivial_program};
use crate::kernel::capabilities::{Capabilities, Capability};
use crate::kernel::cgroup::CgroupMount;
use crate::kernel::netns::{NetnsHandle, netns_cookie};
use crate::sockets::sock_diag::SockDiag;
use crate::sockets::stock::cookie_of;

/// `Ok` if the kernel has the feature, or else the reason why not.
pub(crate) type ProbeResult = Result<(), String>;

/// The oldest kernel that Ambit supports.
const KERNEL_FLOOR: (u32, u32) = (6, 1);

/// Reads the release of the running kernel, for example `6.1.0-13-amd64`.
pub(crate) fn kernel_release() -> io::Result<String> {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned())
}

/// Whether the kernel is not older than [`KERNEL_FLOOR`].
pub(crate) fn kernel_floor() -> ProbeResult {
    not_too_old(&kernel_release().map_err(|error| error.to_string())?)
}

fn not_too_old(release: &str) -> ProbeResult {
    match version(release) {
        Some(version) if version >= KERNEL_FLOOR => Ok(()),
        Some(_) => Err(format!("this is Linux {release}")),
        None => Err(format!("{release:?} is not a Linux release")),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether programs for all of `hooks` load.
pub(crate) fn hooks(hooks: &[AttachPoint]) -> ProbeResult {
    hooks
        .iter()
        .try_for_each(|&hook| match load_trivial_program(hook) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!(
                "a program for {} does not load: {error}",
                hook.as_str()
            )),
        })
}

/// Whether maps of all of `kinds` can be made.
pub(crate) fn maps(kinds: &[MapType]) -> ProbeResult {
    kinds
        .iter()
        .try_for_each(|&kind| match is_map_supported(kind) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("the kernel has no map of type {kind:?}")),
            Err(error) => Err(format!("a map of type {kind:?} could not be made: {error}")),
        })
}

/// Whether programs of a type may call all of `functions`.
pub(crate) fn functions(program: ProgramType, functions: &[BpfHelper]) -> ProbeResult {
    functions
        .iter()
        .try_for_each(|&function| match is_helper_supported(program, function) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("{program:?} programs may not call {function:?}")),
            Err(error) => Err(format!("{function:?} could not be tried: {error}")),
        })
}

/// Whether programs can be attached as links. The program here does not exist; the kernel notices that only if
/// it knows the command.
pub(crate) fn links() -> ProbeResult {
    const NO_FD: RawFd = -1;
    match create_link(NO_FD, NO_FD, AttachPoint::SkLookup) {
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(()),
        Err(error) => Err(error.to_string()),
        Ok(_) => Err("it attached a program that does not exist".to_owned()),
    }
}

/// Whether the kernel describes its own types (BTF).
pub(crate) fn kernel_types() -> ProbeResult {
    aya::Btf::from_sys_fs()
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Whether the node's whole cgroup2 hierarchy is mounted.
pub(crate) fn cgroup2() -> ProbeResult {
    CgroupMount::find()
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Whether a bpffs could be mounted. Mounts nothing.
pub(crate) fn bpffs() -> ProbeResult {
    // SAFETY: fsopen(2) takes a file system's name and flags.
    let fd = unsafe { libc::syscall(libc::SYS_fsopen, c"bpf".as_ptr(), 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error().to_string());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    drop(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
    Ok(())
}

/// Whether the kernel gives the cookie of a socket's network namespace.
pub(crate) fn namespace_cookies() -> ProbeResult {
    let socket = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    netns_cookie(socket.as_fd())
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Whether a connection of this process over loopback can be found and closed.
pub(crate) fn closing_connections() -> ProbeResult {
    let describe = |error: io::Error| format!("a connection over loopback failed: {error}");
    let (_client, mut server) = loopback_connection().map_err(describe)?;
    let cookie = cookie_of(&server).map_err(describe)?;
    let netns = NetnsHandle::current().map_err(|error| error.to_string())?;
    let mut diag = SockDiag::open(&netns).map_err(|error| error.to_string())?;
    let sockets = diag.list().map_err(|error| error.to_string())?;
    let found = sockets.iter().find(|socket| socket.cookie == cookie);
    let found = found.ok_or("a connection of this process is not listed")?;
    diag.destroy(found).map_err(|error| error.to_string())?;
    match server.read(&mut [0]) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(()),
        Ok(_) | Err(_) => Err("the kernel said that it closed a connection, but did not".into()),
    }
}

fn loopback_connection() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    server.set_nonblocking(true)?;
    Ok((client, server))
}

/// Whether this network namespace has IPv6.
pub(crate) fn ipv6() -> ProbeResult {
    let any_port = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    TcpListener::bind(any_port)
        .map(drop)
        .map_err(|error| format!("::1 cannot be bound: {error}"))
}

/// Whether this process has a capability.
pub(crate) fn capability(capability: Capability) -> ProbeResult {
    match Capabilities::effective() {
        Ok(effective) if effective.has(capability) => Ok(()),
        Ok(_) => Err("this process does not have it".to_owned()),
        Err(error) => Err(format!(
            "/proc/thread-self/status could not be read: {error}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_below_the_floor_are_refused() {
        for good in ["6.1.0-13-amd64", "6.1", "6.18.44", "6.1-rc3", "7.0"] {
            assert_eq!(not_too_old(good), Ok(()), "{good}");
        }
        for bad in ["6.0.19", "5.15", "4.19.0", "6", "linux", ""] {
            assert!(not_too_old(bad).expect_err(bad).contains(bad));
        }
    }

    #[test]
    fn what_the_kernel_lacks_is_named() {
        let unknown = MapType::Unspecified;
        assert!(
            maps(&[unknown])
                .expect_err("no such map")
                .contains("Unspecified")
        );
        let program = ProgramType::Unspecified;
        let function = BpfHelper::BPF_FUNC_get_netns_cookie;
        assert!(
            functions(program, &[function])
                .expect_err("no such program")
                .contains("netns")
        );
    }
}
