//! Reads the fields of a policy object, and keeps track of where in `spec` it is. A field that is not
//! understood is named in the error, and the policy is not enforced.

use std::sync::Arc;

use serde_json::Value;

use super::authorization::{Action, Enforcement};
use ambit_model::PolicyObject;

/// A field that cannot be enforced, so that the whole policy is not enforced.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[error("{path} is not enforced: {problem}")]
pub(super) struct NotEnforced {
    /// The field, such as `spec.rules[0].to[0].operation.methods`.
    pub(super) path: String,
    /// What is wrong, and what to do.
    pub(super) problem: String,
    /// The field's value, if it is short.
    pub(super) value: Option<String>,
}

/// A field that is enforced, but may not do what its author intended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub(super) struct Warning {
    /// The field.
    pub(super) path: String,
    /// What it does, and what to do about it.
    pub(super) problem: String,
}

/// A policy object that was read: what it selects, and either what it says or the first field that
/// cannot be enforced.
#[derive(Debug)]
pub(super) struct Parsed<S, C> {
    pub(super) object: Arc<PolicyObject>,
    pub(super) selector: S,
    /// The action of an AuthorizationPolicy, if it can be read; `None` for other kinds.
    pub(super) action: Option<Action>,
    pub(super) enforcement: Enforcement,
    pub(super) content: Result<C, NotEnforced>,
    /// Further errors, besides the one in `content`.
    pub(super) more_errors: Vec<NotEnforced>,
    pub(super) warnings: Vec<Warning>,
}

/// The longest value that is shown, in bytes.
const LONGEST_VALUE: usize = 80;

/// A value within `spec`, and its path.
#[derive(Clone)]
pub(super) struct SpecNode<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> SpecNode<'a> {
    pub(super) fn spec(value: &'a Value) -> Self {
        Self {
            path: "spec".to_owned(),
            value,
        }
    }

    pub(super) fn fail<T>(&self, problem: impl Into<String>) -> Result<T, NotEnforced> {
        Err(NotEnforced {
            path: self.path.clone(),
            problem: problem.into(),
            value: short(self.value),
        })
    }

    pub(super) fn is_null(&self) -> bool {
        self.value.is_null()
    }

    /// A warning about this value.
    pub(super) fn warning(&self, problem: impl Into<String>) -> Warning {
        Warning {
            path: self.path.clone(),
            problem: problem.into(),
        }
    }

    /// The fields of an object. Null counts as an object without fields.
    pub(super) fn fields(&self) -> Result<Vec<(&'a str, SpecNode<'a>)>, NotEnforced> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Object(fields) => Ok(fields
                .iter()
                .map(|(name, value)| {
                    (
                        name.as_str(),
                        SpecNode {
                            path: format!("{}.{name}", self.path),
                            value,
                        },
                    )
                })
                .collect()),
            _ => self.fail("this has to be an object; see the Istio API reference"),
        }
    }

    /// A field, if this is an object that has it.
    pub(super) fn field(&self, wanted: &str) -> Option<SpecNode<'a>> {
        let mut fields = self.fields().ok()?.into_iter();
        fields.find_map(|(name, field)| (name == wanted).then_some(field))
    }

    /// The elements of a list. An empty list is the same as an absent one, as in Istio, which cannot
    /// tell them apart after the YAML has become a protobuf message.
    pub(super) fn elements(&self) -> Result<Vec<SpecNode<'a>>, NotEnforced> {
        match self.value {
            Value::Array(elements) => Ok(elements
                .iter()
                .enumerate()
                .map(|(index, value)| SpecNode {
                    path: format!("{}[{index}]", self.path),
                    value,
                })
                .collect()),
            _ => self.fail("this has to be a list"),
        }
    }

    /// The elements of a list that may be null.
    pub(super) fn optional_elements(&self) -> Result<Vec<SpecNode<'a>>, NotEnforced> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            _ => self.elements(),
        }
    }

    /// Whether it is a list without elements, which is the same as an absent one.
    pub(super) fn is_empty_list(&self) -> bool {
        self.value.as_array().is_some_and(Vec::is_empty)
    }

    /// The elements of a list of limited length.
    pub(super) fn at_most(&self, most: usize) -> Result<Vec<SpecNode<'a>>, NotEnforced> {
        let elements = self.elements()?;
        if elements.len() > most {
            return self.fail(format!("this list can have at most {most} elements"));
        }
        Ok(elements)
    }

    /// A string that may be empty or absent.
    pub(super) fn optional_text(&self) -> Result<&'a str, NotEnforced> {
        match self.value {
            Value::Null => Ok(""),
            Value::String(text) => Ok(text),
            _ => self.fail("this has to be a string; quote the value"),
        }
    }

    /// A string that may be empty but not absent.
    pub(super) fn any_text(&self) -> Result<&'a str, NotEnforced> {
        match self.value.as_str() {
            Some(text) => Ok(text),
            None => self.fail("this has to be a string; quote the value"),
        }
    }

    /// A string that is not empty.
    pub(super) fn text(&self) -> Result<&'a str, NotEnforced> {
        match self.value.as_str() {
            Some("") => self.fail("an empty value matches nothing; remove it"),
            Some(text) => Ok(text),
            None => self.fail("this has to be a string; quote the value"),
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Result<bool, NotEnforced> {
        match self.value.as_bool() {
            Some(value) => Ok(value),
            None => self.fail("this has to be true or false, without quotes"),
        }
    }

    /// A list of strings, each of which is parsed.
    pub(super) fn texts<T>(
        &self,
        parse: impl Fn(&SpecNode<'a>, &'a str) -> Result<T, NotEnforced>,
    ) -> Result<Vec<T>, NotEnforced> {
        self.elements()?
            .iter()
            .map(|node| parse(node, node.text()?))
            .collect()
    }

    /// The failure for a field that is unknown or not supported.
    pub(super) fn unknown<T>(&self) -> Result<T, NotEnforced> {
        self.fail(
            "Ambit does not support this field, so it cannot enforce the policy; remove the field or \
             the policy",
        )
    }
}

fn short(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        other => other.to_string(),
    };
    (text.len() <= LONGEST_VALUE).then_some(text)
}

/// Reads `selector.matchLabels`.
pub(super) fn selector(node: &SpecNode<'_>) -> Result<Vec<(String, String)>, NotEnforced> {
    let mut labels = Vec::new();
    for (name, field) in node.fields()? {
        match name {
            "matchLabels" => {
                for (key, value) in field.fields()? {
                    let text = match value.value.as_str() {
                        Some(text) => text,
                        None => return value.fail("this has to be a string; quote the value"),
                    };
                    if key.is_empty() || key.contains('*') || text.contains('*') {
                        return value.fail("a label cannot be empty or have a wildcard");
                    }
                    labels.push((key.to_owned(), text.to_owned()));
                }
            }
            _ => return field.unknown(),
        }
    }
    Ok(labels)
}

/// The annotation that makes an AuthorizationPolicy a dry run.
const ANNOTATION: &str = "istio.io/dry-run";

/// Whether an object is a dry run; `None` if it does not have the annotation. The values are those of
/// Go's strconv.ParseBool.
///
/// # Errors
/// If the annotation has any other value.
pub(super) fn dry_run(object: &PolicyObject) -> Result<Option<bool>, NotEnforced> {
    match object.annotations.get(ANNOTATION).map(String::as_str) {
        None => Ok(None),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
        Some(other) => Err(refused(
            object,
            format!("{other:?} is not a boolean; write true or false"),
        )),
    }
}

/// Refuses the annotation, whatever its value, on a kind that has no dry runs: its author expects the
/// object to decide nothing, but it would.
///
/// # Errors
/// If the object has the annotation.
pub(super) fn refuse_dry_run(object: &PolicyObject) -> Result<(), NotEnforced> {
    match object.annotations.contains_key(ANNOTATION) {
        false => Ok(()),
        true => Err(refused(
            object,
            "only an AuthorizationPolicy can be a dry run; remove the annotation".to_owned(),
        )),
    }
}

/// The error for an object's annotation.
pub(super) fn refused(object: &PolicyObject, problem: String) -> NotEnforced {
    NotEnforced {
        path: format!("metadata.annotations[{ANNOTATION}]"),
        problem,
        value: object.annotations.get(ANNOTATION).cloned(),
    }
}
