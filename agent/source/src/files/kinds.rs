//! Which kinds of objects are read, and which documents look like a misspelt one of them: a policy
//! whose kind is misspelt would otherwise be skipped, and its denial silently missing.

use serde_json::Value;

use crate::objects::ObjectError;
use crate::place::FieldPath;
use ambit_model::PolicyKind;

/// The group of the policy kinds. It has no other kinds.
const SECURITY: &str = "security.istio.io";

/// Its versions, which are the same.
const SECURITY_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

const POLICY_KINDS: [PolicyKind; 3] = [
    PolicyKind::AuthorizationPolicy,
    PolicyKind::PeerAuthentication,
    PolicyKind::RequestAuthentication,
];

/// The group of EndpointSlices.
const DISCOVERY: &str = "discovery.k8s.io";

const ENDPOINT_SLICE: &str = "EndpointSlice";

/// The suffix of Istio's groups.
const ISTIO: &str = "istio.io";

/// The version of Kubernetes' core group.
const CORE: &str = "v1";

/// The kinds of the core group that are read.
const READ_CORE_KINDS: [&str; 4] = ["Namespace", "Pod", "Service", "ConfigMap"];

/// The kinds of the core group that are not read, and are not misspelt ones.
const OTHER_CORE_KINDS: [&str; 14] = [
    "Binding",
    "ComponentStatus",
    "Endpoints",
    "Event",
    "LimitRange",
    "Node",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "PodTemplate",
    "ReplicationController",
    "ResourceQuota",
    "Secret",
    "ServiceAccount",
    "Status",
];

/// The fields of an object with a `spec`.
const FIELDS: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

/// The fields of `metadata`.
const METADATA_FIELDS: [&str; 16] = [
    "annotations",
    "clusterName",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// How similar a name must be to a known one to count as a misspelling of it, from 0 to 1.
const LIKENESS: f64 = 0.75;

/// The longest string, in bytes, that is compared with a name and shown in full: a comparison takes
/// time and memory in proportion.
const LONGEST: usize = 128;

/// The kind of a policy object; `None` for an object of another kind.
///
/// # Errors
/// If the document looks like a misspelt one of a kind that is read: skipping it would leave a policy
/// unenforced, or a pod or Service unknown.
pub(super) fn policy_kind(
    api_version: &str,
    kind: &str,
) -> Result<Option<PolicyKind>, ObjectError> {
    match api_version.rsplit_once('/') {
        Some((SECURITY, version)) => security_kind(version, kind).map(Some),
        Some((group, _)) => not_security(group, api_version, kind)
            .and_then(|()| not_discovery(group, kind))
            .map(|()| None),
        None => not_security("", api_version, kind)
            .and_then(|()| not_core(api_version, kind))
            .map(|()| None),
    }
}

fn security_kind(version: &str, kind: &str) -> Result<PolicyKind, ObjectError> {
    let Some(known) = POLICY_KINDS
        .into_iter()
        .find(|known| known.as_str() == kind)
    else {
        if POLICY_KINDS
            .iter()
            .any(|known| is_list_of(kind, known.as_str()))
        {
            return Err(without_items(kind));
        }
        let problem = format!(
            "{SECURITY} has no kind {:?}; write {} if you mean that",
            shown(kind),
            nearest_policy(kind).0
        );
        return Err(ObjectError::new(FieldPath::at("kind"), problem));
    };
    if SECURITY_VERSIONS.contains(&version) {
        return Ok(known);
    }
    let version = shown(version);
    let problem = format!("version {version:?} of {kind} is not known; use v1 or v1beta1");
    Err(ObjectError::new(FieldPath::at("apiVersion"), problem))
}

/// Ensures that an object of another group is not a misspelt policy: by its group, if that is
/// [`SECURITY`] in another spelling, or by both its kind and its group. Other projects have kinds of
/// the same names in their own groups.
fn not_security(group: &str, api_version: &str, kind: &str) -> Result<(), ObjectError> {
    let (group, whole) = (folded(group), folded(api_version));
    let (nearest, kind_likeness) = nearest_policy(kind);
    let group_is_meant = group == SECURITY || whole == SECURITY;
    let group_may_be_meant = group.is_empty()
        || group.ends_with(ISTIO)
        || likeness(&group, SECURITY) >= LIKENESS
        || likeness(&whole, SECURITY) >= LIKENESS;
    let kind_is_meant = kind_likeness >= LIKENESS;
    let is_meant = group_is_meant || (group_may_be_meant && kind_is_meant);
    if !is_meant {
        return Ok(());
    }
    let (api_version, kind) = (shown(api_version), shown(kind));
    let problem = format!(
        "{api_version:?} has no kind {kind:?}; write {SECURITY}/v1 and {nearest} if you mean that"
    );
    Err(ObjectError::new(FieldPath::at("apiVersion"), problem))
}

/// Ensures that an object is not a misspelt EndpointSlice. Correct ones were read before.
fn not_discovery(group: &str, kind: &str) -> Result<(), ObjectError> {
    if folded(group) != DISCOVERY {
        return Ok(());
    }
    if is_list_of(kind, ENDPOINT_SLICE) {
        return Err(without_items(kind));
    }
    let known = [ENDPOINT_SLICE.to_owned(), format!("{ENDPOINT_SLICE}List")];
    match nearest(kind, known.into_iter()) {
        Some((meant, likeness)) if likeness >= LIKENESS => {
            let problem = format!(
                "{:?} has no kind {:?}; write {DISCOVERY}/v1 and {meant} if you mean that",
                shown(group),
                shown(kind)
            );
            Err(ObjectError::new(FieldPath::at("kind"), problem))
        }
        _ => Ok(()),
    }
}

/// Ensures that an object without a group is not a misspelt one of the core kinds that are read.
fn not_core(version: &str, kind: &str) -> Result<(), ObjectError> {
    if OTHER_CORE_KINDS.contains(&kind) {
        return Ok(());
    }
    if READ_CORE_KINDS.contains(&kind) {
        // The mesh configuration is not the only ConfigMap.
        if version == CORE {
            return Ok(());
        }
        let version = shown(version);
        let problem = format!("version {version:?} of {kind} is not known; use {CORE}");
        return Err(ObjectError::new(FieldPath::at("apiVersion"), problem));
    }
    if kind == "List" || READ_CORE_KINDS.iter().any(|known| is_list_of(kind, known)) {
        return Err(without_items(kind));
    }
    let lists = READ_CORE_KINDS.iter().map(|known| format!("{known}List"));
    let known = READ_CORE_KINDS.map(str::to_owned).into_iter().chain(lists);
    let known = known.chain(["List".to_owned()]);
    match nearest(kind, known) {
        Some((meant, likeness)) if likeness >= LIKENESS => {
            let problem = format!(
                "there is no kind {:?}; write {meant} if you mean that",
                shown(kind)
            );
            Err(ObjectError::new(FieldPath::at("kind"), problem))
        }
        _ => Ok(()),
    }
}

/// Ensures that a policy object has only known fields: with a misspelt `spec` it would be empty, and
/// with a misspelt `metadata.namespace` it would apply elsewhere.
pub(super) fn only_known_fields(object: &Value) -> Result<(), ObjectError> {
    known_fields(object, &FIELDS, &FieldPath::default())?;
    match object.get("metadata") {
        Some(metadata) => known_fields(metadata, &METADATA_FIELDS, &FieldPath::at("metadata")),
        None => Ok(()),
    }
}

fn known_fields(value: &Value, known: &[&str], at: &FieldPath) -> Result<(), ObjectError> {
    let fields = value.as_object().into_iter().flatten();
    for (name, _) in fields {
        if known.contains(&name.as_str()) {
            continue;
        }
        let meant = nearest(name, known.iter().map(|known| (*known).to_owned()));
        let hint = match meant {
            Some((meant, likeness)) if likeness >= LIKENESS => {
                format!("write {meant} if you mean that")
            }
            _ => "remove it".to_owned(),
        };
        let problem = format!("unknown field; {hint}");
        return Err(ObjectError::new(at.key(name), problem));
    }
    Ok(())
}

fn is_list_of(kind: &str, known: &str) -> bool {
    kind.strip_suffix("List") == Some(known)
}

fn without_items(kind: &str) -> ObjectError {
    let problem = format!("missing; it holds the objects of a {kind}");
    ObjectError::new(FieldPath::at("items"), problem)
}

fn nearest_policy(kind: &str) -> (String, f64) {
    let known = POLICY_KINDS.iter().map(|known| known.as_str().to_owned());
    nearest(kind, known).unwrap_or_default()
}

/// The known name that is most similar, ignoring case, and how similar it is.
fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<(String, f64)> {
    let scored = known.map(|known| {
        let likeness = likeness(&folded(name), &folded(&known));
        (known, likeness)
    });
    scored.max_by(|(_, one), (_, other)| one.total_cmp(other))
}

fn likeness(one: &str, other: &str) -> f64 {
    if one.len() > LONGEST {
        return 0.0;
    }
    strsim::normalized_damerau_levenshtein(one, other)
}

fn folded(text: &str) -> String {
    text.trim().to_lowercase()
}

/// The beginning of a string that is shown.
fn shown(text: &str) -> &str {
    let cut = (0..=LONGEST).rev().find(|&at| text.is_char_boundary(at));
    cut.and_then(|at| text.get(..at)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(api_version: &str, kind: &str) -> String {
        let error = policy_kind(api_version, kind).expect_err(&format!("{api_version} {kind}"));
        error.to_string()
    }

    #[test]
    fn policies_are_known_by_group_version_and_kind() {
        for kind in POLICY_KINDS {
            for version in ["security.istio.io/v1", "security.istio.io/v1beta1"] {
                assert_eq!(policy_kind(version, kind.as_str()), Ok(Some(kind)));
            }
        }
    }

    #[test]
    fn no_other_kind_and_no_other_version_of_the_group_is_skipped() {
        for (version, kind, says) in [
            (
                "v1",
                "AuthorisationPolicy",
                "write AuthorizationPolicy if you mean that",
            ),
            (
                "v1",
                "authorizationpolicy",
                "write AuthorizationPolicy if you mean that",
            ),
            (
                "v1",
                "AuthorizationPolicies",
                "write AuthorizationPolicy if you mean that",
            ),
            (
                "v1",
                "AuthorizationPolicy ",
                "write AuthorizationPolicy if you mean that",
            ),
            (
                "v1",
                "PeerAuthentification",
                "write PeerAuthentication if you mean that",
            ),
            (
                "v1beta1",
                "RequestAuthn",
                "write RequestAuthentication if you mean that",
            ),
            ("v1", "Foo", "no kind \"Foo\""),
            ("v1", "AuthorizationPolicyList", "items: missing"),
            ("v1alpha1", "AuthorizationPolicy", "use v1 or v1beta1"),
            ("v2", "PeerAuthentication", "use v1 or v1beta1"),
            ("V1", "PeerAuthentication", "use v1 or v1beta1"),
            ("v2", "Foo", "no kind \"Foo\""),
        ] {
            let problem = problem(&format!("security.istio.io/{version}"), kind);
            assert!(problem.contains(says), "{version} {kind}: {problem}");
        }
    }

    #[test]
    fn a_misspelt_group_is_not_another_group() {
        for version in [
            "security.istio.io /v1",
            " security.istio.io/v1",
            "Security.Istio.io/v1",
            "SECURITY.ISTIO.IO/v1",
            "security.isto.io/v1",
            "securty.istio.io/v1beta1",
            "security.istio.io.io/v1",
            "security.istio/v1",
            "security.istio.io",
            "security.istio.io/v1/",
            "istio.io/v1",
            "networking.istio.io/v1",
            "authentication.istio.io/v1alpha1",
            "v1",
            "v1beta1",
        ] {
            for kind in [
                "AuthorizationPolicy",
                "peerauthentication",
                "RequestAuthentications",
            ] {
                let problem = problem(version, kind);
                assert!(
                    problem.contains("security.istio.io/v1 and"),
                    "{version}: {problem}"
                );
            }
        }
        // A group that can only be a misspelling is enough, whatever the kind.
        assert!(problem("Security.istio.io/v1", "Foo").contains("security.istio.io/v1"));
    }

    #[test]
    fn core_kinds_that_are_read_are_not_misspelt() {
        for (version, kind, says) in [
            ("v1", "pod", "write Pod if you mean that"),
            ("v1", "Pods", "write Pod if you mean that"),
            ("v1", "Namspace", "write Namespace if you mean that"),
            ("v1", "NameSpace", "write Namespace if you mean that"),
            ("v1", "services", "write Service if you mean that"),
            ("v1", "Configmap", "write ConfigMap if you mean that"),
            ("v1", "list", "write List if you mean that"),
            ("v1", "podList", "write PodList if you mean that"),
            ("v1", "List", "items: missing"),
            ("v1", "PodList", "items: missing"),
            (
                "discovery.k8s.io/v1",
                "EndpointSlices",
                "write discovery.k8s.io/v1 and EndpointSlice",
            ),
            (
                "Discovery.k8s.io/v1",
                "EndpointSlice",
                "write discovery.k8s.io/v1 and EndpointSlice",
            ),
            ("discovery.k8s.io/v1", "EndpointSliceList", "items: missing"),
            ("v1beta1", "Service", "use v1"),
            ("V1", "Pod", "use v1"),
            ("v1 ", "Namespace", "use v1"),
        ] {
            let problem = problem(version, kind);
            assert!(problem.contains(says), "{version} {kind}: {problem}");
        }
    }

    #[test]
    fn long_strings_are_not_compared_and_are_cut() {
        let long = "ä".repeat(1 << 20);
        let kind = problem("security.istio.io/v1", &long);
        let version = problem(&format!("security.istio.io/{long}"), "AuthorizationPolicy");
        for problem in [kind, version] {
            assert!(problem.len() < 500, "{} bytes", problem.len());
        }
        assert_eq!(policy_kind(&long, &long), Ok(None));
        let fields = serde_json::json!({ long: 1 });
        assert!(only_known_fields(&fields).is_err());
    }

    #[test]
    fn kinds_of_other_projects_are_skipped() {
        for (version, kind) in [
            ("v1", "Secret"),
            ("v1", "ServiceAccount"),
            ("v1", "PodTemplate"),
            ("v1", "Endpoints"),
            ("v1", "ConfigMap"),
            ("v1", "Config"),
            ("apps/v1", "Deployment"),
            ("networking.istio.io/v1", "VirtualService"),
            ("networking.istio.io/v1alpha3", "EnvoyFilter"),
            ("telemetry.istio.io/v1", "Telemetry"),
            ("extensions.istio.io/v1alpha1", "WasmPlugin"),
            ("authentication.istio.io/v1alpha1", "Policy"),
            ("rbac.istio.io/v1alpha1", "ServiceRole"),
            ("policy.linkerd.io/v1alpha1", "AuthorizationPolicy"),
            (
                "networksecurity.cnrm.cloud.google.com/v1beta1",
                "AuthorizationPolicy",
            ),
            ("security.openshift.io/v1", "SecurityContextConstraints"),
            ("serving.knative.dev/v1", "Service"),
            ("kuadrant.io/v1", "AuthPolicy"),
            ("gateway.networking.k8s.io/v1", "Gateway"),
        ] {
            assert_eq!(policy_kind(version, kind), Ok(None), "{version} {kind}");
        }
    }
}
