use std::collections::HashSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use ambit_model::{
    DataplaneMode, IstioClaim, Membership, NamespaceInfo, NetnsReference, NeverEnrolled,
    ObjectName, TrustDomain, Workload, WorkloadIdentity,
};

use super::ports::{named_ports, probe_ports};
use super::{ObjectError, address, namespaced_name};
use crate::place::FieldPath;

/// The annotation of Istio's injector.
const SIDECAR_STATUS: &str = "sidecar.istio.io/status";

/// The annotation of Istio's ambient mode.
const AMBIENT_REDIRECTION: &str = "ambient.istio.io/redirection";

/// The container that Istio's injector adds.
const SIDECAR_CONTAINER: &str = "istio-proxy";

/// A pod before its namespace is considered, whose label decides if the pod has none.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct PodObject {
    /// As in a namespace without labels.
    workload: Workload,
    never: Option<NeverEnrolled>,
}

impl PodObject {
    /// The workload of a pod; `None` for a pod that has ended.
    ///
    /// # Errors
    /// If a field that the mesh relies on has an impossible value.
    pub(crate) fn convert(
        pod: &Pod,
        trust_domain: &TrustDomain,
        netns: Option<NetnsReference>,
    ) -> Result<Option<Self>, ObjectError> {
        let name = namespaced_name(&pod.metadata)?;
        let Some(spec) = &pod.spec else {
            return Err(ObjectError::new(
                FieldPath::at("spec"),
                "missing; a Pod needs its containers",
            ));
        };
        if has_ended(pod.status.as_ref()) {
            return Ok(None);
        }
        let never = never_enrolled(&pod.metadata, spec);
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let workload = Workload {
            uid: uid(&pod.metadata, &name, netns.as_ref()),
            node: spec.node_name.as_deref().map(Into::into),
            addresses: addresses(spec, pod.status.as_ref())?,
            identity: identity(trust_domain, &name, spec)?,
            membership: membership(DataplaneMode::of(&labels), never),
            labels,
            ready: is_ready(pod),
            named_ports: named_ports(spec)?,
            probe_ports: probe_ports(spec)?,
            netns,
            istio_claim: istio_claim(&pod.metadata, spec),
            name,
        };
        Ok(Some(Self { workload, never }))
    }

    /// The pod's name.
    pub(crate) fn name(&self) -> &ObjectName {
        &self.workload.name
    }

    /// The pod's workload, given its namespace.
    pub(crate) fn in_namespace(&self, namespace: Option<&NamespaceInfo>) -> Workload {
        let of_namespace = namespace.map_or(DataplaneMode::Unset, NamespaceInfo::dataplane_mode);
        let mode = match DataplaneMode::of(&self.workload.labels) {
            DataplaneMode::Unset => of_namespace,
            own @ (DataplaneMode::Ambient | DataplaneMode::Outside) => own,
        };
        Workload {
            membership: membership(mode, self.never),
            ..self.workload.clone()
        }
    }
}

fn membership(mode: DataplaneMode, never: Option<NeverEnrolled>) -> Membership {
    match (mode, never) {
        (DataplaneMode::Outside | DataplaneMode::Unset, _) => Membership::NotOptedIn,
        (DataplaneMode::Ambient, Some(reason)) => Membership::Never(reason),
        (DataplaneMode::Ambient, None) => Membership::OptedIn,
    }
}

/// Annotations alone keep no pod out of the mesh: see [`IstioClaim`].
fn never_enrolled(metadata: &ObjectMeta, spec: &PodSpec) -> Option<NeverEnrolled> {
    if uses_node_network(spec) {
        Some(NeverEnrolled::HostNetwork)
    } else if annotation(metadata, SIDECAR_STATUS).is_some() && has_sidecar(spec) {
        Some(NeverEnrolled::IstioSidecar)
    } else if spec
        .runtime_class_name
        .as_deref()
        .is_some_and(is_foreign_kernel)
    {
        Some(NeverEnrolled::ForeignKernel)
    } else {
        None
    }
}

fn istio_claim(metadata: &ObjectMeta, spec: &PodSpec) -> IstioClaim {
    if annotation(metadata, SIDECAR_STATUS).is_some() && !has_sidecar(spec) {
        IstioClaim::Sidecar
    } else if annotation(metadata, AMBIENT_REDIRECTION) == Some("enabled") {
        IstioClaim::Ambient
    } else {
        IstioClaim::None
    }
}

fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    let annotations = metadata.annotations.as_ref()?;
    annotations.get(key).map(String::as_str)
}

/// Whether the pod has a container of the name that Istio gives its sidecar. A pod's containers
/// cannot be changed once it is made, unlike its annotations.
fn has_sidecar(spec: &PodSpec) -> bool {
    let init = spec.init_containers.iter().flatten();
    let native = init.filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let mut running = spec.containers.iter().chain(native);
    running.any(|container| container.name == SIDECAR_CONTAINER)
}

fn uses_node_network(spec: &PodSpec) -> bool {
    spec.host_network == Some(true)
}

/// The names under which gVisor and Kata Containers are installed by their own manifests.
fn is_foreign_kernel(runtime_class: &str) -> bool {
    matches!(runtime_class, "gvisor" | "runsc") || runtime_class.starts_with("kata")
}

fn has_ended(status: Option<&PodStatus>) -> bool {
    let phase = status.and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn is_ready(pod: &Pod) -> bool {
    if pod.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let Some(status) = &pod.status else {
        return true;
    };
    match &status.conditions {
        Some(conditions) => conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        None => matches!(status.phase.as_deref(), None | Some("Running")),
    }
}

fn uid(
    metadata: &ObjectMeta,
    name: &ObjectName,
    netns: Option<&NetnsReference>,
) -> std::sync::Arc<str> {
    match (metadata.uid.as_deref().filter(|uid| !uid.is_empty()), netns) {
        (Some(uid), _) => uid.into(),
        (None, None) => name.to_string().into(),
        (None, Some(NetnsReference::Path(path))) => format!("{name}@{}", path.display()).into(),
    }
}

fn identity(
    trust_domain: &TrustDomain,
    name: &ObjectName,
    spec: &PodSpec,
) -> Result<WorkloadIdentity, ObjectError> {
    let account = spec
        .service_account_name
        .as_deref()
        .filter(|text| !text.is_empty());
    let account = account.unwrap_or("default");
    WorkloadIdentity::new(trust_domain.clone(), &name.namespace, account).map_err(|error| {
        let names_account =
            WorkloadIdentity::new(trust_domain.clone(), "default", account).is_err();
        let field = if names_account {
            "spec.serviceAccountName"
        } else {
            "metadata.namespace"
        };
        ObjectError::new(FieldPath::at(field), error.to_string())
    })
}

/// A pod on the node's network does not have its own address.
fn addresses(spec: &PodSpec, status: Option<&PodStatus>) -> Result<Vec<IpAddr>, ObjectError> {
    let Some(status) = status.filter(|_| !uses_node_network(spec)) else {
        return Ok(Vec::new());
    };
    let listed = status
        .pod_ips
        .iter()
        .flatten()
        .enumerate()
        .map(|(index, pod_ip)| {
            let field = FieldPath::at("status.podIPs").index(index).key("ip");
            (pod_ip.ip.as_str(), field)
        });
    let single = status
        .pod_ip
        .iter()
        .map(|text| (text.as_str(), FieldPath::at("status.podIP")));
    let (mut addresses, mut known) = (Vec::new(), HashSet::new());
    for (text, field) in single.chain(listed).filter(|(text, _)| !text.is_empty()) {
        let address = address(text, field)?;
        if known.insert(address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(metadata: &str, spec: &str, status: &str) -> Result<Option<PodObject>, ObjectError> {
        let yaml = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: p, namespace: shop, {metadata}}}, \
             spec: {{{spec}}}, status: {{{status}}}}}"
        );
        let pod = serde_norway::from_str(&yaml).expect("a Pod");
        let trust_domain = TrustDomain::new("cluster.local").expect("valid");
        let netns = NetnsReference::Path("/run/netns/p".into());
        PodObject::convert(&pod, &trust_domain, Some(netns))
    }

    fn workload(metadata: &str, spec: &str, status: &str) -> Workload {
        let ambient = NamespaceInfo {
            labels: [("istio.io/dataplane-mode".to_owned(), "ambient".to_owned())].into(),
        };
        let pod = convert(metadata, spec, status)
            .expect("valid")
            .expect("running");
        pod.in_namespace(Some(&ambient))
    }

    #[test]
    fn identity_address_and_defaults() {
        let pod = workload(
            "labels: {app: p}",
            "serviceAccountName: payer, nodeName: n1",
            "podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}, {ip: '::ffff:10.0.0.2'}]",
        );
        assert_eq!(pod.identity.to_string(), "cluster.local/ns/shop/sa/payer");
        let addresses: Vec<_> = pod.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.0.1", "fd00::1", "10.0.0.2"]);
        assert_eq!(pod.node.as_deref(), Some("n1"));
        assert_eq!(&*pod.uid, "shop/p@/run/netns/p");
        assert!(pod.ready);
        let bare = workload("uid: u1", "", "");
        assert_eq!(bare.identity.service_account(), "default");
        assert_eq!(&*bare.uid, "u1");
        assert!(bare.addresses.is_empty());
    }

    #[test]
    fn the_pods_label_wins_over_its_namespaces() {
        let (label, ambient) = ("istio.io/dataplane-mode", "ambient");
        for (own, of_namespace, membership) in [
            (None, None, Membership::NotOptedIn),
            (None, Some(ambient), Membership::OptedIn),
            (None, Some("sidecar"), Membership::NotOptedIn),
            (Some(ambient), None, Membership::OptedIn),
            (Some("none"), Some(ambient), Membership::NotOptedIn),
            (Some("Ambient"), Some(ambient), Membership::NotOptedIn),
            (Some(""), Some(ambient), Membership::NotOptedIn),
        ] {
            let labels = own.map(|value| format!("labels: {{{label}: '{value}'}}"));
            let pod = convert(&labels.unwrap_or_default(), "", "")
                .expect("valid")
                .expect("running");
            let info = of_namespace.map(|value: &str| NamespaceInfo {
                labels: [(label.to_owned(), value.to_owned())].into(),
            });
            let case = format!("pod {own:?}, namespace {of_namespace:?}");
            assert_eq!(
                pod.in_namespace(info.as_ref()).membership,
                membership,
                "{case}"
            );
        }
    }

    #[test]
    fn what_is_never_enrolled() {
        for (metadata, spec, reason) in [
            ("", "hostNetwork: true", NeverEnrolled::HostNetwork),
            (
                "annotations: {sidecar.istio.io/status: '{}'}",
                "containers: [{name: p}, {name: istio-proxy}]",
                NeverEnrolled::IstioSidecar,
            ),
            (
                "annotations: {sidecar.istio.io/status: '{}'}",
                "initContainers: [{name: istio-proxy, restartPolicy: Always}]",
                NeverEnrolled::IstioSidecar,
            ),
            ("", "runtimeClassName: gvisor", NeverEnrolled::ForeignKernel),
            ("", "runtimeClassName: runsc", NeverEnrolled::ForeignKernel),
            (
                "",
                "runtimeClassName: kata-qemu",
                NeverEnrolled::ForeignKernel,
            ),
        ] {
            let opted_in = workload(metadata, spec, "");
            assert_eq!(
                opted_in.membership,
                Membership::Never(reason),
                "{metadata} {spec}"
            );
            let pod = convert(metadata, spec, "")
                .expect("valid")
                .expect("running");
            assert_eq!(pod.in_namespace(None).membership, Membership::NotOptedIn);
        }
        let other = workload(
            "annotations: {ambient.istio.io/redirection: disabled}",
            "runtimeClassName: runc, hostNetwork: false",
            "",
        );
        assert_eq!(other.membership, Membership::OptedIn);
    }

    #[test]
    fn annotations_alone_keep_no_pod_out_of_the_mesh() {
        let sidecar = "sidecar.istio.io/status: '{}'";
        let ambient = "ambient.istio.io/redirection: enabled";
        let both = format!("{sidecar}, {ambient}");
        let once = "initContainers: [{name: istio-proxy}]";
        for (annotations, spec, claim) in [
            (sidecar, "containers: [{name: p}]", IstioClaim::Sidecar),
            (sidecar, once, IstioClaim::Sidecar),
            (ambient, "", IstioClaim::Ambient),
            (&both, "", IstioClaim::Sidecar),
            (
                "ambient.istio.io/redirection: disabled",
                "",
                IstioClaim::None,
            ),
            ("", "containers: [{name: istio-proxy}]", IstioClaim::None),
        ] {
            let metadata = format!("annotations: {{{annotations}}}");
            let pod = workload(&metadata, spec, "");
            assert_eq!(pod.membership, Membership::OptedIn, "{annotations} {spec}");
            assert_eq!(pod.istio_claim, claim, "{annotations} {spec}");
        }
    }

    #[test]
    fn a_pod_on_the_node_network_has_no_address() {
        assert!(
            workload("", "hostNetwork: true", "podIP: 192.168.0.1")
                .addresses
                .is_empty()
        );
    }

    #[test]
    fn readiness() {
        for (metadata, status, ready) in [
            ("", "phase: Running", true),
            ("", "phase: Pending", false),
            (
                "",
                "phase: Running, conditions: [{type: Ready, status: 'True'}]",
                true,
            ),
            (
                "",
                "phase: Running, conditions: [{type: Ready, status: 'False'}]",
                false,
            ),
            (
                "",
                "phase: Running, conditions: [{type: Initialized, status: 'True'}]",
                false,
            ),
            (
                "deletionTimestamp: '2026-01-01T00:00:00Z'",
                "phase: Running",
                false,
            ),
        ] {
            assert_eq!(
                workload(metadata, "", status).ready,
                ready,
                "{metadata} {status}"
            );
        }
    }

    #[test]
    fn a_pod_that_has_ended_is_gone() {
        for phase in ["Succeeded", "Failed"] {
            let pod = convert("", "", &format!("phase: {phase}")).expect("valid");
            assert!(pod.is_none(), "{phase}");
        }
    }

    #[test]
    fn impossible_values_are_refused_with_their_field() {
        for (metadata, spec, status, message) in [
            (
                "",
                "serviceAccountName: 'a/b'",
                "",
                "field spec.serviceAccountName: \"a/b\" is not a valid service account of a SPIFFE \
                 identity",
            ),
            (
                "",
                "",
                "podIPs: [{ip: 10.0.0.1}, {ip: 10.0.0}]",
                "field status.podIPs[1].ip: \"10.0.0\" is not an IP address",
            ),
            (
                "",
                "",
                "podIP: 0.0.0.0",
                "field status.podIP: \"0.0.0.0\" is a loopback, unspecified or multicast address",
            ),
        ] {
            let error = convert(metadata, spec, status).expect_err(message);
            assert_eq!(error.to_string(), message);
        }
    }
}
