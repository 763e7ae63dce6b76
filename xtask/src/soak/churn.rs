//! Pods that come and go at one address, with changing identities, and policies that come and go
//! with them.

use ambit_tests::{
    Addresses, Lab, LabServer, Membership, Mode, NodeName, Pod, PodSpec, Reference, SOON,
    eventually, get_from,
};
use anyhow::Result;

use super::traffic::{Expected, Stage, Tally};

/// The namespace whose pods anybody in the mesh may call.
const OPEN: &str = "guests-open";

/// The namespace whose pods accept no calls.
const SHUT: &str = "guests-shut";

const NAME: &str = "guest";

/// Allows nothing.
const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody, namespace: guests-shut}
spec: {}
";

/// What comes and goes.
pub(super) struct Guest(Addresses);

impl Guest {
    pub(super) fn new(lab: &Lab) -> Result<Self> {
        for namespace in [OPEN, SHUT] {
            lab.manifests()
                .write_namespace(namespace, Membership::Ambient)?;
        }
        let first = lab.add_pod(NodeName::B, spec(OPEN))?;
        lab.remove_pod(&first)?;
        Ok(Self(first.addresses()))
    }

    /// A pod that may be called, then one at the same address that may not.
    pub(super) fn come_and_go(&self, lab: &Lab, stage: &Stage) -> Result<Tally> {
        let mut tally = Tally::default();
        lab.manifests().write("guests.yaml", POLICY)?;
        for (namespace, kind, expected) in [
            (OPEN, "open guest", Expected::Answer),
            (SHUT, "shut guest", Expected::Refusal),
        ] {
            lab.manifests()
                .write_namespace(namespace, Membership::Ambient)?;
            let pod = lab.add_pod_at(NodeName::B, spec(namespace), self.0)?;
            let _server = LabServer::in_pod(lab, &pod, Mode::Http, Reference::PORT)?;
            lab.manifests().write_pod(&pod)?;
            wait_until_served(stage, &pod)?;
            let at = pod.at(Reference::PORT);
            // The caller's agent may learn of it a moment later.
            let reply = eventually(SOON, "a guest's first call", || {
                let reply = get_from(stage.caller(), at).ok()?;
                (expected == Expected::Refusal || reply.is_answer()).then_some(reply)
            })?;
            tally.judge(kind, expected, &reply);
            // One is opted out before it ends. The other just ends, as most pods do.
            if expected == Expected::Answer {
                lab.manifests()
                    .write_namespace(namespace, Membership::None)?;
                wait_until_left(stage, &pod)?;
            }
            lab.remove_pod(&pod)?;
            lab.manifests().remove(&pod.file_name())?;
            wait_until_left(stage, &pod)?;
        }
        lab.manifests().remove("guests.yaml")?;
        Ok(tally)
    }
}

fn spec(namespace: &'static str) -> PodSpec {
    PodSpec {
        namespace,
        ..PodSpec::named(NAME)
    }
}

fn wait_until_served(stage: &Stage, pod: &Pod) -> Result<()> {
    eventually(SOON, "a guest being served", || {
        is_served(stage, pod).then_some(())
    })
}

fn wait_until_left(stage: &Stage, pod: &Pod) -> Result<()> {
    eventually(SOON, "a guest's leave", || {
        (!is_served(stage, pod)).then_some(())
    })
}

fn is_served(stage: &Stage, pod: &Pod) -> bool {
    let name = format!("{}/{}", pod.namespace(), pod.name());
    stage.agents().iter().any(|agent| {
        let Ok(workloads) = agent.ask("workloads") else {
            return false;
        };
        let mut workloads = workloads.as_array().into_iter().flatten();
        workloads.any(|one| one["pod"] == name.as_str() && one["state"] == "served")
    })
}
