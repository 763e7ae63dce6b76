//! TCP segments over IP, octet by octet.

use std::net::{IpAddr, SocketAddr};

use crate::Failure;

/// The control bits of a segment (RFC 9293, section 3.1).
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

const TCP: u8 = 6;
const TCP_HEADER: usize = 20;
const IPV4_HEADER: usize = 20;

/// A SYN with or without data.
///
/// # Errors
///
/// If the addresses are of different families, or the data is too long.
pub(crate) fn syn(from: SocketAddr, to: SocketAddr, data: &[u8]) -> Result<Vec<u8>, Failure> {
    let length = u16::try_from(TCP_HEADER + data.len())?;
    let (mut packet, pseudo_header) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let ends = [from.octets(), to.octets()].concat();
            let pseudo_header = [&ends[..], &[0, TCP], &length.to_be_bytes()].concat();
            (ipv4_header(&ends, length)?, pseudo_header)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let ends = [from.octets(), to.octets()].concat();
            let length_32 = u32::from(length).to_be_bytes();
            let pseudo_header = [&ends[..], &length_32, &[0, 0, 0, TCP]].concat();
            (ipv6_header(&ends, length), pseudo_header)
        }
        _ => return Err("two families".into()),
    };
    let mut tcp = Vec::from(from.port().to_be_bytes());
    tcp.extend(to.port().to_be_bytes());
    // Sequence 1; 20 bytes of header; a window; checksum and urgent pointer.
    tcp.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, SYN, 0x10, 0, 0, 0, 0, 0]);
    tcp.extend(data);
    let sum = checksum(&[&pseudo_header[..], &tcp].concat());
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    packet.extend(tcp);
    Ok(packet)
}

fn ipv4_header(ends: &[u8], payload: u16) -> Result<Vec<u8>, Failure> {
    let length = payload
        .checked_add(IPV4_HEADER as u16)
        .ok_or("the data is too long")?;
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 0, 0, 0, 64, TCP, 0, 0]);
    header.extend(ends);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    Ok(header)
}

fn ipv6_header(ends: &[u8], payload: u16) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(payload.to_be_bytes());
    header.extend([TCP, 64]);
    header.extend(ends);
    header
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or_default();
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}
