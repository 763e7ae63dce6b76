//! What is measured beside the direct path and Ambit.

use std::path::PathBuf;

use ambit_tests::{Lab, Process, Ztunnel};
use anyhow::Result;

use super::lane::Lane;
use super::relays;
use super::stretch::Path;

/// Other proxies to measure in the same rounds.
pub(crate) struct Beside {
    /// The program of the plain relays.
    pub(crate) relay: Option<PathBuf>,
    /// A peer's proxy.
    pub(crate) peer: Option<Ztunnel>,
}

impl Beside {
    /// Builds their pods and starts them.
    pub(super) fn start(&self, lab: &Lab) -> Result<Vec<Carriers>> {
        let mut all = Vec::new();
        if let Some(program) = &self.relay {
            let lane = Lane::build(lab, Path::Relays)?;
            let proxies = relays::start(lab, &lane, program)?;
            all.push(Carriers {
                path: Path::Relays,
                lane,
                proxies,
            });
        }
        if let Some(peer) = &self.peer {
            let lane = Lane::build(lab, Path::Peer)?;
            let pods = lane.pods();
            let [caller, near, far] = pods.map(|pod| peer.start(lab, pod, &pods));
            all.push(Carriers {
                path: Path::Peer,
                proxies: [caller?, near?, far?],
                lane,
            });
        }
        Ok(all)
    }
}

/// The pods of a path, and the proxy beside each.
pub(super) struct Carriers {
    pub(super) path: Path,
    pub(super) lane: Lane,
    /// Of the caller, the near and the far pod.
    pub(super) proxies: [Process; 3],
}

impl Carriers {
    /// What the first proxy said that has ended.
    pub(super) fn ended(&mut self) -> Option<String> {
        let path = self.path;
        let pods = self.lane.pods();
        let mut proxies = self.proxies.iter_mut().zip(pods);
        let (ended, pod) = proxies.find_map(|(proxy, pod)| {
            let has_ended = !proxy.is_running();
            has_ended.then_some((proxy, pod))
        })?;
        let name = pod.name();
        Some(format!(
            "the proxy of pod {name} ({path}) has ended; it said: {}",
            ended.log()
        ))
    }
}
