use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use ambit_model::{ObjectOrigin, PolicyKind, PolicyObject, REVISION_LABEL};

use super::{ObjectError, namespaced_name};

/// A policy object, its `spec` as it is.
///
/// # Errors
/// Where it has no name.
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
