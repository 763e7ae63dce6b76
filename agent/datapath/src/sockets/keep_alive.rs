//! Keep-alive on the agent's connections: without it, a connection whose other end has vanished (a node that
//! lost its power, a cut link) would keep its place under the pod's caps for good.
//!
//! A listener's setting is inherited by what it accepts. What the agent dials is set by the connect hook.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use ambit_common::{KEEP_ALIVE_IDLE_S, KEEP_ALIVE_INTERVAL_S, KEEP_ALIVE_PROBES};
use socket2::{SockRef, TcpKeepalive};

const IDLE: Duration = Duration::from_secs(KEEP_ALIVE_IDLE_S as u64);
const INTERVAL: Duration = Duration::from_secs(KEEP_ALIVE_INTERVAL_S as u64);

/// Turns keep-alive on.
pub(crate) fn keep_alive(socket: &impl AsFd) -> io::Result<()> {
    let times = TcpKeepalive::new()
        .with_time(IDLE)
        .with_interval(INTERVAL)
        .with_retries(KEEP_ALIVE_PROBES);
    SockRef::from(socket).set_tcp_keepalive(&times)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn ensure_kept_alive(socket: &impl AsFd) {
        let socket = SockRef::from(socket);
        assert!(socket.keepalive().expect("SO_KEEPALIVE"));
        assert_eq!(socket.tcp_keepalive_time().expect("TCP_KEEPIDLE"), IDLE);
        let interval = socket.tcp_keepalive_interval().expect("TCP_KEEPINTVL");
        assert_eq!(interval, INTERVAL);
        assert_eq!(
            socket.tcp_keepalive_retries().expect("TCP_KEEPCNT"),
            KEEP_ALIVE_PROBES
        );
    }
}
