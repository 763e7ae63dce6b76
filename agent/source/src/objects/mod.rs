//! The meaning of Kubernetes objects for the mesh, whatever source they come from.

mod endpoint_slice;
mod extension_provider;
mod mesh_config;
mod pod;
mod ports;
mod service;

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

use ambit_model::{ObjectName, ObjectOrigin, PolicyKind, PolicyObject, REVISION_LABEL};

use super::place::FieldPath;

pub(crate) use endpoint_slice::endpoint_slice;
pub(crate) use mesh_config::{MESH_CONFIG_NAME, MeshConfigObject, mesh_config};
pub(crate) use pod::PodObject;
pub(crate) use service::service;

/// Why an object cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("field {field}: {problem}")]
pub(crate) struct ObjectError {
    /// The field at fault.
    pub(crate) field: FieldPath,
    /// What is wrong with it and what it may be.
    pub(crate) problem: String,
}

impl ObjectError {
    /// An error at `field`.
    pub(crate) fn new(field: FieldPath, problem: impl Into<String>) -> Self {
        Self {
            field,
            problem: problem.into(),
        }
    }
}

/// The name of an object that has no namespace.
///
/// # Errors
/// If `metadata.name` is absent or empty.
pub(crate) fn cluster_name(metadata: &ObjectMeta) -> Result<&str, ObjectError> {
    match metadata.name.as_deref() {
        None | Some("") => Err(ObjectError::new(
            FieldPath::at("metadata.name"),
            "missing; every object needs a name",
        )),
        Some(name) => Ok(name),
    }
}

/// The name of an object that belongs to a namespace: `default`, if none is given.
///
/// # Errors
/// If `metadata.name` is absent or empty.
pub(crate) fn namespaced_name(metadata: &ObjectMeta) -> Result<ObjectName, ObjectError> {
    let name = cluster_name(metadata)?;
    let namespace = metadata
        .namespace
        .as_deref()
        .filter(|text| !text.is_empty());
    Ok(ObjectName::new(namespace.unwrap_or("default"), name))
}

/// A policy object with its `spec` as it is written.
///
/// # Errors
/// If it has no name.
pub(crate) fn policy(
    kind: PolicyKind,
    metadata: &ObjectMeta,
    spec: Value,
    origin: ObjectOrigin,
) -> Result<PolicyObject, ObjectError> {
    Ok(PolicyObject {
        kind,
        name: namespaced_name(metadata)?,
        revision: metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(REVISION_LABEL).cloned()),
        annotations: metadata.annotations.clone().unwrap_or_default(),
        created: metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0.format("%Y-%m-%dT%H:%M:%SZ").to_string()),
        spec,
        origin,
    })
}

/// Converts the value of a field to a type.
///
/// # Errors
/// If it is not of that type, with the field at fault.
pub(crate) fn typed<T: DeserializeOwned>(value: Value, at: &FieldPath) -> Result<T, ObjectError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let field = at.join(&FieldPath::from(error.path()));
        ObjectError::new(field, error.inner().to_string())
    })
}

/// An address that a pod or Service can have, canonical.
fn address(text: &str, field: FieldPath) -> Result<IpAddr, ObjectError> {
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(ObjectError::new(
            field,
            format!("{text:?} is not an IP address"),
        ));
    };
    let address = address.to_canonical();
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        let problem = format!("{text:?} is a loopback, unspecified or multicast address");
        return Err(ObjectError::new(field, problem));
    }
    Ok(address)
}

/// A TCP port number from an object.
///
/// # Errors
/// If it is not between 1 and 65535.
fn port(number: i32, field: FieldPath) -> Result<u16, ObjectError> {
    u16::try_from(number)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| {
            ObjectError::new(
                field,
                format!("{number} is not a port; a port is 1 to 65535"),
            )
        })
}

/// Whether a `protocol` field says TCP, which is the default.
fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}
