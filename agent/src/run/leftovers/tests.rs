use super::*;
use ambit_datapath::DatapathError;
use ambit_model::testing::{parts, pod};
use ambit_model::{
    DATAPLANE_MODE_LABEL, NamespaceInfo, NetnsReference, NeverEnrolled, SnapshotParts,
};

const NODE: &str = "node-a";
const LIVES: NetnsLife = NetnsLife::Alive(4711);

fn served() -> Workload {
    Workload {
        node: Some(NODE.into()),
        netns: Some(NetnsReference::Path("/nowhere".into())),
        ..pod("a/web", &["10.0.0.1"])
    }
}

fn out() -> Workload {
    Workload {
        membership: Membership::NotOptedIn,
        ..served()
    }
}

fn mesh(workloads: Vec<Workload>) -> SnapshotParts {
    let mode = (DATAPLANE_MODE_LABEL.to_owned(), "none".to_owned());
    SnapshotParts {
        workloads,
        namespaces: [(
            "a".into(),
            NamespaceInfo {
                labels: [mode].into(),
            },
        )]
        .into(),
        ..parts()
    }
}

fn decision_on(mesh: SnapshotParts, owner: Option<&Workload>, life: NetnsLife) -> LeftoverDecision {
    let leftover = Leftover {
        netns: NetnsCookie(7),
        owner: Ok(owner.map(PodOwner::of)),
        life,
    };
    let snapshot = Snapshot::new(mesh);
    let claims = Claims::of(snapshot.workloads().iter());
    decide(&snapshot, NODE, &claims, &leftover)
}

fn is_kept(decision: &LeftoverDecision, reason: &str) -> bool {
    matches!(decision, LeftoverDecision::KeepClosed(why) if why.contains(reason))
}

/// Every way out of being served, and what becomes of the namespace while it lives.
#[test]
fn what_was_served_stays_closed_unless_its_objects_opt_it_out() {
    let another = Workload {
        uid: "another".into(),
        ..out()
    };
    let never = Workload {
        membership: Membership::Never(NeverEnrolled::IstioSidecar),
        ..served()
    };
    let elsewhere = Workload {
        node: Some("node-b".into()),
        ..served()
    };
    let out_elsewhere = Workload {
        node: Some("node-b".into()),
        ..out()
    };
    for (workloads, reason) in [
        (vec![served()], "not served in it"),
        (vec![], "object is gone"),
        (vec![another], "another pod has its pod's name"),
        (vec![never], "cannot be served"),
        (vec![elsewhere], "not on this node"),
        (vec![out_elsewhere], "not on this node"),
    ] {
        let decision = decision_on(mesh(workloads), Some(&served()), LIVES);
        assert!(is_kept(&decision, reason), "{reason}: {decision:?}");
    }
    let mut without_namespace = mesh(vec![out()]);
    without_namespace.namespaces.clear();
    let decision = decision_on(without_namespace.clone(), Some(&served()), LIVES);
    assert!(
        is_kept(&decision, "Namespace object is gone"),
        "{decision:?}"
    );
    let mode = (DATAPLANE_MODE_LABEL.to_owned(), "none".to_owned());
    without_namespace.workloads[0].labels.extend([mode]);
    for parts in [mesh(vec![out()]), without_namespace] {
        let decision = decision_on(parts, Some(&served()), LIVES);
        assert_eq!(decision, LeftoverDecision::Remove("its pod is opted out"));
    }
}

#[test]
fn an_object_of_another_uid_opts_out_the_namespace_that_it_names() {
    let path = "/proc/self/ns/net";
    let named = Workload {
        uid: "another".into(),
        netns: Some(NetnsReference::Path(path.into())),
        ..out()
    };
    let own = claimed(&named).expect("a namespace");
    let decision = decision_on(
        mesh(vec![named.clone()]),
        Some(&served()),
        NetnsLife::Alive(own),
    );
    assert_eq!(decision, LeftoverDecision::Remove("its pod is opted out"));
    let decision = decision_on(
        mesh(vec![named]),
        Some(&served()),
        NetnsLife::Alive(own + 1),
    );
    assert!(is_kept(&decision, "another pod"), "{decision:?}");
}

#[test]
fn what_is_gone_leaves_and_what_is_not_known_stays() {
    for owner in [None, Some(&served())] {
        let decision = decision_on(mesh(vec![served()]), owner, NetnsLife::Gone);
        assert_eq!(decision, LeftoverDecision::Remove("it is gone"));
    }
    let incomplete = SnapshotParts {
        complete: false,
        ..mesh(vec![out()])
    };
    let decision = decision_on(incomplete, Some(&served()), LIVES);
    assert!(is_kept(&decision, "not known in full"), "{decision:?}");
    let unreadable = Leftover {
        netns: NetnsCookie(7),
        owner: Err(DatapathError::NoMap("owner")),
        life: LIVES,
    };
    let snapshot = Snapshot::new(mesh(vec![out()]));
    let decision = super::decide(&snapshot, NODE, &Claims::default(), &unreadable);
    assert!(is_kept(&decision, "not known which pod"), "{decision:?}");
}

#[test]
fn an_agent_killed_while_it_enrols_a_pod_leaves_nothing_forever() {
    let decision = decision_on(mesh(vec![]), Some(&served()), NetnsLife::Unattached);
    assert!(
        matches!(decision, LeftoverDecision::Remove(_)),
        "{decision:?}"
    );
    let decision = decision_on(mesh(vec![served()]), Some(&served()), NetnsLife::Unattached);
    assert!(is_kept(&decision, "not served in it"), "{decision:?}");
}

#[test]
fn a_contested_namespace_stays_closed_until_all_that_name_it_are_out() {
    let naming = |name: &str, membership: Membership| Workload {
        membership,
        netns: Some(NetnsReference::Path("/proc/self/ns/net".into())),
        ..pod(name, &[])
    };
    let own = claimed(&naming("a/one", Membership::OptedIn)).expect("a namespace");
    for (second, is_out) in [(Membership::OptedIn, false), (Membership::NotOptedIn, true)] {
        let pods = vec![
            naming("a/one", Membership::NotOptedIn),
            naming("a/two", second),
        ];
        let decision = decision_on(mesh(pods), None, NetnsLife::Alive(own));
        assert_eq!(
            matches!(decision, LeftoverDecision::Remove(_)),
            is_out,
            "{decision:?}"
        );
    }
    let decision = decision_on(mesh(vec![]), None, LIVES);
    assert!(is_kept(&decision, "several pods"), "{decision:?}");
}
