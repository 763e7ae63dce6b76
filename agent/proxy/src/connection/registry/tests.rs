use std::net::SocketAddr;

use futures_util::FutureExt;

use super::*;
use ambit_relay::Meter;

fn context(direction: ConnectionDirection) -> Rc<ConnectionContext<()>> {
    let end = || ConnectionEnd::unknown(SocketAddr::from(([10, 0, 0, 1], 80)));
    Rc::new(ConnectionContext {
        pod: Rc::new(()),
        direction,
        path: Some(Path::Tunnel),
        source: end(),
        destination: end(),
        meter: Meter::default(),
        started: Instant::now(),
        number: Cell::default(),
    })
}

/// They stay open until the pod is no longer served, and would hold up whoever waits for the rest.
#[test]
fn connections_to_authorizers_are_not_waited_for() {
    let registry = Registry::new(Rc::default());
    let register = |direction| {
        let requirement = Requirement::Outside(SocketAddr::from(([192, 0, 2, 1], 80)));
        registry.register(context(direction), requirement)
    };
    let consulting = register(ConnectionDirection::Authorizer);
    for direction in [ConnectionDirection::Inbound, ConnectionDirection::Outbound] {
        let connection = register(direction);
        assert!(registry.emptied().now_or_never().is_none());
        drop(connection);
        assert!(registry.emptied().now_or_never().is_some());
    }
    assert_eq!(registry.len(), 1);
    drop(consulting);
    assert_eq!(registry.len(), 0);
}
