//! The paths of the workspace.

use std::path::{Path, PathBuf};

/// The repository.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// The crate of the kernel programs, which is a separate workspace.
pub(crate) fn kernel_crate() -> PathBuf {
    root().join("ebpf")
}

/// The crate of the fuzz targets, which is a separate workspace.
pub(crate) fn fuzz_crate() -> PathBuf {
    root().join("tests/fuzz")
}

/// Where `agent/datapath/build.rs` finds the kernel programs that it embeds.
pub(crate) fn kernel_objects() -> PathBuf {
    root().join("target/ebpf")
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The agent, as [`crate::build::run`] makes it.
pub(crate) fn agent_binary() -> PathBuf {
    target().join("release/ambit")
}
