//! The evaluator's verdicts, by the same files.

use std::sync::Arc;

use ambit_model::{ObjectName, TrustBundle, TrustDomain};
use ambit_policy::{ConnectionAttributes, ConnectionVerdict, MeshView, WorkloadPolicies};
use ambit_source::files::offline::{Input, OfflineConfig, read_once};
use ambit_tests::{Lab, TRUST_DOMAIN};
use anyhow::{Context, Result, bail, ensure};

use crate::site::SERVER;
use crate::verdict::{Outcome, Verdict};

/// The server's policies.
pub(crate) struct Reference(Arc<WorkloadPolicies>);

impl Reference {
    /// Reads the lab's configuration.
    pub(crate) fn read(lab: &Lab) -> Result<Self> {
        let config = OfflineConfig {
            trust_bundle: TrustBundle::without_aliases(TrustDomain::new(TRUST_DOMAIN)?),
            root_namespace: "istio-system".into(),
            revision: ambit_model::Revision::default(),
        };
        let directory = lab.manifests().directory().to_owned();
        let files = read_once(vec![Input::Path(directory)], config);
        ensure!(files.broken.is_empty(), "{:?}", files.broken);
        ensure!(files.unreadable.is_empty(), "{:?}", files.unreadable);
        let view = MeshView::new(files.snapshot);
        let server = view.snapshot.workload(&ObjectName::new(SERVER, SERVER));
        let policies = view.policies.for_workload(server.context("no server")?);
        Ok(Self(policies))
    }

    /// Judges a connection.
    pub(crate) fn judge(&self, connection: &ConnectionAttributes) -> Result<Verdict> {
        Ok(match self.0.judge_connection(connection) {
            ConnectionVerdict::Allow(permit) => Verdict {
                outcome: Outcome::Allowed,
                reason: None,
                decider: permit.into_decider().map(|decider| decider.to_string()),
            },
            ConnectionVerdict::Deny(denial) => Verdict {
                outcome: Outcome::Denied,
                reason: Some(denial.reason.as_str().to_owned()),
                decider: denial.decider.map(|decider| decider.to_string()),
            },
            ConnectionVerdict::Ask => bail!("{connection:?}: the kernel would ask"),
        })
    }
}
