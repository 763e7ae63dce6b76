//! Tells an application that has closed its socket from one that has ended its sending only.
//!
//! Both look alike on the wire: FIN. The application that has ended its sending may go on reading for as long
//! as it likes. If it has closed its socket, no one reads what is sent to it, and its connection must not wait
//! for the other side to end, too.

use std::borrow::Borrow;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::drain::unmoved;
use crate::socket::Socket;

/// How long after an application's FIN it is first asked whether its socket is closed. Most connections have
/// ended by then.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between two such questions; each pause is twice the one before. It is shorter than
/// Linux keeps a socket that was closed after the other side acknowledged its FIN
/// (`tcp_fin_timeout`, 60 s).
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Resolves when the application at the other end of `stream` has ended its sending, and then `has_closed`
/// says that it has closed its socket.
pub async fn departed(stream: &TcpStream, has_closed: impl Fn(&TcpStream) -> bool) {
    // Also resolves at the first urgent byte, which leads to questions that are answered with no.
    if stream.ready(Interest::PRIORITY).await.is_err() {
        return std::future::pending().await;
    }
    let mut pause = FIRST_PAUSE;
    loop {
        sleep(pause).await;
        if has_closed(stream) {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Resolves when the application at the other end of `socket` has left, in order or not, and then nothing has been
/// counted for [`STALLED_AFTER`](crate::STALLED_AFTER): the other side takes nothing of what the application has
/// left behind.
pub async fn left_and_unmoved<S: Borrow<TcpStream>>(
    socket: &Socket<S>,
    has_closed: impl Fn(&TcpStream) -> bool,
    count: impl Fn() -> u64,
) {
    tokio::select! {
        () = socket.failed() => {}
        () = departed(socket.stream(), has_closed) => {}
    }
    unmoved(count).await;
}
