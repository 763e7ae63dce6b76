//! Accepts the connections that come to a pod's listeners, and survives the errors of accept(2).

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::pod::ServedPod;
use super::turns::Budget;
use crate::{hbone, inbound, outbound};
use ambit_datapath::PodListeners;

/// The pause after an error that the next accept would meet again, such as too many open files.
const BACKOFF: Duration = Duration::from_millis(50);

/// Starts accepting on the listeners of a pod. Each connection is served in a task of its own.
pub(super) fn listen(pod: &Rc<ServedPod>, listeners: PodListeners) -> io::Result<()> {
    let PodListeners {
        outbound,
        plaintext,
        hbone,
    } = listeners;
    let outbound = adopt(outbound)?;
    let plaintext = adopt(plaintext)?;
    let hbone = adopt(hbone)?;
    for listener in outbound {
        accept(pod, listener, outbound::serve);
    }
    for listener in plaintext {
        accept(pod, listener, inbound::serve_plaintext);
    }
    for listener in hbone {
        accept(pod, listener, hbone::server::serve);
    }
    Ok(())
}

fn adopt(listeners: Vec<std::net::TcpListener>) -> io::Result<Vec<TcpListener>> {
    listeners.into_iter().map(TcpListener::from_std).collect()
}

fn accept<S>(
    pod: &Rc<ServedPod>,
    listener: TcpListener,
    serve: impl Fn(Rc<ServedPod>, TcpStream, SocketAddr) -> S + 'static,
) where
    S: Future<Output = ()> + 'static,
{
    let served = Rc::clone(pod);
    let budget = Rc::clone(pod.tasks.budget());
    pod.tasks
        .spawn_accepting(accept_each(listener, budget, move |stream, peer| {
            let connection = serve(Rc::clone(&served), stream, peer);
            served.tasks.spawn(connection);
        }));
}

/// Passes each accepted connection to `serve` until the future is dropped.
///
/// An error never ends it: a peer that left early is skipped, and a node short of descriptors or
/// memory gets a pause. When the pod's budget is used up, accepting goes on in the next turn.
async fn accept_each(
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

/// An accepted connection whose peer sees a reset, never an orderly end, if this is dropped.
#[derive(Debug)]
pub(crate) struct ResetOnDrop(Option<TcpStream>);

impl ResetOnDrop {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(Some(stream))
    }

    /// Returns the connection, which stays here.
    #[expect(
        clippy::expect_used,
        reason = "taken nowhere else but by value and on drop"
    )]
    pub(crate) fn stream(&self) -> &TcpStream {
        self.0.as_ref().expect("not taken yet")
    }

    /// Returns the connection, which is no longer reset on drop.
    #[expect(clippy::expect_used, reason = "taken nowhere else but on drop")]
    pub(crate) fn into_inner(mut self) -> TcpStream {
        self.0.take().expect("taken only once, by value")
    }
}

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        let Some(stream) = self.0.take() else { return };
        if let Err(error) = stream.set_zero_linger() {
            // The connection then closes in the orderly way; no byte was served.
            tracing::debug!(%error, "a refused connection cannot be reset");
        }
    }
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
