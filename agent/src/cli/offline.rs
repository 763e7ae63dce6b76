//! Commands that read files instead of asking an agent.

use std::path::PathBuf;

use ambit_model::{Revision, TrustBundle, TrustDomain};
use ambit_source::files::offline::{FileSet, Input, OfflineConfig, read_once};

/// Settings that an agent has besides its files.
#[derive(clap::Args)]
pub(super) struct MeshArguments {
    /// The mesh's SPIFFE trust domain, for files.
    #[arg(long, env = "AMBIT_TRUST_DOMAIN", default_value = "cluster.local", value_parser = TrustDomain::new)]
    trust_domain: TrustDomain,
    /// A trust domain that counts as the mesh's own, for files. May be given several times.
    #[arg(long = "trust-domain-alias", value_parser = TrustDomain::new)]
    trust_domain_aliases: Vec<TrustDomain>,
    /// Istio's root namespace, for files.
    #[arg(long, env = "AMBIT_ROOT_NAMESPACE", default_value = "istio-system")]
    root_namespace: String,
    /// The control plane's revision, for files: policies with another revision in the label
    /// istio.io/rev do not apply. Without one (""), all apply.
    #[arg(long, env = "AMBIT_REVISION", default_value_t, value_parser = Revision::new)]
    revision: Revision,
}

impl MeshArguments {
    /// Reads files and directories, and `-` as the standard input.
    pub(super) fn read(self, paths: &[PathBuf]) -> std::io::Result<FileSet> {
        let inputs = paths.iter().map(|path| Input::named(path));
        let inputs = inputs.collect::<Result<_, _>>()?;
        let config = OfflineConfig {
            trust_bundle: TrustBundle {
                own: self.trust_domain,
                aliases: self.trust_domain_aliases,
            },
            root_namespace: self.root_namespace.into(),
            revision: self.revision,
        };
        Ok(read_once(inputs, config))
    }
}
