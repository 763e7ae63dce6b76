//! Where the mesh's configuration comes from: namespaces, pods, Services and policy objects, turned
//! into [`Snapshot`](ambit_model::Snapshot)s.
//!
//! [`files`] reads a directory of ordinary Kubernetes YAML. The meaning of objects is separate from
//! their source, so that every source gives them the same meaning.

mod depth;
pub mod files;
mod objects;
mod place;
mod tree;

pub use files::{FileSource, FileSourceConfig, SourceError};
