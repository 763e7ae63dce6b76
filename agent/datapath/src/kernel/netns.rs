//! Network namespaces: opening, comparing and entering them.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ambit_common::NetnsCookie;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use socket2::{Domain, Socket, Type};

/// Why a network namespace could not be used.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The file does not exist, or may not be opened.
    #[error("the network namespace {} could not be opened: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The file is not a network namespace.
    #[error(
        "{} is not a network namespace; name a file such as /run/netns/NAME or /proc/PID/ns/net",
        path.display()
    )]
    NotNetns {
        /// The file.
        path: PathBuf,
    },
    /// setns(2) failed.
    #[error(
        "a thread of the agent could not enter the network namespace, which needs CAP_SYS_ADMIN: \
         {0}"
    )]
    Enter(#[source] io::Error),
    /// The kernel did not answer a query.
    #[error("the network namespace's {what} could not be read: {source}")]
    Query {
        /// What was queried.
        what: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
}

impl NetnsError {
    fn query(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Query { what, source }
    }
}

/// An open network namespace. It lives at least as long as its handles. Clones share one file.
#[derive(Clone, Debug)]
pub struct NetnsHandle(Arc<OwnedFd>);

thread_local! {
    /// The namespace that this thread is in, once it is known. Threads of the agent change their namespace
    /// only by [`NetnsHandle::enter`].
    static HERE: Cell<Option<NetnsHandle>> = const { Cell::new(None) };
}

impl NetnsHandle {
    /// Opens a file of nsfs, such as `/run/netns/NAME` or `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// [`NetnsError::NotNetns`] for any other file. Another file is not opened for reading: the path may come
    /// from an annotation, and opening a device can have effects.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let failed = |source| NetnsError::Open {
            path: path.to_owned(),
            source,
        };
        let located = File::options()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(path)
            .map_err(failed)?;
        let not_netns = || NetnsError::NotNetns {
            path: path.to_owned(),
        };
        let file_system = fstatfs(&located).map_err(|error| failed(error.into()))?;
        if file_system.filesystem_type() != NSFS_MAGIC {
            return Err(not_netns());
        }
        let readable = format!("/proc/self/fd/{}", located.as_raw_fd());
        let file = File::open(readable).map_err(failed)?;
        // SAFETY: NS_GET_NSTYPE takes no argument and only reads.
        let kind = unsafe { libc::ioctl(file.as_raw_fd(), libc::NS_GET_NSTYPE) };
        if kind != libc::CLONE_NEWNET {
            return Err(not_netns());
        }
        Ok(Self(Arc::new(file.into())))
    }

    /// Opens the namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetnsError::Open`] if /proc is not mounted.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Opens the namespace of process 1. It is the node's own if the agent is in the node's pid namespace.
    ///
    /// # Errors
    /// [`NetnsError::Open`] without CAP_SYS_PTRACE over process 1.
    pub fn init() -> Result<Self, NetnsError> {
        Self::open(Path::new("/proc/1/ns/net"))
    }

    /// Runs `work` on the calling thread inside this namespace. Returns to the former namespace afterwards,
    /// even if `work` panics. Sockets that are made inside stay in the namespace. Calls may nest.
    ///
    /// `work` is synchronous: a future that it returns would run outside.
    ///
    /// # Errors
    /// [`NetnsError::Enter`] without CAP_SYS_ADMIN; `work` has not run then.
    pub fn enter<R>(&self, work: impl FnOnce() -> R) -> Result<R, NetnsError> {
        let _visit = Visit::begin(self)?;
        Ok(work())
    }

    /// Returns the namespace's cookie, which is not reused before the next boot.
    ///
    /// # Errors
    /// [`NetnsError::Query`] on a kernel before 5.14.
    pub fn cookie(&self) -> Result<NetnsCookie, NetnsError> {
        let socket = self.enter(|| Socket::new(Domain::UNIX, Type::DGRAM, None))?;
        socket
            .and_then(|socket| netns_cookie(socket.as_fd()))
            .map_err(NetnsError::query("cookie"))
    }

    /// Whether both are the same namespace.
    ///
    /// # Errors
    /// [`NetnsError::Query`] if fstat(2) fails.
    pub fn same_as(&self, other: &Self) -> Result<bool, NetnsError> {
        Ok(self.file_id()? == other.file_id()?)
    }

    /// Returns the inode number, which `BPF_OBJ_GET_INFO_BY_FD` gives for a link. It may be reused once the
    /// namespace is gone.
    ///
    /// # Errors
    /// [`NetnsError::Query`] if fstat(2) fails.
    pub fn inode(&self) -> Result<u64, NetnsError> {
        Ok(self.file_id()?.1)
    }

    /// Returns the device and inode of the namespace's file, which are unique while the namespace lives.
    pub(crate) fn file_id(&self) -> Result<(u64, u64), NetnsError> {
        let file = self.0.try_clone().map(File::from);
        let metadata = file
            .and_then(|file| file.metadata())
            .map_err(NetnsError::query("inode"))?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// Returns the addresses of all interfaces, including loopback and link-local ones.
    ///
    /// # Errors
    /// [`NetnsError`] if the namespace cannot be entered or netlink does not answer.
    pub fn addresses(&self) -> Result<Vec<IpAddr>, NetnsError> {
        let interfaces = self
            .enter(getifaddrs)?
            .map_err(|error| NetnsError::query("addresses")(error.into()))?;
        let address = |storage: nix::sys::socket::SockaddrStorage| {
            let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        };
        Ok(interfaces
            .filter_map(|interface| interface.address.and_then(address))
            .collect())
    }

    /// Whether the loopback interface is up, without which nothing can be redirected.
    ///
    /// # Errors
    /// [`NetnsError`] if the namespace cannot be entered or netlink does not answer.
    pub fn loopback_is_up(&self) -> Result<bool, NetnsError> {
        let mut interfaces = self
            .enter(getifaddrs)?
            .map_err(|error| NetnsError::query("interfaces")(error.into()))?;
        let wanted = InterfaceFlags::IFF_LOOPBACK | InterfaceFlags::IFF_UP;
        Ok(interfaces.any(|interface| interface.flags.contains(wanted)))
    }

    /// Returns the ports from which sockets dial that have not bound one (`net.ipv4.ip_local_port_range`,
    /// which is for both IP versions).
    ///
    /// # Errors
    /// [`NetnsError`] if the namespace cannot be entered or the setting cannot be read.
    pub fn ephemeral_ports(&self) -> Result<RangeInclusive<u16>, NetnsError> {
        // /proc/sys/net shows the namespace of the thread that looks a file up.
        let read = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
        let what = "ip_local_port_range";
        let text = self.enter(read)?.map_err(NetnsError::query(what))?;
        let mut ports = text.split_whitespace().map(str::parse::<u16>);
        match (ports.next(), ports.next()) {
            (Some(Ok(first)), Some(Ok(last))) => Ok(first..=last),
            _ => Err(NetnsError::query(what)(io::ErrorKind::InvalidData.into())),
        }
    }
}

impl AsFd for NetnsHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Returns the cookie of the network namespace that a socket lives in.
///
/// # Errors
/// ENOPROTOOPT on a kernel before 5.14.
pub(crate) fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<NetnsCookie> {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `cookie`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(NetnsCookie(cookie))
}

/// A thread's stay in a namespace. Dropping it brings the thread back.
struct Visit {
    home: NetnsHandle,
}

impl Visit {
    fn begin(to: &NetnsHandle) -> Result<Self, NetnsError> {
        let home = match HERE.take() {
            Some(here) => here,
            None => NetnsHandle::current()?,
        };
        let entered = setns(to, CloneFlags::CLONE_NEWNET);
        HERE.set(Some(if entered.is_ok() {
            to.clone()
        } else {
            home.clone()
        }));
        entered.map_err(|error| NetnsError::Enter(error.into()))?;
        Ok(Self { home })
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Err(error) = setns(&self.home, CloneFlags::CLONE_NEWNET) {
            // Anything that this thread did next, it would do inside a pod.
            // If standard error cannot be written to, that must not turn this into a panic.
            let _ = writeln!(
                std::io::stderr(),
                "ambit: a thread cannot leave a pod's network namespace ({error}): aborting"
            );
            std::process::abort();
        }
        HERE.set(Some(self.home.clone()));
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;
    use crate::testing::{fresh_netns, is_root};

    fn here() -> NetnsHandle {
        NetnsHandle::current().expect("/proc is mounted")
    }

    #[test]
    fn only_network_namespaces_open() {
        for path in [
            "/proc/self/ns/mnt",
            "/proc/self/status",
            "/dev/null",
            "/proc/self/ns",
        ] {
            let error = NetnsHandle::open(Path::new(path)).expect_err(path);
            assert!(
                matches!(error, NetnsError::NotNetns { .. }),
                "{path}: {error}"
            );
            assert!(error.to_string().starts_with(path), "{error}");
        }
        let missing = NetnsHandle::open(Path::new("/proc/self/ns/none")).expect_err("missing");
        assert!(matches!(missing, NetnsError::Open { .. }), "{missing}");
    }

    #[test]
    fn a_visit_ends_where_it_began() {
        if !is_root() {
            return;
        }
        let home = here();
        let pod = fresh_netns();
        let inside = pod.enter(here).expect("enter");
        assert!(inside.same_as(&pod).expect("fstat"));
        assert!(!pod.same_as(&home).expect("fstat"));
        assert!(here().same_as(&home).expect("fstat"));
    }

    #[test]
    fn nested_visits_return_one_by_one() {
        if !is_root() {
            return;
        }
        let (home, outer, inner) = (here(), fresh_netns(), fresh_netns());
        let (inside, after) = outer
            .enter(|| (inner.enter(here).expect("enter"), here()))
            .expect("enter");
        assert!(inside.same_as(&inner).expect("fstat"));
        assert!(after.same_as(&outer).expect("fstat"));
        assert!(here().same_as(&home).expect("fstat"));
    }

    #[test]
    fn a_panic_inside_brings_the_thread_back() {
        if !is_root() {
            return;
        }
        let home = here();
        let pod = fresh_netns();
        catch_unwind(|| pod.enter(|| panic!("inside"))).expect_err("panics");
        assert!(here().same_as(&home).expect("fstat"));
    }

    #[test]
    fn cookies_tell_namespaces_apart() {
        if !is_root() {
            return;
        }
        let (one, two) = (fresh_netns(), fresh_netns());
        let cookie = one.cookie().expect("cookie");
        assert_eq!(cookie, one.clone().cookie().expect("cookie"));
        assert_ne!(cookie, two.cookie().expect("cookie"));
        let socket = one
            .enter(|| Socket::new(Domain::IPV4, Type::STREAM, None))
            .expect("enter");
        assert_eq!(
            netns_cookie(socket.expect("socket").as_fd()).expect("cookie"),
            cookie
        );
    }

    #[test]
    fn settings_and_addresses_are_those_inside() {
        if !is_root() {
            return;
        }
        let pod = fresh_netns();
        assert!(pod.loopback_is_up().expect("interfaces"));
        assert_eq!(
            pod.addresses().expect("addresses"),
            ["127.0.0.1", "::1"].map(|text| text.parse::<IpAddr>().expect("valid"))
        );
        let outside = here().ephemeral_ports().expect("range");
        let set = || std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "20000 20999");
        pod.enter(set).expect("enter").expect("write");
        assert_eq!(pod.ephemeral_ports().expect("range"), 20000..=20999);
        assert_eq!(here().ephemeral_ports().expect("range"), outside);
    }
}
