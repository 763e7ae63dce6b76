//! Accepting connections, whatever happens to a single one of them.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::turns::Budget;

/// Pause after an error that the next accept would meet again, such as too many open files.
const BACKOFF: Duration = Duration::from_millis(50);

/// Hands every accepted connection to `serve`, for as long as the future lives.
///
/// An error never ends it: a peer that left early is skipped, and a node short of descriptors or
/// memory is given a moment. It accepts for as long as the pod's turn lasts, and goes on in the next
/// one.
pub(crate) async fn accept_each(
    listener: TcpListener,
    budget: Rc<Budget>,
    mut serve: impl FnMut(TcpStream, SocketAddr),
) {
    let mut failing = false;
    loop {
        budget.breathe().await;
        match listener.accept().await {
            Ok((stream, peer)) => {
                failing = false;
                // What the relay writes has been gathered already: waiting for more is a delay.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY could not be set");
                }
                serve(stream, peer);
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, listener = ?listener.local_addr().ok(),
                        "cannot accept connections; trying again");
                }
                failing = true;
                tokio::time::sleep(BACKOFF).await;
            }
        }
    }
}

/// Whether an error of accept() belongs to the connection that would have been accepted; accept(2)
/// lists the network errors that Linux hands over in this way.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::EPERM
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_short_of_something_backs_off_and_a_lost_peer_does_not() {
        let concerns = |errno| concerns_one_connection(&io::Error::from_raw_os_error(errno));
        assert!(concerns(libc::ECONNABORTED));
        assert!(concerns(libc::EHOSTUNREACH));
        for errno in [
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOBUFS,
            libc::ENOMEM,
            libc::EINVAL,
        ] {
            assert!(!concerns(errno), "{}", io::Error::from_raw_os_error(errno));
        }
    }
}
