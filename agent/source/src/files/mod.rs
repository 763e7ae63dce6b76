//! A directory of ordinary Kubernetes YAML as the source of configuration: for development, tests,
//! the demo, and machines without Kubernetes.
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
//! | `v1` Pod | labels, `spec.nodeName`, `spec.serviceAccountName`, ports and probes, `status.podIPs` or `podIP`, phase, conditions, and what keeps it from being enrolled |
//! | `v1` Service | `spec.clusterIPs` or `clusterIP`, TCP ports and what they speak (`appProtocol`, or the port's name as Istio reads it), selector |
//! | `discovery.k8s.io/v1` EndpointSlice | the label `kubernetes.io/service-name`, `addressType` IPv4 or IPv6, `endpoints` with their addresses and conditions, TCP ports |
//! | `v1` ConfigMap `istio` of the root namespace | of Istio's MeshConfig, YAML under `mesh`: `extensionProviders` that authorize, `pathNormalization` |
//! | `security.istio.io/v1`, `v1beta1` AuthorizationPolicy, PeerAuthentication | everything |
//!
//! Other kinds are ignored, with one line in the log. A document that is meant to be of one of these
//! kinds and is not (`AuthorisationPolicy`, `security.istio.io/v2`, `pod`) is a broken document: it
//! cannot be known which workloads such a policy selects.
//!
//! # Where a pod's network namespace is
//!
//! No Pod object of Kubernetes says it, so here an annotation does:
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
//! The path is absolute and leads to a file of nsfs, such as `ip netns add` makes, or
//! `/proc/PID/ns/net`. A pod without the annotation is known to the mesh, but no agent of this
//! source can enrol it.
//!
//! # Changes and mistakes
//!
//! Changes are taken up within a tenth of a second. Write a file beside the directory and rename it
//! into place: a file read while it is being written may look complete with half of its objects.
//!
//! A file with a broken document keeps its last good version, all of it, in force, and a file that
//! is gone keeps its objects while another one is broken, as they may have moved there. Until every
//! file has been good once, the mesh is not complete and pods stay closed. What is wrong is a
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

/// The annotation that says where a pod's network namespace is. Only this source believes it: in a
/// cluster, whoever makes a pod chooses its annotations.
pub const NETNS_ANNOTATION: &str = "ambit.mesh/netns";

/// What a [`FileSource`] is told.
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

/// What the mesh is told besides its files.
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
    /// The directory is not there, or is something else.
    #[error(
        "{} is no directory that can be read ({error}); create it or name another one",
        directory.display()
    )]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// No thread can be made.
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
    /// Reads the directory, and goes on following it on a thread of its own. The receiver has the
    /// first snapshot at once, and another one whenever something changed.
    ///
    /// # Errors
    /// [`SourceError::Directory`] where there is no such directory. Whatever is wrong in it later,
    /// or inside its files, is a fault of the snapshot instead.
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
        // Before the first reading, so that no change falls between the two.
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

/// The snapshot of a directory that has one file, with this text: what a [`FileSource`] would give,
/// without a directory.
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

impl Drop for FileSource {
    fn drop(&mut self) {
        // A thread that is gone needs neither.
        let _ = self.inbox.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
