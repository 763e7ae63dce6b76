use std::net::SocketAddr;

use futures_util::FutureExt;

use super::*;
use crate::connection::{Party, Path};

fn subject(direction: ConnectionDirection) -> Rc<Subject> {
    let end = || Party::unknown(SocketAddr::from(([10, 0, 0, 1], 80)));
    Rc::new(Subject {
        direction,
        path: Some(Path::Tunnel),
        source: end(),
        destination: end(),
    })
}

/// They stand until the pod is no longer served, and would hold up everybody who waits for the rest.
#[test]
fn connections_to_authorizers_are_not_waited_for() {
    let registry = Registry::new(Rc::default());
    let register = |direction| {
        let requirement = Requirement::Outside(SocketAddr::from(([192, 0, 2, 1], 80)));
        registry.register(subject(direction), requirement, Rc::default())
    };
    let asking = register(ConnectionDirection::Authorizer);
    for direction in [ConnectionDirection::Inbound, ConnectionDirection::Outbound] {
        let call = register(direction);
        assert!(registry.emptied().now_or_never().is_none());
        drop(call);
        assert!(registry.emptied().now_or_never().is_some());
    }
    assert_eq!(registry.len(), 1);
    drop(asking);
    assert_eq!(registry.len(), 0);
}
