use super::*;
use ambit_model::testing::{parts, pod};

fn holds(mesh: ambit_model::SnapshotParts, address: &str) -> Result<(), Termination> {
    let view = MeshView::new(Arc::new(Snapshot::new(mesh)));
    let own = pod("shop/web", &["10.0.1.1"]);
    let address = address.parse().expect("an address");
    Judge::new(&view, &own).still_holds(&Requirement::Outside(address))
}

/// An address outside the mesh is reached in plaintext; once it joins the mesh, it is not.
#[test]
fn a_connection_to_the_outside_ends_when_its_address_joins_the_mesh() {
    let with = |membership| {
        let mut mesh = parts();
        mesh.workloads.push(Workload {
            membership,
            ..pod("tools/authorizer", &["192.0.2.1"])
        });
        mesh
    };
    for address in ["192.0.2.1:9000", "127.0.0.1:9000"] {
        assert!(holds(parts(), address).is_ok());
        assert!(holds(with(Membership::NotOptedIn), address).is_ok());
    }
    let joined = holds(with(Membership::OptedIn), "192.0.2.1:9000");
    assert!(matches!(joined, Err(Termination::AddressJoined(_))));
    let mut ranged = parts();
    ranged.ranges.included = vec!["192.0.2.0/24".parse().expect("a network")];
    let joined = holds(ranged, "192.0.2.1:9000");
    assert!(matches!(joined, Err(Termination::AddressJoined(_))));
}
