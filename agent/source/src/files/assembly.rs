//! Assembles the objects of all files into one mesh.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use super::SourceSettings;
use super::document::{MeshObject, ObjectKey, ParsedFile};
use crate::objects::{MeshConfigObject, PodObject};
use ambit_model::{
    EndpointSlice, Fault, NamespaceInfo, ObjectOrigin, PolicyObject, Service, SnapshotParts,
};

/// Collects objects; the first of a kind and name counts.
#[derive(Default)]
pub(super) struct Assembly<'a> {
    origins: HashMap<ObjectKey, ObjectOrigin>,
    namespaces: BTreeMap<Arc<str>, NamespaceInfo>,
    pods: Vec<&'a PodObject>,
    services: Vec<Service>,
    endpoint_slices: Vec<EndpointSlice>,
    policies: Vec<PolicyObject>,
    mesh_config: Option<(ObjectOrigin, &'a MeshConfigObject)>,
    duplicates: Vec<Duplicate>,
}

/// An object that appears twice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Duplicate {
    pub(super) key: ObjectKey,
    /// The one that counts.
    pub(super) first: ObjectOrigin,
    pub(super) second: ObjectOrigin,
}

impl<'a> Assembly<'a> {
    /// Adds the objects of a file. An object that was added before is a fault.
    pub(super) fn add_file(&mut self, path: &Arc<PathBuf>, parsed: Option<&'a ParsedFile>) {
        for (origin, object) in located(path, parsed) {
            if let Some(first) = self.add(&origin, object).cloned() {
                self.duplicates.push(Duplicate {
                    key: object.key(),
                    first,
                    second: origin,
                });
            }
        }
    }

    /// Adds those objects of a removed file that no other file has.
    pub(super) fn add_retained(&mut self, path: &Arc<PathBuf>, parsed: &'a ParsedFile) {
        for (origin, object) in located(path, Some(parsed)) {
            self.add(&origin, object);
        }
    }

    /// The objects that were added before.
    pub(super) fn duplicates(&self) -> &[Duplicate] {
        &self.duplicates
    }

    /// Whether there is a mesh configuration among the objects.
    pub(super) fn has_mesh_config(&self) -> bool {
        self.mesh_config.is_some()
    }

    /// The mesh, in the order of names.
    pub(super) fn finish(
        mut self,
        settings: &SourceSettings,
        mut faults: Vec<Fault>,
        complete: bool,
    ) -> SnapshotParts {
        self.pods.sort_by_key(|pod| pod.name());
        self.services
            .sort_by(|one, other| one.name.cmp(&other.name));
        self.endpoint_slices
            .sort_by(|one, other| one.name.cmp(&other.name));
        self.policies
            .sort_by(|one, other| (one.kind, &one.name).cmp(&(other.kind, &other.name)));
        faults.extend(self.duplicates.iter().map(Duplicate::fault));
        let mesh_config = self.mesh_config.as_ref();
        let trust = &settings.trust_bundle;
        faults.extend(
            mesh_config
                .into_iter()
                .flat_map(|(origin, c)| c.faults(origin, trust)),
        );
        let mesh_settings = mesh_config.map(|(_, config)| config.settings.clone());
        let workloads = self.pods.iter();
        let workloads =
            workloads.map(|pod| pod.in_namespace(self.namespaces.get(&pod.name().namespace)));
        SnapshotParts {
            trust_bundle: settings.trust_bundle.clone(),
            root_namespace: Arc::clone(&settings.root_namespace),
            revision: settings.revision.clone(),
            ranges: settings.ranges.clone(),
            workloads: workloads.collect(),
            namespaces: self.namespaces,
            services: self.services,
            endpoint_slices: self.endpoint_slices,
            policies: self.policies,
            mesh_settings: mesh_settings.unwrap_or_default(),
            faults,
            complete,
        }
    }

    /// Adds an object, or returns the origin of the one that counts.
    fn add(&mut self, origin: &ObjectOrigin, object: &'a MeshObject) -> Option<&ObjectOrigin> {
        use std::collections::hash_map::Entry;
        match self.origins.entry(object.key()) {
            Entry::Occupied(first) => return Some(first.into_mut()),
            Entry::Vacant(vacant) => vacant.insert(origin.clone()),
        };
        match object {
            MeshObject::Namespace(name, info) => {
                self.namespaces.insert(Arc::clone(name), info.clone());
            }
            MeshObject::Pod(pod) => self.pods.push(pod),
            MeshObject::Service(service) => self.services.push(service.clone()),
            MeshObject::EndpointSlice(slice) => self.endpoint_slices.push(slice.clone()),
            MeshObject::Policy(policy) => self.policies.push(policy.clone()),
            MeshObject::MeshConfig(config) => self.mesh_config = Some((origin.clone(), config)),
        }
        None
    }
}

impl Duplicate {
    /// What is wrong, and what to do.
    pub(super) fn problem(&self) -> String {
        let Self { key, first, .. } = self;
        format!(
            "{key} is already defined in {first}: that one is in force and this one is not. Remove \
             one of them."
        )
    }

    fn fault(&self) -> Fault {
        Fault {
            subject: format!("{} ({})", self.second, self.key),
            message: self.problem(),
            last_good_in_force: false,
        }
    }
}

fn located<'a>(
    path: &Arc<PathBuf>,
    parsed: Option<&'a ParsedFile>,
) -> impl Iterator<Item = (ObjectOrigin, &'a MeshObject)> {
    let objects = parsed.into_iter().flat_map(|parsed| &parsed.objects);
    objects.map(|located| {
        let origin = ObjectOrigin::File {
            path: Arc::clone(path),
            document: located.document,
        };
        (origin, &located.object)
    })
}
