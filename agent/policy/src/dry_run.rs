//! The annotation `istio.io/dry-run`, which only AuthorizationPolicies can have.

use super::reader::NotEnforced;
use ambit_model::PolicyObject;

/// The annotation's key.
const ANNOTATION: &str = "istio.io/dry-run";

/// Whether an object is on trial; the values are those of Go's strconv.ParseBool. `None` without the
/// annotation.
///
/// # Errors
/// For any other value.
pub(super) fn dry_run(object: &PolicyObject) -> Result<Option<bool>, NotEnforced> {
    match object.annotations.get(ANNOTATION).map(String::as_str) {
        None => Ok(None),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
        Some(other) => Err(refused(
            object,
            format!("{other:?} is neither true nor false"),
        )),
    }
}

/// Refuses the annotation, whatever its value, on a kind that has no dry runs: whoever put it there
/// expects the object to decide nothing, and it would.
///
/// # Errors
/// Where it is there.
pub(super) fn refuse_dry_run(object: &PolicyObject) -> Result<(), NotEnforced> {
    match object.annotations.contains_key(ANNOTATION) {
        false => Ok(()),
        true => Err(refused(
            object,
            "only an AuthorizationPolicy has dry runs; remove the annotation".to_owned(),
        )),
    }
}

/// What is wrong with an object's annotation.
pub(super) fn refused(object: &PolicyObject, problem: String) -> NotEnforced {
    NotEnforced {
        path: format!("metadata.annotations[{ANNOTATION}]"),
        problem,
        value: object.annotations.get(ANNOTATION).cloned(),
    }
}
