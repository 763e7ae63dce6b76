//! Closes a socket so that what was sent on it arrives.
//!
//! A reset makes the kernel throw away what it has not sent yet, and close() resets a connection on which
//! bytes wait to be read. So a socket is closed only when its peer's kernel has acknowledged all that was
//! written. The peer's application can then read it, also after a reset.
//!
//! Nothing here cuts a connection that has to end at once: whoever owns it drops the future, and the socket
//! is reset, as [`on_close`] was told before.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::{CloseMode, on_close};

/// A reader that takes nothing for this long is reset, if its connection is over but for what it has not
/// read. Linux gives up an orphaned connection after about as long (`tcp_orphan_retries`: eight probes of a
/// closed window take 100 s).
pub const STALLED_AFTER: Duration = Duration::from_secs(120);

/// The pause before the second look at what is not acknowledged. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How the wait for a peer's acknowledgement ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drained {
    /// The peer's kernel has all that was written.
    Acknowledged,
    /// The connection is gone.
    Gone,
    /// The peer took nothing for [`STALLED_AFTER`]. The socket is reset when it is dropped.
    Stalled,
}

/// Waits until the peer's kernel has all that was written to `stream`. If it does, the peer sees `close` when
/// the socket is dropped; until then, and otherwise, a reset.
pub async fn drain_then(stream: &TcpStream, close: CloseMode) -> Drained {
    on_close(stream, CloseMode::Reset);
    let drained = drain(stream).await;
    if drained == Drained::Acknowledged {
        on_close(stream, close);
    }
    drained
}

async fn drain(stream: &TcpStream) -> Drained {
    let mut reader = Reader::new();
    let mut pause = FIRST_PAUSE;
    loop {
        match unacknowledged(stream) {
            Ok(Unacknowledged::Bytes(0)) => return Drained::Acknowledged,
            Ok(Unacknowledged::Bytes(bytes)) if reader.is_stalled(bytes) => {
                return Drained::Stalled;
            }
            Ok(Unacknowledged::Bytes(_)) => {}
            Ok(Unacknowledged::Gone) => return Drained::Gone,
            Err(error) => {
                tracing::debug!(%error, "what a connection has not sent yet could not be read");
                return Drained::Gone;
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Resolves when the peer of `stream` has taken nothing for [`STALLED_AFTER`], although something waits for
/// it. What is written meanwhile counts as progress, since the kernel takes it only if there is room.
pub async fn stalled(stream: &TcpStream) {
    let mut reader = Reader::new();
    loop {
        // If the connection is gone, whoever writes to it finds out.
        if let Ok(Unacknowledged::Bytes(bytes)) = unacknowledged(stream)
            && reader.is_stalled(bytes)
        {
            return;
        }
        sleep(LONGEST_PAUSE).await;
    }
}

/// Resolves when nothing has been counted for [`STALLED_AFTER`].
pub(crate) async fn unmoved(count: impl Fn() -> u64) {
    loop {
        let before = count();
        sleep(STALLED_AFTER).await;
        if count() == before {
            return;
        }
    }
}

/// What is known about a reader's progress.
struct Reader {
    unacknowledged: usize,
    since: Instant,
}

impl Reader {
    fn new() -> Self {
        Self {
            unacknowledged: 0,
            since: Instant::now(),
        }
    }

    fn is_stalled(&mut self, unacknowledged: usize) -> bool {
        if unacknowledged == 0 || unacknowledged != self.unacknowledged {
            *self = Self {
                unacknowledged,
                since: Instant::now(),
            };
        }
        self.since.elapsed() >= STALLED_AFTER
    }
}

/// What a socket's peer has not acknowledged.
enum Unacknowledged {
    /// So many bytes; the end of the stream counts as one.
    Bytes(usize),
    /// There is no peer any more.
    Gone,
}

fn unacknowledged(stream: &TcpStream) -> io::Result<Unacknowledged> {
    // A reset does not empty the count.
    if is_closed(stream)? {
        return Ok(Unacknowledged::Gone);
    }
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ, which is SIOCOUTQ for a socket, writes one int, to `bytes`.
    if unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Unacknowledged::Bytes(usize::try_from(bytes).unwrap_or(0)))
}

/// Whether a socket is in the state CLOSED, as after a reset. Unlike SO_ERROR, this takes nothing away that a
/// later read has to report.
fn is_closed(stream: &TcpStream) -> io::Result<bool> {
    /// `TCP_CLOSE` of `net/tcp_states.h`.
    const CLOSED: u8 = 7;
    // The first byte of `struct tcp_info`. The kernel writes no more than there is room for.
    let mut state = 0_u8;
    let mut length = size_of::<u8>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, to `state`.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut state).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(state == CLOSED)
}
