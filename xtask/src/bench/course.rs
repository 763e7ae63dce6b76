//! The pods between which is measured, on every path, and what carries their connections.

use ambit_tests::{Agent, Lab, NodeName, Pod, Process, Reply, SOON, eventually, get};
use anyhow::{Context, Result};

use super::beside::{Beside, Carriers};
use super::lane::Lane;
use super::relays;
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

/// Everything that is measured.
pub(super) struct Course {
    direct: Lane,
    ambit: Lane,
    agents: [Agent; 2],
    beside: Vec<Carriers>,
    _servers: Vec<Process>,
}

impl Course {
    pub(super) fn build(lab: &Lab, beside: &Beside) -> Result<Self> {
        let direct = Lane::build(lab, Path::Direct)?;
        let ambit = Lane::build(lab, Path::Ambit)?;
        let beside = beside.start(lab)?;
        lab.manifests().write("policies.yaml", POLICIES)?;
        let agents = lab.start_agents()?;
        let mut servers = Vec::new();
        let lanes = beside.iter().map(|carriers| &carriers.lane);
        for lane in [&direct, &ambit].into_iter().chain(lanes) {
            for pod in [&lane.near, &lane.far] {
                servers.extend(tools::serve(lab, pod)?);
            }
        }
        let mut course = Self {
            direct,
            ambit,
            agents,
            beside,
            _servers: servers,
        };
        course.wait_until_answered()?;
        Ok(course)
    }

    /// What is measured in turn.
    pub(super) fn paths(&self) -> Vec<Path> {
        let beside = self.beside.iter().map(|carriers| carriers.path);
        let all = [Path::Direct].into_iter().chain(beside);
        all.chain([Path::Ambit]).collect()
    }

    pub(super) fn agents(&self) -> Result<Vec<u32>> {
        self.agents.iter().map(id_of_agent).collect()
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

    pub(super) fn stretch(&self, span: Span, path: Path) -> Result<Stretch<'_>> {
        let lane = match path {
            Path::Direct => &self.direct,
            Path::Ambit => &self.ambit,
            Path::Relays | Path::Peer => &self.carriers(path)?.lane,
        };
        let to = match path {
            Path::Relays => relays::entrance(span),
            Path::Direct | Path::Peer | Path::Ambit => lane.called(span),
        };
        Ok(Stretch {
            from: lane.caller.place(),
            to,
        })
    }

    /// The ids of the processes that carry a connection.
    pub(super) fn proxies(&self, span: Span, path: Path) -> Result<Vec<u32>> {
        match (path, span) {
            (Path::Direct, _) => Ok(Vec::new()),
            (Path::Ambit, Span::TwoNodes) => self.agents(),
            (Path::Ambit, Span::OneNode) => Ok(vec![id_of_agent(&self.agents[0])?]),
            (Path::Relays | Path::Peer, _) => {
                let [caller, near, far] = &self.carriers(path)?.proxies;
                let called = match span {
                    Span::TwoNodes => far,
                    Span::OneNode => near,
                };
                let ids = [caller, called].map(Process::id);
                ids.into_iter()
                    .map(|id| id.context("a proxy without an id"))
                    .collect()
            }
        }
    }

    /// Adds to an error what a proxy said that has ended.
    pub(super) fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        match self.beside.iter_mut().find_map(Carriers::ended) {
            Some(words) => error.context(words),
            None => error,
        }
    }

    fn carriers(&self, path: Path) -> Result<&Carriers> {
        let mut beside = self.beside.iter();
        let found = beside.find(|carriers| carriers.path == path);
        found.with_context(|| format!("{path}: not measured"))
    }

    /// A proxy may need a moment after it listens, for its certificate for example.
    fn wait_until_answered(&mut self) -> Result<()> {
        for path in self.paths() {
            for span in Span::ALL {
                let Stretch { from, to } = self.stretch(span, path)?;
                let url = format!("http://{to}:{}/", tools::NGINX);
                let what = format!("an answer to {url} ({path}, {span})");
                let answered = eventually(SOON, &what, || {
                    matches!(get(from, &url), Ok(Reply::Answer(_))).then_some(())
                });
                answered.map_err(|error| self.explain(error))?;
            }
        }
        Ok(())
    }
}

fn id_of_agent(agent: &Agent) -> Result<u32> {
    agent.id().context("an agent has ended")
}
