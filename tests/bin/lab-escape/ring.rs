//! connect and accept without their system calls.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::types::Fd;
use io_uring::{IoUring, opcode, squeue};
use socket2::{SockAddr, Socket};

use crate::Failure;

pub(crate) fn connect(socket: Socket, to: SocketAddr) -> io::Result<Socket> {
    let to = SockAddr::from(to);
    let entry = opcode::Connect::new(Fd(socket.as_raw_fd()), to.as_ptr().cast(), to.len());
    // SAFETY: socket and address outlive the call.
    unsafe { submit(entry.build()) }?;
    Ok(socket)
}

/// Accepts one connection, and prints the address that it was given for its peer.
pub(crate) fn accept(listen: SocketAddr) -> Result<(), Failure> {
    let listener = TcpListener::bind(listen)?;
    println!("listening");
    // SAFETY: all zeroes are a valid address.
    let mut caller: libc::sockaddr_in = unsafe { zeroed() };
    let mut size = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    let listener = Fd(listener.as_raw_fd());
    let entry = opcode::Accept::new(listener, (&raw mut caller).cast(), &raw mut size);
    // SAFETY: listener, address and size outlive the call.
    let accepted = unsafe { submit(entry.build()) }?;
    // SAFETY: the descriptor is new, and nothing else owns it.
    drop(unsafe { OwnedFd::from_raw_fd(accepted) });
    let ip = Ipv4Addr::from(u32::from_be(caller.sin_addr.s_addr));
    println!(
        "accepted {}",
        SocketAddr::from((ip, u16::from_be(caller.sin_port)))
    );
    Ok(())
}

/// Submits one operation to the kernel, and waits for its result.
///
/// # Safety
///
/// What the entry points to must live until this returns.
unsafe fn submit(entry: squeue::Entry) -> io::Result<i32> {
    let mut ring = IoUring::new(1)?;
    // SAFETY: the caller keeps what the entry points to.
    unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
    ring.submit_and_wait(1)?;
    let done = ring.completion().next().ok_or(io::ErrorKind::NotFound)?;
    match done.result() {
        error @ ..0 => Err(io::Error::from_raw_os_error(-error)),
        result => Ok(result),
    }
}
