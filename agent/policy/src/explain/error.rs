//! Why a question has no answer.

use std::net::IpAddr;

use crate::normalise::BadPath;
use ambit_model::ObjectName;

/// Why a question has no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QuestionError {
    /// No object has this name.
    #[error("there is no {kind} {name}; {}", did_you_mean(near))]
    Unknown {
        /// The kind, or kinds.
        kind: &'static str,
        /// The name.
        name: ObjectName,
        /// Names that are like it.
        near: Vec<String>,
    },
    /// A pod and a Service have this name.
    #[error("there are a pod and a Service {0}; write pod:{0} or service:{0}")]
    PodAndService(ObjectName),
    /// No object has this address.
    #[error("no pod and no Service has the address {0}; `ambit workloads` lists the pods")]
    UnknownAddress(IpAddr),
    /// Several objects have it.
    #[error(
        "{address} is claimed by {}; name one of them instead",
        names(claimants)
    )]
    ContestedAddress {
        /// The address.
        address: IpAddr,
        /// Who claims it.
        claimants: Vec<ObjectName>,
    },
    /// The Service has no such port.
    #[error("the Service {service} has no TCP port {port}; {}", known_ports(ports))]
    NoSuchPort {
        /// The Service.
        service: ObjectName,
        /// The port.
        port: u16,
        /// Those that it has.
        ports: Vec<u16>,
    },
    /// No pod is behind the Service's port.
    #[error(
        "no pod is behind this port of the Service {0}, by its selector or its EndpointSlices: a \
         caller in the mesh reaches no pod there"
    )]
    NoEndpoints(ObjectName),
    /// The port is the mesh's own.
    #[error("port {0} is no port of an application; name the application's own port")]
    Port(u16),
    /// The path is refused before policies see it.
    #[error("{path:?} is answered 400 before policies see it: {problem}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        problem: BadPath,
    },
    /// The header is none.
    #[error("{0:?} is no header; write name=value, with printable characters")]
    Header(String),
    /// Neither the question nor an object says whether the source address is IPv4 or IPv6.
    #[error("{from} and {to} are not of one address family; name an address that can reach it")]
    Family {
        /// The caller's address.
        from: IpAddr,
        /// The destination's.
        to: IpAddr,
    },
}

fn did_you_mean(near: &[String]) -> String {
    match near {
        [] => "nothing has a name like it".to_owned(),
        near => format!("there is {}", near.join(", ")),
    }
}

fn names(names: &[ObjectName]) -> String {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    names.join(" and ")
}

fn known_ports(ports: &[u16]) -> String {
    let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
    match ports.is_empty() {
        true => "it has none".to_owned(),
        false => format!("it has {}", ports.join(", ")),
    }
}
