use std::path::PathBuf;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::field::FieldPath;
use crate::objects::ObjectError;
use ambit_model::NetnsReference;

/// The annotation that says where a pod's network namespace is. Only this source believes it: in a
/// cluster, whoever makes a pod chooses its annotations.
pub const NETNS_ANNOTATION: &str = "ambit.mesh/netns";

/// Where a pod's annotation says that its network namespace is.
///
/// # Errors
/// Where it says so with a relative path.
pub(super) fn netns(metadata: &ObjectMeta) -> Result<Option<NetnsReference>, ObjectError> {
    let annotations = metadata.annotations.as_ref();
    let Some(text) = annotations.and_then(|all| all.get(NETNS_ANNOTATION)) else {
        return Ok(None);
    };
    let path = PathBuf::from(text);
    if path.is_absolute() {
        return Ok(Some(NetnsReference::Path(path)));
    }
    Err(ObjectError::new(
        FieldPath::at("metadata.annotations").key(NETNS_ANNOTATION),
        format!("{text:?} is no absolute path; write one such as /run/netns/NAME"),
    ))
}
