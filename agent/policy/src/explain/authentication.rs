//! Which PeerAuthentication is in force for a port.

use crate::decision::Decider;
use crate::index::{Level, PolicyIndex};
use crate::peer_authentication::MtlsMode;
use ambit_model::{PolicyKind, Workload};

impl PolicyIndex {
    /// The object that says whether a port takes plaintext, and what it says; `None` where none
    /// does, so that it is taken. The nearest level that has a word on it counts, as where
    /// strictness is resolved; unlike there, a PERMISSIVE object is named too.
    pub(crate) fn authentication(
        &self,
        workload: &Workload,
        port: u16,
    ) -> Option<(Decider, MtlsMode)> {
        let levels = [Level::Workload, Level::Namespace, Level::Mesh];
        levels.into_iter().find_map(|level| {
            let of_level = |parsed: &&_| self.level(parsed, workload) == Some(level);
            let parsed = self.authentications.iter().find(of_level)?;
            let content = parsed.content.as_ref().ok()?;
            let of_port = content.ports.get(&port).copied();
            let mode = of_port
                .filter(|mode| *mode != MtlsMode::Unset)
                .unwrap_or(content.mode);
            let object = Decider {
                kind: PolicyKind::PeerAuthentication,
                name: parsed.object.name.clone(),
                rule: None,
            };
            (mode != MtlsMode::Unset).then_some((object, mode))
        })
    }
}
