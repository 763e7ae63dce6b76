//! Whether packets to an address stay on this node.

use std::io;
use std::net::IpAddr;

use nix::sys::socket::SockProtocol;

use crate::kernel::netlink::{Netlink, ReplyMode, malformed};

/// The length of `struct rtmsg` (`linux/rtnetlink.h`), which libc does not have.
const ROUTE_MESSAGE: usize = 12;

/// The offset of `rtm_type` in it.
const TYPE_OFFSET: usize = 7;

/// Whether the routes of the calling thread's network namespace deliver packets to `address` on this node, or
/// to more than one host. The kernel answers, so addresses of all interfaces and local ranges are known.
///
/// # Errors
/// ENETUNREACH or a similar error if there is no route; another error if the kernel does not answer.
pub fn is_local(address: IpAddr) -> io::Result<bool> {
    let mut netlink = Netlink::open(SockProtocol::NetlinkRoute)?;
    let mut kind = None;
    netlink.request(
        libc::RTM_GETROUTE,
        ReplyMode::Acknowledgement,
        &route_request(address),
        |payload| {
            let byte = payload.get(TYPE_OFFSET);
            kind = Some(*byte.ok_or_else(|| malformed("a route is cut off"))?);
            Ok(())
        },
    )?;
    let kind = kind.ok_or_else(|| malformed("there is no route in it"))?;
    Ok(kind != libc::RTN_UNICAST)
}

/// Makes a `struct rtmsg` that asks for the route to one address, with its `RTA_DST`.
fn route_request(address: IpAddr) -> Vec<u8> {
    let (family, bytes) = match address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    let bits = (bytes.len() * 8) as u8;
    let length = (size_of::<libc::rtattr>() + bytes.len()) as u16;
    let mut message = vec![0; ROUTE_MESSAGE];
    message[0] = family as u8;
    message[1] = bits;
    message.extend(length.to_ne_bytes());
    message.extend(libc::RTA_DST.to_ne_bytes());
    message.extend(bytes);
    message
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::testing::{fresh_netns, is_root};

    fn ip(arguments: &str) {
        let status = Command::new("ip").args(arguments.split(' ')).status();
        assert!(status.expect("iproute2").success(), "ip {arguments}");
    }

    #[test]
    fn what_stays_on_the_node_is_told_from_what_leaves_it() {
        if !is_root() {
            return;
        }
        let told = fresh_netns().enter(|| {
            ip("link add veth0 type veth peer name veth1");
            ip("addr add 192.0.2.7/24 dev veth0");
            ip("addr add 2001:db8::7/64 dev veth0 nodad");
            ip("link set veth0 up");
            ip("link set veth1 up");
            ip("route add local 198.51.100.0/24 dev lo");
            [
                "127.0.0.1",
                "127.9.9.9",
                "192.0.2.7",
                "192.0.2.255",
                "198.51.100.3",
                "::1",
                "2001:db8::7",
                "192.0.2.8",
                "2001:db8::8",
                "203.0.113.1",
            ]
            .map(|text| is_local(text.parse().expect("an address")).ok())
        });
        let (local, other) = (Some(true), Some(false));
        assert_eq!(
            told.expect("entered"),
            [
                local, local, local, local, local, local, local, other, other, None
            ]
        );
    }
}
