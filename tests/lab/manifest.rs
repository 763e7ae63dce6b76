//! The directory of Kubernetes YAML that the agents watch.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::pod::{Membership, Pod};
use crate::service::Service;

/// The configuration directory. Files change as a whole, by renaming.
pub struct Manifests {
    directory: PathBuf,
}

impl Manifests {
    pub(crate) fn create(directory: PathBuf) -> Result<Self> {
        fs::create_dir(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self { directory })
    }

    /// Its path.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes a file as it is given, which may be several documents or not YAML at all.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let whole = self.directory.with_extension("new");
        fs::write(&whole, text)?;
        fs::rename(whole, self.directory.join(file))?;
        Ok(())
    }

    /// Writes one object.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write_object(&self, file: &str, object: &Value) -> Result<()> {
        self.write(file, &serde_norway::to_string(object)?)
    }

    /// Writes a namespace.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write_namespace(&self, name: &str, membership: Membership) -> Result<()> {
        let labels = json!({"istio.io/dataplane-mode": membership.label()});
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": labels},
        });
        self.write_object(&format!("namespace-{name}.yaml"), &namespace)
    }

    /// Writes a pod.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write_pod(&self, pod: &Pod) -> Result<()> {
        self.write_object(&pod.file_name(), &pod.manifest())
    }

    /// Writes a Service.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write_service(&self, service: &Service) -> Result<()> {
        self.write_object(&service.file_name(), &service.manifest())
    }

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn remove(&self, file: &str) -> Result<()> {
        fs::remove_file(self.directory.join(file)).with_context(|| format!("cannot remove {file}"))
    }
}
