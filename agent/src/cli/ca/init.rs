//! `ambit ca init`.

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use crate::cli::output::Output;
use ambit_authority::{
    CA_FILES, CaFilesError, CertificateAuthority, INTERMEDIATE_LIFETIME, ROOT_LIFETIME,
    make_intermediate, make_root,
};
use ambit_model::TrustDomain;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What to make.
#[derive(clap::Args)]
pub(super) struct InitArguments {
    /// The directory to make. Existing files are never overwritten.
    #[arg(long)]
    dir: PathBuf,
    /// The mesh's SPIFFE trust domain.
    #[arg(long, env = "AMBIT_TRUST_DOMAIN", default_value = "cluster.local", value_parser = TrustDomain::new)]
    trust_domain: TrustDomain,
    /// How long it is valid, in days [default: 3650, or 730 for an intermediate].
    #[arg(long, value_name = "DAYS")]
    lifetime: Option<NonZeroU16>,
    /// The directory of a root: makes an intermediate that it signs, so that its key can be kept
    /// away from the cluster.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

impl InitArguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let made = self.make()?;
        Output::lines(self.lines(&made)?).print()
    }

    fn make(&self) -> Result<CertificateAuthority, CaFilesError> {
        let asked = self.lifetime.map(|days| DAY * u32::from(days.get()));
        match &self.root {
            None => make_root(
                &self.dir,
                &self.trust_domain,
                asked.unwrap_or(ROOT_LIFETIME),
            ),
            Some(root) => {
                let root = CertificateAuthority::open(root, &self.trust_domain)?;
                make_intermediate(&self.dir, &root, asked.unwrap_or(INTERMEDIATE_LIFETIME))
            }
        }
    }

    /// Describes what was made, and what to do with it.
    fn lines(&self, made: &CertificateAuthority) -> Result<Vec<String>, jiff::Error> {
        let directory = self.dir.display();
        let until = Timestamp::try_from(made.valid_until())?;
        let domain = made.trust_domain();
        let what = match &self.root {
            None => format!(
                "a root of {domain}, valid until {until}, in {directory}. To keep it \
                 offline, make what signs for the cluster with --root {directory}"
            ),
            Some(root) => format!(
                "an intermediate of {domain}, valid until {until}, in {directory}. The root in {} \
                 signed it, and can go offline",
                root.display()
            ),
        };
        let mut lines = vec![
            format!("Made {what}."),
            "As a Secret for the cluster's CA:".to_owned(),
            String::new(),
        ];
        lines.extend(secret(&self.dir));
        Ok(lines)
    }
}

/// The command that makes Istio's Secret of a directory's files.
fn secret(directory: &Path) -> Vec<String> {
    let mut lines =
        vec!["  kubectl create secret generic cacerts --namespace ambit-system".to_owned()];
    let files = CA_FILES.iter().map(|name| directory.join(name));
    let present = files.filter(|file| file.exists());
    lines.extend(present.map(|file| format!("    --from-file={}", file.display())));
    let last = lines.len() - 1;
    for line in &mut lines[..last] {
        line.push_str(" \\");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(dir: &Path, root: Option<&Path>, days: u16) -> InitArguments {
        InitArguments {
            dir: dir.to_owned(),
            trust_domain: TrustDomain::new("cluster.local").unwrap(),
            lifetime: NonZeroU16::new(days),
            root: root.map(Path::to_owned),
        }
    }

    #[test]
    fn a_root_and_an_intermediate_are_made_and_the_secret_has_their_files() {
        let directory = tempfile::tempdir().unwrap();
        let (root, below) = (directory.path().join("root"), directory.path().join("ca"));
        let init = arguments(&root, None, 100);
        let made = init.make().unwrap();
        let text = init.lines(&made).unwrap().join("\n");
        assert!(text.contains("root/root-cert.pem"), "{text}");
        assert!(!text.contains("cert-chain.pem"), "{text}");
        let init = arguments(&below, Some(&root), 3650);
        let intermediate = init.make().unwrap();
        assert_eq!(intermediate.root(), made.root());
        assert_eq!(intermediate.valid_until(), made.valid_until());
        let text = init.lines(&intermediate).unwrap().join("\n");
        assert!(text.contains("ca/cert-chain.pem"), "{text}");
        let deeper = directory.path().join("deeper");
        let error = arguments(&deeper, Some(&below), 1).make().unwrap_err();
        assert!(error.to_string().contains("path length"), "{error}");
        assert!(!deeper.join("ca-key.pem").exists());
    }

    #[test]
    fn nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let init = arguments(directory.path(), None, 1);
        init.make().unwrap();
        let error = init.make().unwrap_err();
        assert!(matches!(error, CaFilesError::Exists(_)), "{error}");
    }
}
