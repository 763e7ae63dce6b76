//! The pods between which is measured: one that calls, and one on each node that is called, once in
//! the mesh and once outside it.

use std::fs;

use ambit_tests::{Agent, Family, Lab, Membership, NodeName, Pod, PodSpec, Process};
use anyhow::Result;

use super::stretch::{Path, Span, Stretch};
use super::tools;

/// Mutual TLS everywhere, and one policy to be judged by.
const POLICIES: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: in-mesh}
spec: {rules: [{from: [{source: {namespaces: [in-mesh]}}]}]}
";

/// The pods of one path.
struct Lane {
    caller: Pod,
    near: Pod,
    far: Pod,
}

/// Everything that is measured.
pub(super) struct Course {
    direct: Lane,
    ambit: Lane,
    agents: [Agent; 2],
    _servers: Vec<Process>,
}

impl Course {
    pub(super) fn build(lab: &Lab) -> Result<Self> {
        let direct = Lane::build(lab, Membership::None, "outside", ["dc", "dn", "df"])?;
        let ambit = Lane::build(lab, Membership::Ambient, "in-mesh", ["mc", "mn", "mf"])?;
        lab.manifests().write("policies.yaml", POLICIES)?;
        let agents = lab.start_agents()?;
        let mut servers = Vec::new();
        for pod in [&direct.near, &direct.far, &ambit.near, &ambit.far] {
            servers.extend(tools::serve(lab, pod)?);
        }
        Ok(Self {
            direct,
            ambit,
            agents,
            _servers: servers,
        })
    }

    pub(super) fn agents(&self) -> &[Agent] {
        &self.agents
    }

    /// The pods of the mesh on both nodes: one that calls, and one that is called.
    pub(super) fn across(&self) -> [&Pod; 2] {
        [&self.ambit.caller, &self.ambit.far]
    }

    /// Kills the agent of the pod that is called, and starts another.
    pub(super) fn replace_agent(&mut self, lab: &Lab) -> Result<()> {
        self.agents[1].kill_at_once()?;
        self.agents[1] = lab.start_agent(NodeName::B)?;
        Ok(())
    }

    pub(super) fn stretch(&self, span: Span, path: Path) -> Stretch<'_> {
        let lane = match path {
            Path::Direct => &self.direct,
            Path::Ambit => &self.ambit,
        };
        let server = match span {
            Span::TwoNodes => &lane.far,
            Span::OneNode => &lane.near,
        };
        Stretch {
            from: lane.caller.place(),
            to: server.ip(Family::V4),
        }
    }
}

impl Lane {
    fn build(
        lab: &Lab,
        membership: Membership,
        namespace: &'static str,
        names: [&'static str; 3],
    ) -> Result<Self> {
        lab.manifests().write_namespace(namespace, membership)?;
        let pod = |node, name| {
            let spec = PodSpec {
                namespace,
                ..PodSpec::named(name)
            };
            let pod = lab.add_pod(node, spec)?;
            lab.manifests().write_pod(&pod)?;
            fs::create_dir(lab.directory().join(name))?;
            anyhow::Ok(pod)
        };
        let [caller, near, far] = names;
        Ok(Self {
            caller: pod(NodeName::A, caller)?,
            near: pod(NodeName::A, near)?,
            far: pod(NodeName::B, far)?,
        })
    }
}
