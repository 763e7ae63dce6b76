//! The agent's listeners inside a pod's network namespace.
//!
//! They are bound to the pod's loopback addresses only, and each has its own port: with SO_REUSEPORT, a
//! process of the pod with the agent's uid could join the group. SO_REUSEADDR is set. It does not let a
//! second socket bind or listen on the port of a listening socket. Without it, connections in TIME_WAIT that
//! a dead agent left would move the ports at every restart. `sk_lookup` assigns connections to these
//! listeners whatever address and port they were sent to.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;

use ambit_common::{HBONE_PORT, IpFamily, ListenerKind, MAX_SHARDS};
use socket2::{Domain, Socket};

use crate::kernel::netns::{NetnsError, NetnsHandle};
use crate::sockets::keep_alive::keep_alive;
use crate::sockets::stock::tcp_socket;

/// The most connections that may wait to be accepted at one listener. The pod's `net.core.somaxconn` may
/// lower it.
const BACKLOG: i32 = 4096;

/// Why a pod has no listeners.
#[derive(Debug, thiserror::Error)]
pub enum ListenersError {
    /// The namespace could not be used.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The loopback interface is down, so nothing can be redirected to a listener.
    #[error(
        "the pod's loopback interface is down, so its connections cannot be brought to the agent; \
         set the interface lo up in its network namespace"
    )]
    LoopbackDown,
    /// A socket could not be made or bound.
    #[error("a listener could not be made at {address} in the pod's network namespace: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel answered.
        source: io::Error,
    },
    /// No port is free.
    #[error(
        "no port outside net.ipv4.ip_local_port_range ({}-{}) is free in the pod's network \
         namespace; narrow that range or free ports",
        ephemeral.start(), ephemeral.end()
    )]
    NoFreePort {
        /// The pod's ephemeral ports.
        ephemeral: RangeInclusive<u16>,
    },
}

/// One shard's listeners in a pod, all non-blocking. For each kind, the IPv4 listener comes first. If the pod
/// has `::1`, the IPv6 listener on the same port follows.
#[derive(Debug)]
pub struct PodListeners {
    /// For redirected connections of the pod's processes.
    pub outbound: Vec<TcpListener>,
    /// For inbound plaintext whose verdict needs the proxy.
    pub plaintext: Vec<TcpListener>,
    /// For inbound tunnels.
    pub hbone: Vec<TcpListener>,
}

impl PodListeners {
    /// Returns the listeners of a kind, IPv4 first.
    pub fn of(&self, kind: ListenerKind) -> &[TcpListener] {
        match kind {
            ListenerKind::Outbound => &self.outbound,
            ListenerKind::Plaintext => &self.plaintext,
            ListenerKind::Hbone => &self.hbone,
        }
    }
}

/// All listeners of the agent in one pod.
#[derive(Debug)]
pub(crate) struct PodListenerSet {
    /// By shard.
    pub shards: Vec<PodListeners>,
    /// Their ports by kind and shard, in host order; 0 if the shard does not exist.
    pub ports: [[u16; MAX_SHARDS]; 3],
}

impl PodListenerSet {
    /// Makes the listeners of `shards` shards, 1 to [`MAX_SHARDS`], in a pod's namespace.
    ///
    /// If `::1` cannot be bound (no IPv6, or `disable_ipv6`), there are no IPv6 listeners, which leaves the
    /// pod's IPv6 closed.
    ///
    /// # Errors
    /// [`ListenersError`]; no listener is left behind.
    pub(crate) fn make(netns: &NetnsHandle, shards: usize) -> Result<Self, ListenersError> {
        if !netns.loopback_is_up()? {
            return Err(ListenersError::LoopbackDown);
        }
        let ephemeral = netns.ephemeral_ports()?;
        netns.enter(|| {
            let families = usable_families()?;
            let mut maker = Maker {
                ephemeral,
                families,
                ports: [[0; MAX_SHARDS]; 3],
            };
            let shards = 0..shards.min(MAX_SHARDS);
            let shards = shards
                .map(|shard| maker.shard(shard))
                .collect::<Result<_, _>>()?;
            Ok(Self {
                shards,
                ports: maker.ports,
            })
        })?
    }

    /// Iterates over the listeners with their kind, IP version and shard, which give the slot
    /// (`ambit_common::listener_slot`).
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ListenerKind, IpFamily, u32, &TcpListener)> {
        self.shards
            .iter()
            .zip(0_u32..)
            .flat_map(|(listeners, shard)| {
                ListenerKind::ALL.into_iter().flat_map(move |kind| {
                    let of_kind = listeners.of(kind).iter();
                    IpFamily::ALL
                        .into_iter()
                        .zip(of_kind)
                        .map(move |(family, listener)| (kind, family, shard, listener))
                })
            })
    }
}

/// The port at which the search for a free one begins. These are the ports of Istio's agents.
const fn preferred_port(kind: ListenerKind) -> u16 {
    match kind {
        ListenerKind::Outbound => 15001,
        ListenerKind::Plaintext => 15006,
        ListenerKind::Hbone => HBONE_PORT,
    }
}

/// Makes listeners on distinct ports, in the calling thread's namespace.
struct Maker {
    ephemeral: RangeInclusive<u16>,
    families: Vec<IpFamily>,
    ports: [[u16; MAX_SHARDS]; 3],
}

impl Maker {
    fn shard(&mut self, shard: usize) -> Result<PodListeners, ListenersError> {
        Ok(PodListeners {
            outbound: self.listen(ListenerKind::Outbound, shard)?,
            plaintext: self.listen(ListenerKind::Plaintext, shard)?,
            hbone: self.listen(ListenerKind::Hbone, shard)?,
        })
    }

    /// Listens, in every usable family, on the first free port from the preferred one on.
    fn listen(
        &mut self,
        kind: ListenerKind,
        shard: usize,
    ) -> Result<Vec<TcpListener>, ListenersError> {
        let preferred = preferred_port(kind);
        for port in candidates(preferred) {
            if self.is_unusable(port) || is_preferred_by_another(port, preferred) {
                continue;
            }
            match listen(&self.families, port) {
                Err(ListenersError::Listen { source, .. })
                    if source.kind() == io::ErrorKind::AddrInUse => {}
                Ok(listeners) => {
                    self.ports[kind as usize][shard] = port;
                    return Ok(listeners);
                }
                Err(error) => return Err(error),
            }
        }
        Err(ListenersError::NoFreePort {
            ephemeral: self.ephemeral.clone(),
        })
    }

    fn is_unusable(&self, port: u16) -> bool {
        self.ephemeral.contains(&port) || self.ports.iter().flatten().any(|&taken| taken == port)
    }
}

/// Whether another kind of listener begins its search at `port`, which is left for it.
fn is_preferred_by_another(port: u16, preferred: u16) -> bool {
    port != preferred && ListenerKind::ALL.map(preferred_port).contains(&port)
}

/// Returns the ports to try: upwards from the preferred one, and then downwards from it, so that the
/// well-known ports of applications come last.
fn candidates(preferred: u16) -> impl Iterator<Item = u16> {
    (preferred..=u16::MAX).chain((1..preferred).rev())
}

/// Returns the IP versions whose loopback address can be bound. IPv4 is required.
fn usable_families() -> Result<Vec<IpFamily>, ListenersError> {
    let v4 = loopback(IpFamily::V4, 0);
    bind(v4).map_err(|source| ListenersError::Listen {
        address: v4,
        source,
    })?;
    let v6 = loopback(IpFamily::V6, 0);
    match bind(v6) {
        Ok(_) => Ok(IpFamily::ALL.to_vec()),
        Err(error) if lacks_family(&error) => Ok(vec![IpFamily::V4]),
        Err(source) => Err(ListenersError::Listen {
            address: v6,
            source,
        }),
    }
}

/// Whether the error means that the kernel has no IPv6, or the namespace no `::1`.
fn lacks_family(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

fn loopback(family: IpFamily, port: u16) -> SocketAddr {
    match family {
        IpFamily::V4 => (Ipv4Addr::LOCALHOST, port).into(),
        IpFamily::V6 => (Ipv6Addr::LOCALHOST, port).into(),
    }
}

/// Listens on `port` in each of the families.
fn listen(families: &[IpFamily], port: u16) -> Result<Vec<TcpListener>, ListenersError> {
    let listen = |address| {
        let socket = bind(address)?;
        // Accepted sockets inherit both. The relay gathers bytes before it writes, so Nagle's algorithm would only
        // delay them.
        keep_alive(&socket)?;
        socket.set_tcp_nodelay(true)?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    let addresses = families.iter().map(|&family| loopback(family, port));
    addresses
        .map(|address| listen(address).map_err(|source| ListenersError::Listen { address, source }))
        .collect()
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = tcp_socket(Domain::for_address(address))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Read;
    use std::net::TcpStream;

    use ambit_common::{LISTENER_SLOTS, listener_slot};

    use super::*;
    use crate::sockets::keep_alive::tests::ensure_kept_alive;
    use crate::testing::{bare_netns, fresh_netns, is_root};

    fn ports(set: &PodListenerSet) -> BTreeSet<u16> {
        set.ports
            .into_iter()
            .flatten()
            .filter(|&port| port != 0)
            .collect()
    }

    fn set_sysctl(pod: &NetnsHandle, name: &str, value: &str) {
        let write = || std::fs::write(format!("/proc/sys/net/{name}"), value);
        pod.enter(write).expect("enter").expect("write");
    }

    #[test]
    fn every_listener_has_its_own_slot_and_each_pair_its_port() {
        if !is_root() {
            return;
        }
        let set = PodListenerSet::make(&fresh_netns(), MAX_SHARDS).expect("listeners");
        let mut slots = BTreeSet::new();
        for (kind, family, shard, listener) in set.iter() {
            let port = set.ports[kind as usize][shard as usize];
            let address = listener.local_addr().expect("address");
            assert_eq!(address, loopback(family, port));
            assert!(slots.insert(listener_slot(kind, family, shard)));
        }
        assert_eq!(slots.len(), LISTENER_SLOTS as usize);
        assert_eq!(ports(&set).len(), 3 * MAX_SHARDS);
        assert_eq!(set.ports.map(|of_kind| of_kind[0]), [15001, 15006, 15008]);
    }

    #[test]
    fn what_a_listener_accepts_is_kept_alive_and_not_delayed() {
        if !is_root() {
            return;
        }
        let pod = fresh_netns();
        let set = PodListenerSet::make(&pod, 1).expect("listeners");
        for (_, _, _, listener) in set.iter() {
            let to = listener.local_addr().expect("address");
            let client = pod.enter(|| TcpStream::connect(to)).expect("enter");
            let (accepted, _) = listener.accept().expect("accepts");
            ensure_kept_alive(&accepted);
            assert!(accepted.nodelay().expect("TCP_NODELAY"));
            drop(client);
        }
    }

    #[test]
    fn a_taken_port_gives_its_neighbour_to_both_families() {
        if !is_root() {
            return;
        }
        let pod = fresh_netns();
        let _application = pod
            .enter(|| TcpListener::bind("[::1]:15001"))
            .expect("enter")
            .expect("free");
        let set = PodListenerSet::make(&pod, 1).expect("listeners");
        assert_eq!(set.ports.map(|of_kind| of_kind[0]), [15002, 15006, 15008]);
        assert_eq!(set.iter().count(), 6);
    }

    #[test]
    fn ports_avoid_the_ephemeral_range() {
        if !is_root() {
            return;
        }
        let pod = fresh_netns();
        for (range, expected) in [("15000 60000", 60001..=65535), ("1024 65535", 1..=1023)] {
            set_sysctl(&pod, "ipv4/ip_local_port_range", range);
            let set = PodListenerSet::make(&pod, 2).expect("listeners");
            assert!(
                ports(&set).iter().all(|port| expected.contains(port)),
                "{:?}",
                set.ports
            );
        }
    }

    #[test]
    fn without_ipv6_there_are_only_ipv4_listeners() {
        if !is_root() {
            return;
        }
        let pod = fresh_netns();
        set_sysctl(&pod, "ipv6/conf/all/disable_ipv6", "1");
        let set = PodListenerSet::make(&pod, 1).expect("listeners");
        assert_eq!(set.iter().count(), 3);
        assert!(set.iter().all(|(_, family, _, _)| family == IpFamily::V4));
    }

    #[test]
    fn a_loopback_interface_that_is_down_is_an_error() {
        if !is_root() {
            return;
        }
        let error = PodListenerSet::make(&bare_netns(), 1).expect_err("lo is down");
        assert!(matches!(error, ListenersError::LoopbackDown), "{error}");
    }

    #[test]
    fn no_other_socket_gets_the_port() {
        if !is_root() {
            return;
        }
        let pod = fresh_netns();
        let _set = PodListenerSet::make(&pod, 1).expect("listeners");
        let intrude = |reuse_port: bool| {
            let socket = tcp_socket(Domain::IPV4)?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(reuse_port)?;
            socket.bind(&loopback(IpFamily::V4, 15001).into())
        };
        for reuse_port in [false, true] {
            let error = pod
                .enter(|| intrude(reuse_port))
                .expect("enter")
                .expect_err("taken");
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn a_restart_finds_the_same_ports() {
        if !is_root() {
            return;
        }
        let pod = fresh_netns();
        let set = PodListenerSet::make(&pod, 1).expect("listeners");
        let connect = || TcpStream::connect("127.0.0.1:15001");
        let mut client = pod.enter(connect).expect("enter").expect("connects");
        let listener = &set.shards[0].outbound[0];
        listener.set_nonblocking(false).expect("blocking");
        // The agent's end closes first, so TIME_WAIT is on its port.
        drop(listener.accept().expect("accepts"));
        assert_eq!(client.read(&mut [0]).expect("ends"), 0);
        drop(client);
        drop(set);
        let set = PodListenerSet::make(&pod, 1).expect("listeners");
        assert_eq!(set.ports.map(|of_kind| of_kind[0]), [15001, 15006, 15008]);
    }
}
