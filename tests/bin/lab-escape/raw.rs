//! A SYN that no TCP socket sends.

use std::fs;
use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::Failure;
use crate::packet::{ACK, RST, SYN, syn};

/// The limit for an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// How the packet is sent.
#[derive(Clone, Copy)]
pub(crate) enum By {
    /// As the routing table says: a raw socket.
    Routing,
    /// A packet socket, which sends directly to the device.
    Device,
}

/// Sends a SYN, and returns `syn-ack` or `reset`, the answer.
pub(crate) fn knock(by: By, from: SocketAddr, to: SocketAddr) -> Result<&'static str, Failure> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else {
        return Err("only IPv4".into());
    };
    let answers = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP))?;
    answers.set_read_timeout(Some(PATIENCE / 4))?;
    let packet = syn(from.into(), to.into(), b"")?;
    match by {
        By::Routing => {
            answers.set_header_included_v4(true)?;
            answers.send_to(&packet, &SockAddr::from(to))?;
        }
        By::Device => send_from_device("eth0", &[packet])?,
    }
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 128];
        let Ok(length) = answers.recv(&mut buffer) else {
            continue;
        };
        // SAFETY: recv has written this many bytes.
        let packet: Vec<u8> = buffer[..length]
            .iter()
            .map(|byte| unsafe { byte.assume_init() })
            .collect();
        match flags(&packet, to, from.port()) {
            Some(flags) if flags & (SYN | ACK) == SYN | ACK => return Ok("syn-ack"),
            Some(flags) if flags & RST != 0 => return Err("reset".into()),
            _ => {}
        }
    }
    Err("silence".into())
}

/// The TCP flags of a packet from `peer` to a port.
fn flags(packet: &[u8], peer: SocketAddrV4, port: u16) -> Option<u8> {
    let header = usize::from(packet.first()? & 15) * 4;
    let (ip, tcp) = packet.split_at_checked(header)?;
    let is_from_peer =
        ip.get(12..16)? == peer.ip().octets() && tcp.get(..2)? == peer.port().to_be_bytes();
    (is_from_peer && tcp.get(2..4)? == port.to_be_bytes()).then(|| tcp.get(13).copied())?
}

/// Sends SYNs from successive source ports, and does not wait for an answer.
pub(crate) fn forge(
    device: &str,
    first: SocketAddr,
    to: SocketAddr,
    count: u16,
    data: &str,
) -> Result<(), Failure> {
    let packets = (0..count).map(|number| {
        let port = first.port().checked_add(number).ok_or("no such port")?;
        syn(SocketAddr::new(first.ip(), port), to, data.as_bytes())
    });
    send_from_device(device, &packets.collect::<Result<Vec<_>, _>>()?)
}

/// Sends IP packets of one family to the neighbour at a device, which must be in the table of IPv4
/// neighbours.
fn send_from_device(device: &str, packets: &[Vec<u8>]) -> Result<(), Failure> {
    let first = packets.first().and_then(|packet| packet.first());
    let protocol = match first.ok_or("no packet")? >> 4 {
        4 => libc::ETH_P_IP,
        _ => libc::ETH_P_IPV6,
    };
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
    // SAFETY: all zeroes are a valid address.
    let mut to: libc::sockaddr_ll = unsafe { zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_protocol = (protocol as u16).to_be();
    to.sll_ifindex = i32::try_from(nix::net::if_::if_nametoindex(device)?)?;
    to.sll_halen = 6;
    let neighbour = neighbour(device)?;
    for (byte, digits) in to.sll_addr.iter_mut().zip(neighbour.split(':')) {
        *byte = u8::from_str_radix(digits, 16)?;
    }
    for packet in packets {
        // SAFETY: packet and address outlive the call, and the sizes are theirs.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error().into());
        }
    }
    Ok(())
}

/// The hardware address of a neighbour at a device.
fn neighbour(device: &str) -> Result<String, Failure> {
    let table = fs::read_to_string("/proc/thread-self/net/arp")?;
    let found = table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, hardware, _, at] = fields[..] else {
            return None;
        };
        (at == device).then(|| hardware.to_owned())
    });
    Ok(found.ok_or("no neighbour is known")?)
}
