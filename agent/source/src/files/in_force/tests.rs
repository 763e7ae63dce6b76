//! Tests of what is in force, with Istio's mesh-wide settings.

use super::*;
use ambit_model::{MeshRanges, PathNormalization, Revision, Snapshot, TrustBundle, TrustDomain};

const GOOD: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |-
    trustDomain: td1
    pathNormalization: {normalization: MERGE_SLASHES}
    extensionProviders:
    - name: opa
      envoyExtAuthzGrpc: {service: opa.tools.svc.cluster.local, port: 9191}
";

fn state() -> FilesInForce {
    let own = TrustDomain::new("cluster.local").expect("valid");
    let settings = SourceSettings {
        trust_bundle: TrustBundle::without_aliases(own),
        root_namespace: "istio-system".into(),
        revision: Revision::default(),
        ranges: MeshRanges::default(),
    };
    FilesInForce::new("/config".into(), settings)
}

fn load(state: &mut FilesInForce, text: &str) -> Snapshot {
    state.load(Ok(vec![FileReading {
        path: Arc::new("/config/mesh.yaml".into()),
        text: Ok(text.to_owned()),
    }]));
    Snapshot::new(state.parts())
}

fn knows_opa(snapshot: &Snapshot) -> bool {
    snapshot.mesh_settings().extension_provider("opa").is_some()
}

#[test]
fn a_broken_provider_is_a_fault_and_the_last_good_version_stays() {
    let mut state = state();
    let good = load(&mut state, GOOD);
    assert!(knows_opa(&good));
    let normalization = good.mesh_settings().path_normalization;
    assert_eq!(normalization, PathNormalization::MergeSlashes);
    let broken = load(&mut state, &GOOD.replace("port: 9191", "prot: 9191"));
    assert_eq!(broken.mesh_settings(), good.mesh_settings());
    let fault = broken.faults().first().expect("a fault");
    assert_eq!(
        fault.subject,
        "/config/mesh.yaml, document 1 (ConfigMap istio-system/istio)"
    );
    let place = "line 6, column 9, field data.mesh.extensionProviders[0].envoyExtAuthzGrpc.prot: ";
    assert!(fault.message.starts_with(place), "{}", fault.message);
    assert!(fault.last_good_in_force);
}

#[test]
fn a_provider_that_was_never_good_is_absent_and_the_mesh_incomplete() {
    let broken = load(&mut state(), &GOOD.replace("port: 9191", "port: none"));
    assert!(!knows_opa(&broken));
    assert!(!broken.is_complete());
}

#[test]
fn another_trust_domain_is_a_fault_and_changes_nothing_else() {
    let snapshot = load(&mut state(), GOOD);
    assert_eq!(snapshot.trust_domain().as_str(), "cluster.local");
    assert!(snapshot.is_complete() && knows_opa(&snapshot));
    let [fault] = snapshot.faults() else {
        panic!("{:?}", snapshot.faults())
    };
    assert_eq!(
        fault.subject,
        "/config/mesh.yaml, document 1 (ConfigMap istio-system/istio)"
    );
    assert!(fault.message.contains("\"td1\""), "{}", fault.message);
}

#[test]
fn only_the_root_namespaces_istio_counts_and_it_may_go() {
    let mut state = state();
    for other in [
        GOOD.replace("name: istio,", "name: istio-canary,"),
        GOOD.replace("namespace: istio-system", "namespace: shop"),
    ] {
        let snapshot = load(&mut state, &other);
        assert!(!knows_opa(&snapshot) && snapshot.faults().is_empty());
    }
    assert!(knows_opa(&load(&mut state, GOOD)));
    assert!(!knows_opa(&load(&mut state, "# nothing\n")));
}

const DENIAL: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: shop}
spec: {action: DENY, rules: [{}]}
";

/// It cannot be known which workloads a policy of an unknown kind selects, so the document is broken.
#[test]
fn a_misspelt_kind_is_a_fault_and_the_last_good_version_stays() {
    for (written, misspelt) in [
        ("AuthorizationPolicy", "AuthorisationPolicy"),
        ("security.istio.io/v1", "security.istio.io/v2"),
        ("security.istio.io/v1", "security.isto.io/v1"),
        ("spec:", "Spec:"),
    ] {
        let broken = DENIAL.replace(written, misspelt);
        let mut state = state();
        let first = load(&mut state, &broken);
        assert!(!first.is_complete(), "{misspelt}: pods stay closed");
        assert_eq!(first.faults().len(), 1, "{misspelt}");
        let good = load(&mut state, DENIAL);
        assert!(good.is_complete() && good.faults().is_empty());
        let after = load(&mut state, &broken);
        assert_eq!(after.policies(), good.policies(), "{misspelt}");
        let [fault] = after.faults() else {
            panic!("{misspelt}: {:?}", after.faults())
        };
        assert!(fault.last_good_in_force);
        assert!(fault.subject.contains("shop/deny"), "{fault:?}");
        assert!(
            fault.message.contains("if you mean that") || misspelt.ends_with("v2"),
            "{fault:?}"
        );
    }
}

/// Reading one of these files took ten seconds, and everything else waited.
#[test]
fn a_file_that_nests_too_deeply_is_a_fault_and_other_files_do_not_wait_for_it() {
    const DENY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                        metadata: {name: deny, namespace: shop}\nspec: {action: DENY, rules: [{}]}\n";
    let mut state = state();
    load(&mut state, GOOD);
    let nested = format!("{GOOD}---\n{}", "[".repeat(80_000));
    let files = [("mesh", nested.as_str()), ("zz", DENY)].map(|(name, text)| FileReading {
        path: Arc::new(format!("/config/{name}.yaml").into()),
        text: Ok(text.to_owned()),
    });
    state.load(Ok(files.into()));
    let snapshot = Snapshot::new(state.parts());
    assert!(knows_opa(&snapshot), "the last good version is in force");
    assert_eq!(snapshot.policies().len(), 1);
    let fault = snapshot.faults().first().expect("a fault");
    assert!(
        fault.subject.starts_with("/config/mesh.yaml, document 2"),
        "{fault:?}"
    );
    assert!(fault.message.contains("line 13, column 129"), "{fault:?}");
    assert!(fault.last_good_in_force);
}

/// A string that contains YAML is read by the same reader.
#[test]
fn mesh_settings_that_nest_too_deeply_are_a_fault() {
    let flow = GOOD.replace(
        "trustDomain: td1",
        &format!("trustDomain: {}", "[".repeat(20_000)),
    );
    let snapshot = load(&mut state(), &flow);
    let fault = snapshot.faults().first().expect("a fault");
    assert!(
        fault.message.contains("deeper than 128 levels"),
        "{fault:?}"
    );
}
