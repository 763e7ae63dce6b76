//! A directory of ordinary Kubernetes YAML as the source of configuration, for development, tests, the
//! demo, and machines without Kubernetes.
//!
//! # What is read
//!
//! Every `.yaml` and `.yml` file of the directory whose name does not begin with a dot, up to 4 MiB
//! each; no subdirectories. A file has any number of documents, each an object, a `List`, or a
//! typed list such as `PodList`:
//!
//! | kind | what counts |
//! |---|---|
//! | `v1` Namespace | labels |
//! | `v1` Pod | labels, `spec.nodeName`, `spec.serviceAccountName`, ports and probes, `status.podIPs` or `podIP`, phase, conditions, and what prevents enrolment |
//! | `v1` Service | `spec.clusterIPs` or `clusterIP`, TCP ports and what they speak (`appProtocol`, or the port's name as Istio reads it), selector |
//! | `discovery.k8s.io/v1` EndpointSlice | the label `kubernetes.io/service-name`, `addressType` IPv4 or IPv6, `endpoints` with their addresses and conditions, TCP ports |
//! | `v1` ConfigMap `istio` of the root namespace | of Istio's MeshConfig, YAML under `mesh`: `extensionProviders` that authorize, `pathNormalization` |
//! | `security.istio.io/v1`, `v1beta1` AuthorizationPolicy, PeerAuthentication | everything |
//!
//! Other kinds are ignored, with one line in the log. A document that looks like a mistyped one of
//! these kinds (`AuthorisationPolicy`, `security.istio.io/v2`, `pod`) is broken: the agent cannot know
//! which workloads the policy selects.
//!
//! # Where a pod's network namespace is
//!
//! Kubernetes' Pod objects do not say it, so here an annotation does:
//!
//! ```yaml
//! apiVersion: v1
//! kind: Pod
//! metadata:
//!   name: frontend
//!   namespace: shop
//!   annotations: {ambit.mesh/netns: /run/netns/frontend}
//! spec: {nodeName: node-1, serviceAccountName: frontend}
//! status: {podIP: 10.244.1.2}
//! ```
//!
//! The path is absolute and leads to a network namespace: a file that `ip netns add` makes, or
//! `/proc/PID/ns/net`. A pod without the annotation is known to the mesh, but an agent with this source
//! cannot enrol it.
//!
//! # Changes and mistakes
//!
//! Changes are noticed within a tenth of a second. Write a file outside the directory and rename it
//! into place: a file that is read while it is being written may look complete with half of its
//! objects.
//!
//! If a document of a file is broken, the last good version of the whole file stays in force. If a file
//! is gone while another one is broken, its objects stay in force, because they may have moved there.
//! Until every file has been good once, the mesh is not complete and pods stay closed. Each error is a
//! [`Fault`](ambit_model::Fault) of the snapshot.

mod assembly;
mod document;
mod in_force;
mod kinds;
pub mod offline;
mod read;
mod watch;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use notify::RecommendedWatcher;

use crate::objects::ObjectError;
use crate::place::FieldPath;
use ambit_model::{MeshRanges, NetnsReference, Revision, Snapshot, TrustBundle};
use in_force::FilesInForce;
use read::FileReading;
use watch::{Loader, Message};

/// The annotation with the path of a pod's network namespace. Only this source believes it: in a
/// cluster, whoever creates a pod chooses its annotations.
pub const NETNS_ANNOTATION: &str = "ambit.mesh/netns";

/// The settings of a [`FileSource`].
#[derive(Clone, Debug)]
pub struct FileSourceConfig {
    /// The directory with the objects.
    pub directory: PathBuf,
    /// The mesh's trust domain and its aliases.
    pub trust_bundle: TrustBundle,
    /// Istio's root namespace, usually `istio-system`.
    pub root_namespace: Arc<str>,
    /// The control plane's revision, whose policies apply.
    pub revision: Revision,
    /// The cluster's pod and Service ranges.
    pub ranges: MeshRanges,
}

/// Settings of the mesh that are not in its files.
#[derive(Clone, Debug)]
pub(super) struct SourceSettings {
    pub(super) trust_bundle: TrustBundle,
    pub(super) root_namespace: Arc<str>,
    pub(super) revision: Revision,
    pub(super) ranges: MeshRanges,
}

/// Why a [`FileSource`] cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The directory does not exist, or cannot be read.
    #[error(
        "{} is not a readable directory ({error}); create it or name another one",
        directory.display()
    )]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The thread cannot be started.
    #[error("cannot start the thread that follows the configuration directory: {0}")]
    Thread(io::Error),
}

/// Follows a directory of configuration until it is dropped.
#[derive(Debug)]
pub struct FileSource {
    inbox: Sender<Message>,
    thread: Option<JoinHandle<()>>,
    _watcher: Option<RecommendedWatcher>,
}

impl FileSource {
    /// Reads the directory, and follows it on a separate thread. The receiver has the first snapshot
    /// immediately, and a new one after each change.
    ///
    /// # Errors
    /// [`SourceError::Directory`] if the directory cannot be read. Later errors, and errors in its
    /// files, are faults of the snapshot instead.
    pub fn start(
        config: FileSourceConfig,
    ) -> Result<(Self, tokio::sync::watch::Receiver<Arc<Snapshot>>), SourceError> {
        let FileSourceConfig {
            directory,
            trust_bundle,
            root_namespace,
            revision,
            ranges,
        } = config;
        if let Err(error) = std::fs::read_dir(&directory) {
            return Err(SourceError::Directory { directory, error });
        }
        let settings = SourceSettings {
            trust_bundle,
            root_namespace,
            revision,
            ranges,
        };
        let (inbox, messages) = mpsc::channel();
        // Before the first reading, so that no change is missed between the two.
        let watcher = watch::subscribe(&directory, inbox.clone());
        let loader = Loader::new(directory.clone(), FilesInForce::new(directory, settings));
        let snapshots = loader.subscribe();
        let thread = std::thread::Builder::new()
            .name("files".to_owned())
            .spawn(move || loader.run(&messages))
            .map_err(SourceError::Thread)?;
        let source = Self {
            inbox,
            thread: Some(thread),
            _watcher: watcher,
        };
        Ok((source, snapshots))
    }
}

/// The snapshot that a [`FileSource`] would make of a directory with one file, which has this text.
pub fn snapshot_of(text: String, config: FileSourceConfig) -> Snapshot {
    let path = config.directory.join("objects.yaml");
    let settings = SourceSettings {
        trust_bundle: config.trust_bundle,
        root_namespace: config.root_namespace,
        revision: config.revision,
        ranges: config.ranges,
    };
    let mut state = FilesInForce::new(config.directory, settings);
    state.load(Ok(vec![FileReading {
        path: Arc::new(path),
        text: Ok(text),
    }]));
    Snapshot::new(state.parts())
}

/// The network namespace that a pod's annotation names.
///
/// # Errors
/// If the path is not absolute.
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
        format!("{text:?} is not an absolute path; write one, for example /run/netns/NAME"),
    ))
}

impl Drop for FileSource {
    fn drop(&mut self) {
        // If the thread has ended, neither is needed.
        let _ = self.inbox.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
