//! Requests and their answers over a netlink socket (RFC 3549; `linux/netlink.h`).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send,
    socket,
};

/// Length of a message's header.
const HEADER: usize = size_of::<libc::nlmsghdr>();

/// The size of the receive buffer. The kernel puts at most 32 KiB into one datagram.
const BUFFER: usize = 64 * 1024;

/// What the kernel answers with.
#[derive(Clone, Copy)]
pub(crate) enum ReplyMode {
    /// All objects that match.
    Dump,
    /// Whether it was done.
    Acknowledgement,
}

/// A netlink socket that only the kernel can send to.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open(protocol: SockProtocol) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
        // A socket that is connected to the kernel refuses what a process with CAP_NET_ADMIN in the same
        // namespace sends to it.
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// Sends a request and passes the payload of each answer to `receive`.
    ///
    /// # Errors
    /// The error that the kernel answers with or that `receive` returns; `InvalidData` for a malformed
    /// answer.
    pub(crate) fn request(
        &mut self,
        message_type: u16,
        answer: ReplyMode,
        payload: &[u8],
        mut receive: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let message = encode(message_type, answer, self.sequence, payload);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty())?;
        loop {
            let length = self.receive_datagram()?;
            let mut rest = &self.buffer[..length];
            while !rest.is_empty() {
                let (message, next) = NetlinkMessage::split(rest)?;
                rest = next;
                if message.sequence != self.sequence {
                    continue;
                }
                match message.message_type {
                    DONE | ERROR => return message.result(),
                    NOOP => {}
                    OVERRUN => return Err(malformed("the kernel lost answers")),
                    _ => receive(message.payload)?,
                }
            }
        }
    }

    fn receive_datagram(&mut self) -> io::Result<usize> {
        loop {
            match recv(
                self.socket.as_raw_fd(),
                &mut self.buffer,
                MsgFlags::MSG_TRUNC,
            ) {
                Ok(length) if length <= self.buffer.len() => return Ok(length),
                Ok(_) => return Err(malformed("a datagram is longer than the kernel's limit")),
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

const NOOP: u16 = libc::NLMSG_NOOP as u16;
const ERROR: u16 = libc::NLMSG_ERROR as u16;
const DONE: u16 = libc::NLMSG_DONE as u16;
const OVERRUN: u16 = libc::NLMSG_OVERRUN as u16;

fn encode(message_type: u16, answer: ReplyMode, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let flags = libc::NLM_F_REQUEST
        | match answer {
            ReplyMode::Dump => libc::NLM_F_DUMP,
            ReplyMode::Acknowledgement => libc::NLM_F_ACK,
        };
    let length = (HEADER + payload.len()) as u32;
    let port_of_the_kernel = 0_u32;
    let mut message = Vec::with_capacity(HEADER + payload.len());
    message.extend(length.to_ne_bytes());
    message.extend(message_type.to_ne_bytes());
    message.extend((flags as u16).to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend(port_of_the_kernel.to_ne_bytes());
    message.extend(payload);
    message
}

/// One message of a datagram.
struct NetlinkMessage<'a> {
    message_type: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl<'a> NetlinkMessage<'a> {
    /// Splits off the first message. Returns it and the rest.
    fn split(datagram: &'a [u8]) -> io::Result<(Self, &'a [u8])> {
        let header = datagram
            .get(..HEADER)
            .ok_or_else(|| malformed("a header is cut off"))?;
        let length = word(header, 0)? as usize;
        let payload = datagram
            .get(HEADER..length)
            .ok_or_else(|| malformed("a message's length is wrong"))?;
        let message = Self {
            message_type: word(header, 4)? as u16,
            sequence: word(header, 8)?,
            payload,
        };
        let aligned = length.next_multiple_of(4).min(datagram.len());
        Ok((message, &datagram[aligned..]))
    }

    /// Returns what the last message of an answer says: a negative error number, or success.
    fn result(&self) -> io::Result<()> {
        match word(self.payload, 0)? as i32 {
            code if code < 0 => Err(io::Error::from_raw_os_error(-code)),
            _ => Ok(()),
        }
    }
}

/// Returns the 32 bits at `offset`, in host order.
///
/// # Errors
/// `InvalidData` if `bytes` is too short.
pub(crate) fn word(bytes: &[u8], offset: usize) -> io::Result<u32> {
    let word = bytes.get(offset..).and_then(<[u8]>::first_chunk);
    word.copied()
        .map(u32::from_ne_bytes)
        .ok_or_else(|| malformed("a message is cut off"))
}

/// Makes the error for a malformed answer.
pub(crate) fn malformed(what: &'static str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("malformed netlink answer: {what}"),
    )
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{getsockname, sendto};

    use super::*;
    use crate::testing::is_root;

    #[test]
    fn messages_are_split_at_their_aligned_length() {
        let mut datagram = encode(7, ReplyMode::Dump, 1, b"abcde");
        datagram.extend([0; 3]);
        datagram.extend(encode(8, ReplyMode::Dump, 2, b""));
        let (first, rest) = NetlinkMessage::split(&datagram).expect("well-formed");
        assert_eq!(
            (first.message_type as u8, first.sequence, first.payload),
            (7, 1, &b"abcde"[..])
        );
        let (second, rest) = NetlinkMessage::split(rest).expect("well-formed");
        assert_eq!(
            (second.sequence, second.payload, rest.len()),
            (2, &b""[..], 0)
        );
    }

    #[test]
    fn broken_lengths_are_errors() {
        let good = encode(7, ReplyMode::Dump, 1, b"abcd");
        for length in [0_u32, 1, 15, 21, u32::MAX] {
            let mut message = good.clone();
            message[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(NetlinkMessage::split(&message).is_err(), "{length}");
        }
        for cut in 1..good.len() {
            assert!(NetlinkMessage::split(&good[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn an_error_number_is_an_error() {
        let error = (-libc::ENOENT).to_ne_bytes();
        let message = encode(ERROR, ReplyMode::Dump, 1, &error);
        let (message, _) = NetlinkMessage::split(&message).expect("well-formed");
        let error = message.result().expect_err("ENOENT");
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn only_the_kernel_can_answer() {
        if !is_root() {
            return;
        }
        let netlink = Netlink::open(SockProtocol::NetlinkSockDiag).expect("socket");
        let intruder = Netlink::open(SockProtocol::NetlinkSockDiag).expect("socket");
        send(netlink.socket.as_raw_fd(), &[0; 4], MsgFlags::empty()).expect("binds a port");
        let address: NetlinkAddr = getsockname(netlink.socket.as_raw_fd()).expect("address");
        let forged = encode(DONE, ReplyMode::Dump, 1, &[0; 4]);
        let flags = MsgFlags::empty();
        let sent = sendto(intruder.socket.as_raw_fd(), &forged, &address, flags);
        assert_eq!(sent, Err(nix::errno::Errno::ECONNREFUSED));
    }
}
