//! What there is to say of policy objects, field by field.

use serde::Serialize;

use super::condition::consequence;
use super::index::{Parsed, PolicyIndex};
use super::reader::{NotEnforced, Warning};
use ambit_model::{ObjectName, ObjectOrigin, PolicyKind, PolicyObject, REVISION_LABEL};

/// Something to say of a field of a policy object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The object's kind.
    pub kind: PolicyKind,
    /// The object's name.
    pub name: ObjectName,
    /// Where it comes from.
    pub origin: ObjectOrigin,
    /// Whether it is enforced.
    pub severity: Severity,
    /// The field, such as `spec.rules[0].to[0].operation.methods`.
    pub field: String,
    /// Its value, where it is short.
    pub value: Option<String>,
    /// What is the matter, and what to do.
    pub problem: String,
}

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It cannot be enforced.
    Error,
    /// It is enforced, and may not be what is meant.
    Warning,
}

impl PolicyIndex {
    /// What there is to say of the objects as they are written.
    pub fn findings(&self) -> Vec<Finding> {
        let authorizations = self.authorizations.iter().flat_map(findings);
        let token_rules = self.token_rules.iter().flat_map(findings);
        let mut all: Vec<Finding> = authorizations.chain(token_rules).collect();
        for parsed in &self.authentications {
            all.extend(findings(parsed));
            if self.is_root(&parsed.object) && !parsed.selector.is_empty() {
                let ignored = Warning {
                    path: "spec.selector".to_owned(),
                    problem: "a selector has no effect in the root namespace: the object applies \
                              to nothing; move it"
                        .to_owned(),
                };
                all.push(warning(&parsed.object, &ignored));
            }
        }
        let others = self.of_other_revisions.iter();
        all.extend(others.map(|object| warning(object, &self.other_revision(object))));
        all
    }

    /// Why an object for another revision decides nothing.
    pub(super) fn other_revision(&self, object: &PolicyObject) -> Warning {
        let revision = object.revision.as_deref().unwrap_or_default();
        let own = self.snapshot.revision().to_string();
        Warning {
            path: format!("metadata.labels[{REVISION_LABEL}]"),
            problem: format!(
                "the object is for the revision {revision:?} of the control plane, and this one's is \
                 {own:?} (--revision), so that it decides nothing here; remove the label for it to \
                 apply to every revision"
            ),
        }
    }
}

/// What there is to say of one object.
fn findings<S, C>(parsed: &Parsed<S, C>) -> Vec<Finding> {
    let consequence = consequence(parsed.action, parsed.enforcement);
    let errors = parsed.content.as_ref().err().into_iter();
    let errors = errors.chain(&parsed.more_errors);
    let warnings = parsed.warnings.iter();
    errors
        .map(|one| error(&parsed.object, one, consequence))
        .chain(warnings.map(|one| warning(&parsed.object, one)))
        .collect()
}

fn error(object: &PolicyObject, error: &NotEnforced, consequence: &str) -> Finding {
    Finding {
        kind: object.kind,
        name: object.name.clone(),
        origin: object.origin.clone(),
        severity: Severity::Error,
        field: error.path.clone(),
        value: error.value.clone(),
        problem: format!("{}; {consequence}", error.problem),
    }
}

pub(super) fn warning(object: &PolicyObject, warning: &Warning) -> Finding {
    Finding {
        kind: object.kind,
        name: object.name.clone(),
        origin: object.origin.clone(),
        severity: Severity::Warning,
        field: warning.path.clone(),
        value: None,
        problem: warning.problem.clone(),
    }
}
