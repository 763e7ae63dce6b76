//! The documents of one file: from text to objects of the mesh, or to errors.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::SourceSettings;
use super::kinds;
use super::netns;
use crate::depth::YamlRefusal;
use crate::objects::{self, MESH_CONFIG_NAME, MeshConfigObject, ObjectError, PodObject, typed};
use crate::place::{FieldPath, Location};
use crate::tree::{self, AliasBudget, Locator};
use ambit_model::{
    EndpointSlice, NamespaceInfo, ObjectName, ObjectOrigin, PolicyKind, PolicyObject, Service,
};

/// The group of EndpointSlices.
const DISCOVERY: &str = "discovery.k8s.io/";

/// The most errors of one file that are reported.
const MOST_ERRORS: usize = 1_000;

/// An object that the mesh knows.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum MeshObject {
    Namespace(Arc<str>, NamespaceInfo),
    Pod(PodObject),
    Service(Service),
    EndpointSlice(EndpointSlice),
    Policy(PolicyObject),
    MeshConfig(MeshConfigObject),
}

/// Identifies an object.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct ObjectKey {
    kind: &'static str,
    name: ObjectName,
}

impl MeshObject {
    /// The object's key.
    pub(super) fn key(&self) -> ObjectKey {
        let (kind, name) = match self {
            Self::Namespace(name, _) => ("Namespace", ObjectName::new("", Arc::clone(name))),
            Self::Pod(pod) => ("Pod", pod.name().clone()),
            Self::Service(service) => ("Service", service.name.clone()),
            Self::EndpointSlice(slice) => ("EndpointSlice", slice.name.clone()),
            Self::Policy(policy) => (policy.kind.as_str(), policy.name.clone()),
            Self::MeshConfig(config) => ("ConfigMap", config.name.clone()),
        };
        ObjectKey { kind, name }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name.name)
        } else {
            write!(f, "{} {}", self.kind, self.name)
        }
    }
}

/// An object and its place in its file.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct LocatedObject {
    /// The document, from 1.
    pub(super) document: usize,
    /// The field of the document that is the object: the document itself, or an item of a list.
    pub(super) at: FieldPath,
    pub(super) object: MeshObject,
}

/// The objects of a file that is right in all its documents.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct ParsedFile {
    /// The objects.
    pub(super) objects: Vec<LocatedObject>,
    /// Kinds that the mesh does not read, as `apiVersion kind`.
    pub(super) ignored: BTreeSet<String>,
}

/// An error in a document. Displays as a sentence without its full stop.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) struct DocumentError {
    /// The document, from 1.
    pub(super) document: usize,
    /// The object, if its name can be read: `Pod shop/cart`.
    pub(super) object: Option<String>,
    pub(super) location: Option<Location>,
    /// The field at fault; `None` if the document is not YAML.
    pub(super) field: Option<FieldPath>,
    pub(super) problem: String,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let location = self.location.iter().map(ToString::to_string);
        let field = self.field.iter().filter(|field| !field.steps().is_empty());
        let field = field.map(|field| format!("field {field}"));
        let place: Vec<String> = location.chain(field).collect();
        if !place.is_empty() {
            write!(f, "{}: ", place.join(", "))?;
        }
        f.write_str(&self.problem)
    }
}

/// Reads the documents of a file.
///
/// # Errors
/// The errors of all broken documents. Documents after one that is not YAML cannot be read.
pub(super) fn parse(
    path: &Arc<PathBuf>,
    text: &str,
    settings: &SourceSettings,
) -> Result<ParsedFile, Vec<DocumentError>> {
    match read(path, text, settings) {
        (parsed, errors) if errors.is_empty() => Ok(parsed),
        (_, errors) => Err(errors),
    }
}

/// Reads the documents of a file. Returns the objects that are right, and the errors of the others.
pub(super) fn read(
    path: &Arc<PathBuf>,
    text: &str,
    settings: &SourceSettings,
) -> (ParsedFile, Vec<DocumentError>) {
    let mut reader = Reader {
        path,
        text,
        settings,
        document: 0,
        parsed: ParsedFile::default(),
        errors: Vec::new(),
        locator: Locator::new(text),
    };
    reader.read_all();
    (reader.parsed, reader.errors)
}

struct Reader<'a> {
    path: &'a Arc<PathBuf>,
    text: &'a str,
    settings: &'a SourceSettings,
    document: usize,
    parsed: ParsedFile,
    errors: Vec<DocumentError>,
    locator: Locator<'a>,
}

/// An object inside a document: the document itself, or an item of a list.
struct Item {
    kind: TypeName,
    value: Value,
}

/// `apiVersion` and `kind`.
#[derive(Clone)]
struct TypeName {
    api_version: String,
    kind: String,
}

impl Reader<'_> {
    fn read_all(&mut self) {
        let budget = AliasBudget::of(self.text);
        let documents = match tree::documents(self.text) {
            Ok(documents) => documents,
            Err(refused) => return self.errors.push(not_read(&refused)),
        };
        for document in documents {
            if self.errors.len() >= MOST_ERRORS {
                break;
            }
            self.document += 1;
            match tree::read(document, &budget) {
                Ok(Value::Null) => {}
                Ok(value) => self.read_item(FieldPath::default(), None, value),
                // The parser cannot continue after an error of its own.
                Err(error) => return self.errors.push(unreadable(self.document, &error)),
            }
        }
        if self.errors.len() >= MOST_ERRORS {
            self.errors.push(too_many(self.document));
        }
    }

    /// Reads an object or the objects of a list. `kind` is the one that a typed list gives to items
    /// without one.
    fn read_item(&mut self, at: FieldPath, kind: Option<&TypeName>, value: Value) {
        let described = describe(&value);
        let result = type_name(&value, kind).and_then(|kind| {
            if kind.kind.ends_with("List") && value.get("items").is_some() {
                return self.read_list(&at, &kind, value);
            }
            let item = Item { kind, value };
            self.read_object(&at, item)
        });
        if let Err(error) = result {
            let error = ObjectError::new(at.join(&error.field), error.problem);
            let location = self.locator.locate(self.document, &error.field);
            self.errors.push(DocumentError {
                document: self.document,
                object: described,
                location,
                field: Some(error.field),
                problem: error.problem,
            });
        }
    }

    fn read_list(
        &mut self,
        at: &FieldPath,
        list: &TypeName,
        mut value: Value,
    ) -> Result<(), ObjectError> {
        let stem = list.kind.trim_end_matches("List");
        let of_items = (!stem.is_empty()).then(|| TypeName {
            api_version: list.api_version.clone(),
            kind: stem.to_owned(),
        });
        match value.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => {
                for (index, item) in items.into_iter().enumerate() {
                    if self.errors.len() >= MOST_ERRORS {
                        break;
                    }
                    let at = at.key("items").index(index);
                    self.read_item(at, of_items.as_ref(), item);
                }
                Ok(())
            }
            None | Some(Value::Null) => Ok(()),
            Some(_) => Err(ObjectError::new(FieldPath::at("items"), "not a sequence")),
        }
    }

    fn read_object(&mut self, at: &FieldPath, item: Item) -> Result<(), ObjectError> {
        let object = match (item.kind.api_version.as_str(), item.kind.kind.as_str()) {
            ("v1", "Namespace") => namespace(item.typed()?)?,
            ("v1", "Pod") => match self.pod(item)? {
                Some(pod) => MeshObject::Pod(pod),
                None => return Ok(()),
            },
            ("v1", "ConfigMap") if self.is_mesh_config(&item.value) => {
                MeshObject::MeshConfig(objects::mesh_config(&item.typed()?)?)
            }
            ("v1", "Service") => MeshObject::Service(objects::service(&item.typed()?)?),
            (version, "EndpointSlice") if version.starts_with(DISCOVERY) => {
                match endpoint_slice(item)? {
                    Some(slice) => MeshObject::EndpointSlice(slice),
                    None => return Ok(()),
                }
            }
            (api_version, kind) => match kinds::policy_kind(api_version, kind)? {
                Some(kind) => self.policy(kind, item)?,
                None => {
                    self.parsed.ignored.insert(format!("{api_version} {kind}"));
                    return Ok(());
                }
            },
        };
        self.parsed.objects.push(LocatedObject {
            document: self.document,
            at: at.clone(),
            object,
        });
        Ok(())
    }

    fn pod(&self, mut item: Item) -> Result<Option<PodObject>, ObjectError> {
        drop_resources(&mut item.value);
        let pod = item.typed()?;
        PodObject::convert(&pod, &self.settings.trust_bundle.own, netns(&pod.metadata)?)
    }

    fn is_mesh_config(&self, object: &Value) -> bool {
        let metadata = |field: &str| object.pointer(&format!("/metadata/{field}"));
        let namespace = self.settings.root_namespace.as_ref();
        metadata("name").is_some_and(|name| name == MESH_CONFIG_NAME)
            && metadata("namespace").is_some_and(|found| found == namespace)
    }

    fn policy(&self, kind: PolicyKind, mut item: Item) -> Result<MeshObject, ObjectError> {
        kinds::only_known_fields(&item.value)?;
        let spec = item.value.get_mut("spec").map_or(Value::Null, Value::take);
        let metadata = item
            .value
            .get_mut("metadata")
            .map_or(Value::Null, Value::take);
        let metadata: Option<ObjectMeta> = typed(metadata, &FieldPath::at("metadata"))?;
        let origin = ObjectOrigin::File {
            path: Arc::clone(self.path),
            document: self.document,
        };
        let metadata = metadata.unwrap_or_default();
        objects::policy(kind, &metadata, spec, origin).map(MeshObject::Policy)
    }
}

impl Item {
    /// The object as its Kubernetes type, which requires `apiVersion` and `kind`.
    fn typed<T: DeserializeOwned>(self) -> Result<T, ObjectError> {
        let mut value = self.value;
        if let Value::Object(fields) = &mut value {
            fields.insert("apiVersion".into(), self.kind.api_version.into());
            fields.insert("kind".into(), self.kind.kind.into());
        }
        typed(value, &FieldPath::default())
    }
}

/// A slice; `None` if it does not belong to a Service.
///
/// # Errors
/// If Ambit does not know the version: ignoring the slice would leave a Service's endpoints unknown.
fn endpoint_slice(item: Item) -> Result<Option<EndpointSlice>, ObjectError> {
    match item.kind.api_version.strip_prefix(DISCOVERY) {
        Some("v1") => objects::endpoint_slice(&item.typed()?),
        _ => Err(ObjectError::new(
            FieldPath::at("apiVersion"),
            format!(
                "version {:?} of EndpointSlice is not known; use {DISCOVERY}v1",
                item.kind.api_version
            ),
        )),
    }
}

fn namespace(object: k8s_openapi::api::core::v1::Namespace) -> Result<MeshObject, ObjectError> {
    let name = objects::cluster_name(&object.metadata)?.into();
    let labels = object.metadata.labels.unwrap_or_default();
    Ok(MeshObject::Namespace(name, NamespaceInfo { labels }))
}

/// Removes the resource requests of containers: the mesh does not read them, and their type does not
/// accept fractions (`cpu: 0.5`), which Kubernetes accepts.
fn drop_resources(pod: &mut Value) {
    for list in ["/spec/containers", "/spec/initContainers"] {
        let containers = pod.pointer_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            if let Some(fields) = container.as_object_mut() {
                fields.remove("resources");
            }
        }
    }
}

fn type_name(value: &Value, of_list: Option<&TypeName>) -> Result<TypeName, ObjectError> {
    if !value.is_object() {
        let problem = "not a Kubernetes object: apiVersion, kind and metadata are required";
        return Err(ObjectError::new(FieldPath::default(), problem));
    }
    let field = |name: &str, inherited: Option<&String>| match value.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        Some(_) => Err(ObjectError::new(FieldPath::at(name), "not a string")),
        None => inherited.cloned().ok_or_else(|| {
            ObjectError::new(
                FieldPath::at(name),
                "missing; the kind of the object is unknown without it",
            )
        }),
    };
    Ok(TypeName {
        api_version: field("apiVersion", of_list.map(|list| &list.api_version))?,
        kind: field("kind", of_list.map(|list| &list.kind))?,
    })
}

/// Kind and name of a document that may be broken in other fields.
fn describe(value: &Value) -> Option<String> {
    let kind = value.get("kind")?.as_str()?;
    let name = value.pointer("/metadata/name").and_then(Value::as_str);
    let namespace = value.pointer("/metadata/namespace").and_then(Value::as_str);
    Some(match (namespace, name) {
        (Some(namespace), Some(name)) => format!("{kind} {namespace}/{name}"),
        (None, Some(name)) => format!("{kind} {name}"),
        (_, None) => kind.to_owned(),
    })
}

/// The error of a file that is refused before it is read.
fn not_read(refused: &YamlRefusal) -> DocumentError {
    DocumentError {
        document: refused.document,
        object: None,
        location: Some(refused.location),
        field: None,
        problem: refused.problem(),
    }
}

/// Stands for all further errors of a file.
fn too_many(document: usize) -> DocumentError {
    DocumentError {
        document,
        object: None,
        location: None,
        field: None,
        problem: format!(
            "the file has {MOST_ERRORS} errors up to here; further errors are not reported"
        ),
    }
}

/// The error of a document that is not YAML, or cannot be a JSON value.
fn unreadable(document: usize, error: &serde_norway::Error) -> DocumentError {
    let location = Location::of(error);
    let text = error.to_string();
    let suffix = location.map(|at| format!(" at line {} column {}", at.line, at.column));
    let problem = suffix.and_then(|suffix| text.strip_suffix(&suffix).map(str::to_owned));
    DocumentError {
        document,
        object: None,
        location,
        field: None,
        problem: problem.unwrap_or(text),
    }
}

#[cfg(test)]
mod tests;
