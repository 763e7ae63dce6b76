//! CUSTOM policies that name different external authorizers for one workload.

use std::collections::BTreeMap;

use super::authorization::Action;
use super::index::{ParsedAuthorization, PolicyIndex};
use super::reader::Warning;
use super::workload_policies::AttachedPorts;
use ambit_model::{ObjectName, Workload};

/// A CUSTOM policy and the ports of a workload that it applies to.
struct Asking<'a> {
    name: &'a ObjectName,
    provider: &'a str,
    ports: AttachedPorts,
}

impl PolicyIndex {
    /// The CUSTOM policies whose matches are refused because another one names another authorizer,
    /// each with one example.
    pub(super) fn several_providers(&self) -> BTreeMap<&ObjectName, Warning> {
        let mut found = BTreeMap::new();
        let policies: Vec<_> = self.authorizations.iter().filter(is_custom).collect();
        if policies.len() < 2 {
            return found;
        }
        for workload in self.snapshot.workloads() {
            let asking = self.asking(&policies, workload);
            if asking
                .windows(2)
                .all(|two| two[0].provider == two[1].provider)
            {
                continue;
            }
            for one in &asking {
                let contradicts = |other: &&Asking<'_>| {
                    one.provider != other.provider && one.ports.meet(&other.ports)
                };
                if let Some(other) = asking.iter().find(contradicts) {
                    found
                        .entry(one.name)
                        .or_insert_with(|| contradiction(other, workload));
                }
            }
        }
        found
    }

    fn asking<'a>(
        &self,
        policies: &[&'a ParsedAuthorization],
        workload: &Workload,
    ) -> Vec<Asking<'a>> {
        let asking = policies.iter().filter_map(|parsed| {
            let policy = parsed.content.as_ref().ok()?;
            Some(Asking {
                name: &parsed.object.name,
                provider: policy.provider.as_deref()?,
                ports: self.attached_ports(parsed, workload)?,
            })
        });
        asking.collect()
    }
}

fn is_custom(parsed: &&ParsedAuthorization) -> bool {
    parsed.action == Some(Action::Custom)
}

fn contradiction(other: &Asking<'_>, workload: &Workload) -> Warning {
    Warning {
        path: "spec.provider.name".to_owned(),
        problem: format!(
            "what it matches is refused at the pod {}, because the policy {} names another provider \
             there, {:?}: as in Istio, a workload has one external authorizer; name the same one in \
             both",
            workload.name, other.name, other.provider
        ),
    }
}
