//! Keep-alive on the agent's connections: without it, a connection whose other end has vanished (a node that
//! lost its power, a cut link) would keep its place under the pod's caps for good.
//!
//! A listener's setting is inherited by what it accepts.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// How long a connection may be silent before the other end is asked whether it is there.
const IDLE: Duration = Duration::from_secs(60);

/// Between two such questions.
const INTERVAL: Duration = Duration::from_secs(15);

/// How many of them may stay unanswered. The connection then ends, two minutes after the last sign of life.
const PROBES: u32 = 4;

/// Turns keep-alive on.
pub(crate) fn keep_alive(socket: &impl AsFd) -> io::Result<()> {
    let times = TcpKeepalive::new()
        .with_time(IDLE)
        .with_interval(INTERVAL)
        .with_retries(PROBES);
    SockRef::from(socket).set_tcp_keepalive(&times)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use ambit_common::IpFamily;

    use super::*;
    use crate::sockets::stock::SocketStock;
    use crate::testing::{fresh_netns, is_root};

    fn ensure_kept_alive(socket: &impl AsFd) {
        let socket = SockRef::from(socket);
        assert!(socket.keepalive().expect("SO_KEEPALIVE"));
        assert_eq!(socket.tcp_keepalive_time().expect("TCP_KEEPIDLE"), IDLE);
        let interval = socket.tcp_keepalive_interval().expect("TCP_KEEPINTVL");
        assert_eq!(interval, INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().expect("TCP_KEEPCNT"), PROBES);
    }

    #[test]
    fn what_a_listener_accepts_is_kept_alive() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
        keep_alive(&listener).expect("sets");
        let client = TcpStream::connect(listener.local_addr().expect("address"));
        let (accepted, _) = listener.accept().expect("accepts");
        ensure_kept_alive(&accepted);
        drop(client);
    }

    #[test]
    fn what_the_agent_dials_is_kept_alive() {
        if !is_root() {
            return;
        }
        let stock = SocketStock::new(fresh_netns());
        for family in IpFamily::ALL {
            ensure_kept_alive(&stock.take(family).expect("socket"));
        }
    }
}
