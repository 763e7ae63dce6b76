use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, ContainerPort, LifecycleHandler, PodSpec, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{ObjectError, is_tcp, port};
use crate::place::FieldPath;

/// The TCP ports of a pod by name; the first of a name counts, as in Kubernetes.
pub(super) fn named_ports(spec: &PodSpec) -> Result<BTreeMap<String, u16>, ObjectError> {
    let mut named = BTreeMap::new();
    for (field, container) in long_running(spec) {
        for (index, declared) in container.ports.iter().flatten().enumerate() {
            let field = field.key("ports").index(index).key("containerPort");
            let number = port(declared.container_port, field)?;
            if let Some(name) = tcp_name(declared) {
                named.entry(name.to_owned()).or_insert(number);
            }
        }
    }
    Ok(named)
}

/// The ports on which the kubelet itself dials a pod: probes and lifecycle hooks.
pub(super) fn probe_ports(spec: &PodSpec) -> Result<BTreeSet<u16>, ObjectError> {
    let mut ports = BTreeSet::new();
    for (field, container) in long_running(spec) {
        for (field, target) in dialled(&field, container) {
            ports.extend(resolve(target, container, field)?);
        }
    }
    Ok(ports)
}

/// The containers that run as long as the pod does: the ordinary ones, and init containers that
/// are restarted (Kubernetes 1.29). Others have neither probes nor a reachable port.
fn long_running(spec: &PodSpec) -> impl Iterator<Item = (FieldPath, &Container)> {
    let ordinary = spec.containers.iter().enumerate();
    let init = spec.init_containers.iter().flatten().enumerate();
    let restarted = init.filter(|(_, c)| c.restart_policy.as_deref() == Some("Always"));
    let located = |list: &'static str| {
        move |(index, container)| (FieldPath::at(list).index(index), container)
    };
    ordinary
        .map(located("spec.containers"))
        .chain(restarted.map(located("spec.initContainers")))
}

/// What the kubelet dials in one container, with the field that says so.
fn dialled<'a>(field: &FieldPath, container: &'a Container) -> Vec<(FieldPath, PortTarget<'a>)> {
    let probes = [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ];
    let lifecycle = container.lifecycle.as_ref();
    let hooks = [
        (
            "postStart",
            lifecycle.and_then(|hooks| hooks.post_start.as_ref()),
        ),
        (
            "preStop",
            lifecycle.and_then(|hooks| hooks.pre_stop.as_ref()),
        ),
    ];
    let of_probes = probes.into_iter().filter_map(|(name, probe)| {
        let (action, target) = probe_target(probe.as_ref()?)?;
        Some((field.key(name).key(action).key("port"), target))
    });
    let of_hooks = hooks.into_iter().filter_map(|(name, hook)| {
        let (action, target) = hook_target(hook?)?;
        let field = field.key("lifecycle").key(name).key(action);
        Some((field.key("port"), target))
    });
    of_probes.chain(of_hooks).collect()
}

/// A port as an action names it.
#[derive(Clone, Copy)]
enum PortTarget<'a> {
    Number(i32),
    Name(&'a str),
}

impl<'a> From<&'a IntOrString> for PortTarget<'a> {
    fn from(port: &'a IntOrString) -> Self {
        match port {
            IntOrString::Int(number) => Self::Number(*number),
            IntOrString::String(name) => Self::Name(name),
        }
    }
}

fn probe_target(probe: &Probe) -> Option<(&'static str, PortTarget<'_>)> {
    let http = probe
        .http_get
        .as_ref()
        .filter(|get| dials_pod(get.host.as_deref()));
    let tcp = probe
        .tcp_socket
        .as_ref()
        .filter(|tcp| dials_pod(tcp.host.as_deref()));
    let grpc = probe.grpc.as_ref();
    http.map(|get| ("httpGet", PortTarget::from(&get.port)))
        .or_else(|| tcp.map(|tcp| ("tcpSocket", PortTarget::from(&tcp.port))))
        .or_else(|| grpc.map(|grpc| ("grpc", PortTarget::Number(grpc.port))))
}

fn hook_target(hook: &LifecycleHandler) -> Option<(&'static str, PortTarget<'_>)> {
    let http = hook
        .http_get
        .as_ref()
        .filter(|get| dials_pod(get.host.as_deref()));
    let tcp = hook
        .tcp_socket
        .as_ref()
        .filter(|tcp| dials_pod(tcp.host.as_deref()));
    http.map(|get| ("httpGet", PortTarget::from(&get.port)))
        .or_else(|| tcp.map(|tcp| ("tcpSocket", PortTarget::from(&tcp.port))))
}

/// Whether an action without or with a `host` dials the pod itself.
fn dials_pod(host: Option<&str>) -> bool {
    host.is_none_or(str::is_empty)
}

/// The number of a probe's port. A name that its container does not declare yields no port: the kubelet
/// cannot dial it either.
fn resolve(
    target: PortTarget<'_>,
    container: &Container,
    field: FieldPath,
) -> Result<Option<u16>, ObjectError> {
    let number = match target {
        PortTarget::Number(number) => Some(number),
        PortTarget::Name(name) => container
            .ports
            .iter()
            .flatten()
            .find(|declared| tcp_name(declared) == Some(name))
            .map(|declared| declared.container_port),
    };
    number.map(|number| port(number, field)).transpose()
}

fn tcp_name(declared: &ContainerPort) -> Option<&str> {
    is_tcp(declared.protocol.as_deref())
        .then_some(declared.name.as_deref())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(yaml: &str) -> PodSpec {
        serde_norway::from_str(yaml).expect("a PodSpec")
    }

    #[test]
    fn every_way_of_naming_a_probe_port() {
        let spec = spec(
            r"
            containers:
            - name: a
              ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]
              livenessProbe: {httpGet: {port: http}}
              readinessProbe: {tcpSocket: {port: 8081}}
              startupProbe: {grpc: {port: 8082}}
              lifecycle: {postStart: {httpGet: {port: 8083}}, preStop: {tcpSocket: {port: 8084}}}
            - name: b
              livenessProbe: {tcpSocket: {port: dns}}
              readinessProbe: {exec: {command: [\'true\']}}
            initContainers:
            - name: sidecar
              restartPolicy: Always
              ports: [{name: admin, containerPort: 9000}]
              startupProbe: {httpGet: {port: admin}}
            - name: once
              startupProbe: {httpGet: {port: 9999}}
            "
            .replace("\\'", "'")
            .as_str(),
        );
        let ports = probe_ports(&spec).expect("valid");
        assert_eq!(Vec::from_iter(ports), [8080, 8081, 8082, 8083, 8084, 9000]);
        let named = named_ports(&spec).expect("valid");
        assert_eq!(
            named,
            BTreeMap::from([("admin".into(), 9000), ("http".into(), 8080)])
        );
    }

    #[test]
    fn a_probe_of_another_host_opens_no_port() {
        let spec =
            spec("containers: [{name: a, livenessProbe: {httpGet: {host: 192.0.2.1, port: 80}}}]");
        assert!(probe_ports(&spec).expect("valid").is_empty());
    }

    #[test]
    fn an_impossible_port_is_refused_with_its_field() {
        let spec =
            spec("containers: [{name: a}, {name: b, livenessProbe: {tcpSocket: {port: 65536}}}]");
        let error = probe_ports(&spec).expect_err("out of range");
        assert_eq!(
            error.to_string(),
            "field spec.containers[1].livenessProbe.tcpSocket.port: 65536 is not a port; a port is \
             1 to 65535"
        );
    }

    #[test]
    fn the_first_port_of_a_name_counts() {
        let spec = spec(
            "containers: [{name: a, ports: [{name: x, containerPort: 1}]}, \
             {name: b, ports: [{name: x, containerPort: 2}]}]",
        );
        assert_eq!(named_ports(&spec).expect("valid")["x"], 1);
    }
}
