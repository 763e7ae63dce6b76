use super::super::testing::{parts, pod, service, slice};
use super::super::{AppProtocol, Destination, Membership, SlicePort, SnapshotParts, TargetPort};
use super::*;

const DIALLED: &str = "10.96.0.1:80";

/// A Service without a selector, three pods in another namespace, and these slices of it.
fn mesh(slices: Vec<EndpointSlice>) -> SnapshotParts {
    let mut mesh = parts();
    mesh.ranges.included = vec!["10.0.0.0/8".parse().expect("valid")];
    mesh.workloads = vec![
        pod("b/one", &["10.0.0.1", "fd00::1"]),
        Workload {
            ready: false,
            ..pod("b/two", &["10.0.0.2"])
        },
        Workload {
            membership: Membership::NotOptedIn,
            ..pod("b/out", &["10.0.0.3"])
        },
    ];
    let mut web = service(
        "a/web",
        &["10.96.0.1", "fd96::1"],
        80,
        TargetPort::Number(9),
    );
    web.selector.clear();
    mesh.services.push(web);
    mesh.endpoint_slices = slices;
    mesh
}

fn found(mesh: SnapshotParts, dialled: &str) -> (Vec<String>, Vec<String>) {
    match Snapshot::new(mesh).destination(dialled.parse().expect("valid")) {
        Destination::Service {
            endpoints, unknown, ..
        } => {
            let text = |endpoint: &ServiceEndpoint| match endpoint {
                ServiceEndpoint::Pod(target) => {
                    format!("{} {}", target.workload.name, target.address)
                }
                ServiceEndpoint::Outside(address) => format!("outside {address}"),
            };
            (
                endpoints.iter().map(text).collect(),
                unknown.iter().map(ToString::to_string).collect(),
            )
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn slices_say_where_a_service_leads_and_their_ports_have_numbers() {
    let listed = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "192.0.2.1", "10.0.0.9"];
    let slices = vec![
        slice("a/web", &listed, 8080),
        slice("a/web", &["10.0.0.1", "192.0.2.2"], 8080),
        slice("a/other", &["192.0.2.3"], 8080),
        slice("b/web", &["192.0.2.4"], 8080),
    ];
    let (known, unknown) = found(mesh(slices), DIALLED);
    assert_eq!(
        known,
        [
            "b/one 10.0.0.1:8080",
            "b/two 10.0.0.2:8080",
            "b/out 10.0.0.3:8080",
            "outside 192.0.2.1:8080",
            "outside 192.0.2.2:8080",
        ]
    );
    assert_eq!(unknown, ["10.0.0.9:8080"]);
}

#[test]
fn endpoints_are_of_the_family_that_was_dialled() {
    let slices = vec![
        slice("a/web", &["10.0.0.1"], 8080),
        slice("a/web", &["fd00::1"], 8080),
    ];
    let (known, _) = found(mesh(slices.clone()), DIALLED);
    assert_eq!(known, ["b/one 10.0.0.1:8080"]);
    let (known, _) = found(mesh(slices), "[fd96::1]:80");
    assert_eq!(known, ["b/one [fd00::1]:8080"]);
}

#[test]
fn slices_win_over_the_selector() {
    let mut mesh = mesh(vec![slice("a/web", &["10.0.0.1"], 8080)]);
    mesh.workloads.push(pod("a/selected", &["10.0.0.4"]));
    mesh.services[0] = service("a/web", &["10.96.0.1"], 80, TargetPort::Number(9));
    let (known, _) = found(mesh.clone(), DIALLED);
    assert_eq!(known, ["b/one 10.0.0.1:8080"]);
    mesh.endpoint_slices.clear();
    let (known, _) = found(mesh, DIALLED);
    assert_eq!(known, ["a/selected 10.0.0.4:9"]);
}

#[test]
fn ports_are_matched_by_name() {
    let named = |name: &str, port| SlicePort {
        name: Some(name.to_owned()),
        port,
    };
    let mut mesh = mesh(vec![slice("a/web", &["10.0.0.1"], 8080)]);
    mesh.endpoint_slices[0].ports = vec![named("admin", 1), named("http", 2)];
    assert!(found(mesh.clone(), DIALLED).0.is_empty());
    mesh.services[0].ports[0].name = Some("http".to_owned());
    assert_eq!(found(mesh, DIALLED).0, ["b/one 10.0.0.1:2"]);
}

#[test]
fn terminating_endpoints_are_used_only_if_none_is_ready() {
    let mut mesh = mesh(vec![slice(
        "a/web",
        &["10.0.0.1", "10.0.0.2", "10.0.0.3"],
        80,
    )]);
    let states = [
        EndpointState::Ready,
        EndpointState::Ending,
        EndpointState::NotReady,
    ];
    for (endpoint, state) in mesh.endpoint_slices[0].endpoints.iter_mut().zip(states) {
        endpoint.state = state;
    }
    assert_eq!(found(mesh.clone(), DIALLED).0, ["b/one 10.0.0.1:80"]);
    mesh.endpoint_slices[0].endpoints.remove(0);
    assert_eq!(found(mesh.clone(), DIALLED).0, ["b/two 10.0.0.2:80"]);
    mesh.endpoint_slices[0].endpoints.remove(0);
    assert!(found(mesh, DIALLED).0.is_empty());
}

#[test]
fn the_address_of_several_objects_is_not_known() {
    let mut mesh = mesh(vec![slice("a/web", &["10.0.0.1", "10.96.0.1"], 80)]);
    mesh.workloads.push(pod("c/thief", &["10.0.0.1"]));
    let (known, unknown) = found(mesh, DIALLED);
    assert!(known.is_empty(), "{known:?}");
    assert_eq!(unknown, ["10.0.0.1:80", "10.96.0.1:80"]);
}

#[test]
fn slices_declare_ports_of_pods_of_their_own_namespace_only() {
    let mut mesh = mesh(vec![slice("a/web", &["10.0.0.1", "10.0.0.4"], 8080)]);
    mesh.workloads.push(pod("a/own", &["10.0.0.4"]));
    mesh.services[0].ports[0].protocol = AppProtocol::Http;
    let snapshot = Snapshot::new(mesh);
    let ports = |name: &str| {
        let pod = snapshot
            .workloads()
            .iter()
            .find(|one| &*one.name.name == name);
        snapshot.http_ports(pod.expect("known"))
    };
    assert_eq!(Vec::from_iter(ports("own")), [8080]);
    assert!(ports("one").is_empty());
}

#[test]
fn the_pods_behind_a_service_are_those_of_its_slices_or_of_its_selector() {
    let behind = |mesh: SnapshotParts| {
        let snapshot = Snapshot::new(mesh);
        let service = &snapshot.services()[0];
        let pods = snapshot.pods_behind(&service.name, &service.ports[0]);
        let text = |one: &PodBehind<'_>| format!("{} {}", one.workload.name, one.port);
        pods.iter().map(text).collect::<Vec<_>>()
    };
    let listed = slice("a/web", &["10.0.0.2", "192.0.2.1", "10.0.0.9"], 8080);
    assert_eq!(behind(mesh(vec![listed])), ["b/two 8080"]);
    let mut selecting = mesh(Vec::new());
    selecting.workloads.push(pod("a/own", &[]));
    selecting.services[0] = service("a/web", &[], 80, TargetPort::Number(9));
    assert_eq!(behind(selecting), ["a/own 9"]);
}
