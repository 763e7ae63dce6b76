use std::collections::HashSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service as KubernetesService, ServicePort as Port, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use ambit_model::{AppProtocol, Service, ServicePort, TargetPort};

use super::{ObjectError, address, is_tcp, namespaced_name, port};
use crate::place::FieldPath;

/// A Service: its cluster IPs, TCP ports and selector.
///
/// # Errors
/// If its name is missing, or an address or port is impossible.
pub(crate) fn service(object: &KubernetesService) -> Result<Service, ObjectError> {
    let name = namespaced_name(&object.metadata)?;
    let Some(spec) = &object.spec else {
        return Err(ObjectError::new(
            FieldPath::at("spec"),
            "missing; a Service needs its ports and selector",
        ));
    };
    let declared = spec.ports.iter().flatten().enumerate();
    Ok(Service {
        name,
        addresses: addresses(spec)?,
        ports: declared
            .filter(|(_, declared)| is_tcp(declared.protocol.as_deref()))
            .map(|(index, declared)| service_port(declared, index))
            .collect::<Result<_, _>>()?,
        selector: spec.selector.clone().unwrap_or_default(),
    })
}

fn addresses(spec: &ServiceSpec) -> Result<Vec<IpAddr>, ObjectError> {
    let listed = spec
        .cluster_ips
        .iter()
        .flatten()
        .enumerate()
        .map(|(index, text)| (text.as_str(), FieldPath::at("spec.clusterIPs").index(index)));
    let single = spec
        .cluster_ip
        .iter()
        .map(|text| (text.as_str(), FieldPath::at("spec.clusterIP")));
    let (mut addresses, mut known) = (Vec::new(), HashSet::new());
    for (text, field) in single.chain(listed) {
        if matches!(text, "" | "None") {
            continue;
        }
        let address = address(text, field)?;
        if known.insert(address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

fn service_port(declared: &Port, index: usize) -> Result<ServicePort, ObjectError> {
    let field = FieldPath::at("spec.ports").index(index);
    let number = port(declared.port, field.key("port"))?;
    let target = match &declared.target_port {
        None => TargetPort::Number(number),
        Some(IntOrString::Int(target)) => {
            TargetPort::Number(port(*target, field.key("targetPort"))?)
        }
        Some(IntOrString::String(name)) if names_a_port(name) => TargetPort::Name(name.clone()),
        Some(IntOrString::String(name)) => {
            let problem = format!(
                "{name:?} is not the name of a port, which has a letter; write a number without quotes"
            );
            return Err(ObjectError::new(field.key("targetPort"), problem));
        }
    };
    Ok(ServicePort {
        name: declared.name.clone(),
        port: number,
        target,
        protocol: app_protocol(declared.app_protocol.as_deref(), declared.name.as_deref()),
    })
}

/// Kubernetes requires a letter in the name of a port, so that it cannot be confused with a number.
fn names_a_port(name: &str) -> bool {
    name.chars().any(|c| c.is_ascii_alphabetic())
}

/// What a port of a Service speaks, by Istio's rules: its `appProtocol` decides if it is set, or else
/// its name up to the first `-`. Case does not matter.
fn app_protocol(declared: Option<&str>, port_name: Option<&str>) -> AppProtocol {
    match declared {
        Some("kubernetes.io/h2c") => AppProtocol::Http2,
        Some("kubernetes.io/ws") => AppProtocol::Http,
        Some(declared) => by_prefix(declared),
        None => port_name.map_or(AppProtocol::Opaque, by_prefix),
    }
}

/// `grpc-web` has the `-` in it, and both its parts are HTTP/2, as for Istio.
fn by_prefix(text: &str) -> AppProtocol {
    let prefix = text.split_once('-').map_or(text, |(prefix, _)| prefix);
    match prefix.to_ascii_lowercase().as_str() {
        "http" | "http_proxy" => AppProtocol::Http,
        "http2" | "h2c" | "grpc" => AppProtocol::Http2,
        _ => AppProtocol::Opaque,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(spec: &str) -> Result<Service, ObjectError> {
        let yaml =
            format!("{{apiVersion: v1, kind: Service, metadata: {{name: web}}, spec: {spec}}}");
        service(&serde_norway::from_str(&yaml).expect("a Service"))
    }

    #[test]
    fn cluster_ips_ports_and_selector() {
        let web = convert(
            "{clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd96::1'], selector: {app: web}, ports: \
             [{port: 80}, {port: 81, targetPort: 8081}, {port: 82, targetPort: http, name: x}, \
             {port: 53, protocol: UDP, name: http}, {port: 84, name: http-a, appProtocol: grpc}]}",
        )
        .expect("valid");
        assert_eq!(web.name.to_string(), "default/web");
        let addresses: Vec<_> = web.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.96.0.1", "fd96::1"]);
        let ports: Vec<_> = web
            .ports
            .iter()
            .map(|p| (p.port, p.target.clone()))
            .collect();
        assert_eq!(
            ports,
            [
                (80, TargetPort::Number(80)),
                (81, TargetPort::Number(8081)),
                (82, TargetPort::Name("http".into())),
                (84, TargetPort::Number(84)),
            ]
        );
        let protocols: Vec<_> = web.ports.iter().map(|p| p.protocol).collect();
        assert_eq!(
            protocols,
            [
                AppProtocol::Opaque,
                AppProtocol::Opaque,
                AppProtocol::Opaque,
                AppProtocol::Http2,
            ]
        );
        assert_eq!(web.selector["app"], "web");
    }

    #[test]
    fn a_headless_service_has_no_address() {
        for spec in [
            "{clusterIP: None}",
            "{clusterIP: ''}",
            "{type: ExternalName}",
        ] {
            assert!(convert(spec).expect(spec).addresses.is_empty(), "{spec}");
        }
    }

    #[test]
    fn impossible_values_are_refused_with_their_field() {
        for (spec, message) in [
            (
                "{clusterIP: 10.96.0}",
                "field spec.clusterIP: \"10.96.0\" is not an IP address",
            ),
            (
                "{clusterIPs: ['10.96.0.1', '127.0.0.1']}",
                "field spec.clusterIPs[1]: \"127.0.0.1\" is a loopback, unspecified or multicast \
                 address",
            ),
            (
                "{ports: [{port: 80}, {port: 0}]}",
                "field spec.ports[1].port: 0 is not a port; a port is 1 to 65535",
            ),
            (
                "{ports: [{port: 80, targetPort: 70000}]}",
                "field spec.ports[0].targetPort: 70000 is not a port; a port is 1 to 65535",
            ),
            (
                "{ports: [{port: 80, targetPort: '8080'}]}",
                "field spec.ports[0].targetPort: \"8080\" is not the name of a port, which has a letter; \
                 write a number without quotes",
            ),
        ] {
            assert_eq!(convert(spec).expect_err(spec).to_string(), message);
        }
    }

    #[test]
    fn the_prefix_of_a_ports_name_declares_the_protocol() {
        for (name, protocol) in [
            ("http", AppProtocol::Http),
            ("HTTP-web", AppProtocol::Http),
            ("http-admin-2", AppProtocol::Http),
            ("http2", AppProtocol::Http2),
            ("http2-api", AppProtocol::Http2),
            ("grpc", AppProtocol::Http2),
            ("grpc-web", AppProtocol::Http2),
            ("grpc-web-x", AppProtocol::Http2),
            ("h2c", AppProtocol::Http2),
            ("", AppProtocol::Opaque),
            ("httpx", AppProtocol::Opaque),
            ("web-http", AppProtocol::Opaque),
            ("https", AppProtocol::Opaque),
            ("https-http", AppProtocol::Opaque),
            ("tls", AppProtocol::Opaque),
            ("tcp-http", AppProtocol::Opaque),
            ("mysql", AppProtocol::Opaque),
            ("redis", AppProtocol::Opaque),
            ("mongo", AppProtocol::Opaque),
            ("ws", AppProtocol::Opaque),
        ] {
            assert_eq!(app_protocol(None, Some(name)), protocol, "{name:?}");
        }
        assert_eq!(app_protocol(None, None), AppProtocol::Opaque);
    }

    #[test]
    fn app_protocol_beats_the_name() {
        for (declared, protocol) in [
            ("kubernetes.io/h2c", AppProtocol::Http2),
            ("kubernetes.io/ws", AppProtocol::Http),
            ("kubernetes.io/wss", AppProtocol::Opaque),
            ("HTTP", AppProtocol::Http),
            ("grpc", AppProtocol::Http2),
            ("tcp", AppProtocol::Opaque),
            ("example.com/http", AppProtocol::Opaque),
            ("", AppProtocol::Opaque),
        ] {
            assert_eq!(app_protocol(Some(declared), None), protocol, "{declared:?}");
            for name in ["http", "tcp", "grpc"] {
                let both = app_protocol(Some(declared), Some(name));
                assert_eq!(both, protocol, "{declared:?} {name}");
            }
        }
    }
}
