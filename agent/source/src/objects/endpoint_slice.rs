use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointPort, EndpointSlice as KubernetesSlice,
};

use ambit_model::{EndpointSlice, EndpointState, ObjectName, SliceEndpoint, SlicePort};

use super::{ObjectError, address, is_tcp, namespaced_name, port};
use crate::place::FieldPath;

/// The label that says which Service a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The most endpoints of a slice, as the API server has it.
const MOST_ENDPOINTS: usize = 1_000;

/// The most ports of a slice.
const MOST_PORTS: usize = 100;

/// The most addresses of an endpoint, as the API server has it.
const MOST_ADDRESSES: usize = 100;

/// The address family of a slice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AddressFamily {
    V4,
    V6,
}

/// An EndpointSlice; `None` if it does not belong to a Service.
///
/// # Errors
/// If its name is missing, or a field that decides where connections go has an impossible value.
pub(crate) fn endpoint_slice(
    object: &KubernetesSlice,
) -> Result<Option<EndpointSlice>, ObjectError> {
    let name = namespaced_name(&object.metadata)?;
    let labels = object.metadata.labels.as_ref();
    let service = labels.and_then(|labels| labels.get(SERVICE_NAME));
    let Some(service) = service.filter(|service| !service.is_empty()) else {
        return Ok(None);
    };
    let service = ObjectName::new(name.namespace.clone(), service.as_str());
    let family = family(&object.address_type)?;
    let declared = object.ports.as_deref().unwrap_or_default();
    at_most("ports", declared.len(), MOST_PORTS)?;
    at_most("endpoints", object.endpoints.len(), MOST_ENDPOINTS)?;
    let ports = declared.iter().enumerate();
    let endpoints = object.endpoints.iter().enumerate();
    Ok(Some(EndpointSlice {
        service,
        ports: ports
            .filter(|(_, declared)| is_tcp(declared.protocol.as_deref()))
            .filter_map(|(index, declared)| slice_port(declared, index).transpose())
            .collect::<Result<_, _>>()?,
        endpoints: endpoints
            .map(|(index, endpoint)| slice_endpoint(endpoint, index, family))
            .collect::<Result<_, _>>()?,
        name,
    }))
}

fn family(address_type: &str) -> Result<AddressFamily, ObjectError> {
    match address_type {
        "IPv4" => Ok(AddressFamily::V4),
        "IPv6" => Ok(AddressFamily::V6),
        other => Err(ObjectError::new(
            FieldPath::at("addressType"),
            format!(
                "{other:?} has no addresses that the mesh can use, so these endpoints are unknown; use IPv4 or IPv6"
            ),
        )),
    }
}

fn at_most(field: &str, found: usize, most: usize) -> Result<(), ObjectError> {
    if found <= most {
        return Ok(());
    }
    let problem = format!("{found} of them, and the most is {most}; use several slices");
    Err(ObjectError::new(FieldPath::at(field), problem))
}

/// kube-proxy does not use a port without a number.
fn slice_port(declared: &EndpointPort, index: usize) -> Result<Option<SlicePort>, ObjectError> {
    let Some(number) = declared.port else {
        return Ok(None);
    };
    let field = FieldPath::at("ports").index(index).key("port");
    Ok(Some(SlicePort {
        name: declared.name.clone().filter(|name| !name.is_empty()),
        port: port(number, field)?,
    }))
}

fn slice_endpoint(
    endpoint: &Endpoint,
    index: usize,
    family: AddressFamily,
) -> Result<SliceEndpoint, ObjectError> {
    let field = FieldPath::at("endpoints").index(index).key("addresses");
    let listed = &endpoint.addresses;
    if listed.len() > MOST_ADDRESSES {
        let problem = format!("{} of them, and the most is {MOST_ADDRESSES}", listed.len());
        return Err(ObjectError::new(field, problem));
    }
    let addresses = listed.iter().enumerate();
    Ok(SliceEndpoint {
        addresses: addresses
            .map(|(index, text)| endpoint_address(text, field.index(index), family))
            .collect::<Result<_, _>>()?,
        state: state(endpoint.conditions.as_ref()),
    })
}

/// An address that an endpoint may have. Those that the API server refuses lead to the node itself or
/// to its neighbours.
fn endpoint_address(
    text: &str,
    field: FieldPath,
    family: AddressFamily,
) -> Result<IpAddr, ObjectError> {
    let address = address(text, field.clone())?;
    let (found, is_link_local) = match address {
        IpAddr::V4(v4) => (AddressFamily::V4, v4.is_link_local()),
        IpAddr::V6(v6) => (AddressFamily::V6, v6.is_unicast_link_local()),
    };
    let problem = if found != family {
        format!("{text:?} is not of the slice's addressType")
    } else if is_link_local {
        format!("{text:?} is a link-local address")
    } else {
        return Ok(address);
    };
    Err(ObjectError::new(field, problem))
}

/// The state that the conditions give. Absent ones have Kubernetes' defaults: ready, and serving if ready.
fn state(conditions: Option<&EndpointConditions>) -> EndpointState {
    let condition = |of: fn(&EndpointConditions) -> Option<bool>| conditions.and_then(of);
    let ready = condition(|all| all.ready).unwrap_or(true);
    let serving = condition(|all| all.serving).unwrap_or(ready);
    let terminating = condition(|all| all.terminating).unwrap_or(false);
    match (ready, serving && terminating) {
        (true, _) => EndpointState::Ready,
        (false, true) => EndpointState::Ending,
        (false, false) => EndpointState::NotReady,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(labels: &str, rest: &str) -> Result<Option<EndpointSlice>, ObjectError> {
        let yaml = format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: web-1, \
             namespace: shop, labels: {{{labels}}}}}, {rest}}}"
        );
        endpoint_slice(&serde_norway::from_str(&yaml).expect("an EndpointSlice"))
    }

    fn slice(rest: &str) -> Result<Option<EndpointSlice>, ObjectError> {
        convert("kubernetes.io/service-name: web", rest)
    }

    #[test]
    fn service_ports_addresses_and_conditions() {
        let found = slice(
            "addressType: IPv4, ports: [{port: 8080}, {name: '', port: 8081}, {name: a, port: 1}, \
             {name: dns, port: 53, protocol: UDP}, {name: every}], endpoints: \
             [{addresses: [10.0.0.1, 10.0.0.2]}, {addresses: [10.0.0.3], conditions: {}}, \
             {addresses: [10.0.0.4], conditions: {ready: false}}, \
             {addresses: [10.0.0.5], conditions: {ready: false, serving: true}}, \
             {addresses: [10.0.0.6], conditions: {ready: false, serving: true, terminating: true}}, \
             {addresses: [10.0.0.7], conditions: {ready: false, terminating: true}}]",
        );
        let found = found.expect("valid").expect("of a Service");
        assert_eq!(found.name.to_string(), "shop/web-1");
        assert_eq!(found.service.to_string(), "shop/web");
        let ports = found.ports.iter().map(|p| (p.name.as_deref(), p.port));
        assert_eq!(
            Vec::from_iter(ports),
            [(None, 8080), (None, 8081), (Some("a"), 1)]
        );
        use EndpointState::{Ending, NotReady, Ready};
        let states = found.endpoints.iter().map(|one| one.state);
        assert_eq!(
            Vec::from_iter(states),
            [Ready, Ready, NotReady, NotReady, Ending, NotReady]
        );
        assert_eq!(found.endpoints[0].addresses.len(), 2);
    }

    #[test]
    fn a_slice_without_the_label_belongs_to_no_service() {
        let rest = "addressType: FQDN, endpoints: []";
        for labels in ["", "kubernetes.io/service-name: ''"] {
            assert_eq!(convert(labels, rest).expect("ignored"), None);
        }
    }

    #[test]
    fn impossible_values_are_refused_with_their_field() {
        let many = vec!["{addresses: [10.0.0.1]}"; MOST_ENDPOINTS + 1].join(", ");
        let many = format!("addressType: IPv4, endpoints: [{many}]");
        for (rest, message) in [
            (
                "addressType: FQDN, endpoints: [{addresses: [a.example]}]",
                "field addressType: \"FQDN\" has no addresses",
            ),
            (
                "addressType: IPv6, endpoints: [{addresses: ['fd00::1']}, {addresses: [10.0.0.1]}]",
                "field endpoints[1].addresses[0]: \"10.0.0.1\" is not of the slice's addressType",
            ),
            (
                "addressType: IPv4, endpoints: [{addresses: [169.254.169.254]}]",
                "field endpoints[0].addresses[0]: \"169.254.169.254\" is a link-local address",
            ),
            (
                "addressType: IPv4, endpoints: [{addresses: [127.0.0.1]}]",
                "field endpoints[0].addresses[0]: \"127.0.0.1\" is a loopback",
            ),
            (
                "addressType: IPv4, ports: [{port: 70000}], endpoints: []",
                "field ports[0].port: 70000 is not a port; a port is 1 to 65535",
            ),
            (&many, "field endpoints: 1001 of them, and the most is 1000"),
        ] {
            let error = slice(rest).expect_err(rest).to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
