//! A SYN that no TCP socket sends.

use std::fs;
use std::io;
use std::mem::{MaybeUninit, size_of, size_of_val, zeroed};
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::Failure;

/// For an answer to come.
const PATIENCE: Duration = Duration::from_secs(1);

const IP_HEADER: usize = 20;
const TCP_HEADER: usize = 20;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// How it leaves.
#[derive(Clone, Copy)]
pub(crate) enum By {
    /// As the routing table says: a raw socket.
    Routing,
    /// From the device at once: a packet socket.
    Device,
}

/// Sends a SYN: `syn-ack` or `reset`, as it is answered.
pub(crate) fn knock(by: By, from: SocketAddr, to: SocketAddr) -> Result<&'static str, Failure> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else {
        return Err("only IPv4".into());
    };
    let answers = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP))?;
    answers.set_read_timeout(Some(PATIENCE / 4))?;
    let packet = syn(from, to);
    match by {
        By::Routing => {
            answers.set_header_included_v4(true)?;
            answers.send_to(&packet, &SockAddr::from(to))?;
        }
        By::Device => send_from_device(&packet)?,
    }
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 128];
        let Ok(length) = answers.recv(&mut buffer) else {
            continue;
        };
        // SAFETY: recv has written so many bytes.
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

fn syn(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let mut ip = vec![
        0x45,
        0,
        0,
        (IP_HEADER + TCP_HEADER) as u8,
        0,
        0,
        0,
        0,
        64,
        6,
        0,
        0,
    ];
    ip.extend(from.ip().octets());
    ip.extend(to.ip().octets());
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut tcp = Vec::from(from.port().to_be_bytes());
    tcp.extend(to.port().to_be_bytes());
    // Sequence 1; 20 bytes of header; a window; checksum and urgent pointer.
    tcp.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, SYN, 0x10, 0, 0, 0, 0, 0]);
    let mut summed = Vec::from(&ip[12..20]);
    summed.extend([0, 6, 0, TCP_HEADER as u8]);
    summed.extend(&tcp);
    let sum = checksum(&summed);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    ip.extend(tcp);
    ip
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}

/// Sends an IPv4 packet to the gateway of `eth0`, which must be known to its neighbour table.
fn send_from_device(packet: &[u8]) -> Result<(), Failure> {
    let table = fs::read_to_string("/proc/net/arp")?;
    let gateway = table
        .lines()
        .skip(1)
        .find_map(|line| line.split_whitespace().nth(3));
    let gateway = gateway.ok_or("no neighbour is known")?;
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
    // SAFETY: all zeroes are such an address.
    let mut to: libc::sockaddr_ll = unsafe { zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_protocol = (libc::ETH_P_IP as u16).to_be();
    to.sll_ifindex = i32::try_from(index_of("eth0")?)?;
    to.sll_halen = 6;
    for (byte, digits) in to.sll_addr.iter_mut().zip(gateway.split(':')) {
        *byte = u8::from_str_radix(digits, 16)?;
    }
    // SAFETY: packet and address outlive the call, and the sizes are theirs.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            size_of_val(packet),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    match sent {
        ..0 => Err(io::Error::last_os_error().into()),
        _ => Ok(()),
    }
}

fn index_of(device: &str) -> Result<u32, Failure> {
    Ok(nix::net::if_::if_nametoindex(device)?)
}
