//! What a start changes of the node, in one place, so that a start that fails undoes it.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use tokio::net::UnixListener;

use super::RunConfig;
use crate::admin::socket;
use ambit_datapath::PinDirectory;

/// The changes of a start that is under way. They are undone unless it succeeds. No pod depends on
/// them until then.
#[derive(Default)]
pub(super) struct StartChanges {
    socket: Option<PathBuf>,
    pins: Option<PinDirectory>,
}

impl StartChanges {
    /// Opens the admin socket.
    pub(super) fn open_socket(&mut self, config: &RunConfig) -> Result<UnixListener> {
        let listener = socket::bind(&config.socket)?;
        self.socket = Some(config.socket.clone());
        Ok(listener)
    }

    /// Makes the pin directory.
    pub(super) fn pins(&mut self, config: &RunConfig) -> Result<&PinDirectory> {
        let pins = PinDirectory::prepare(&config.pin_dir)?;
        Ok(self.pins.insert(pins))
    }

    /// Keeps them. What is returned is to be held for as long as the agent runs: it keeps others
    /// away.
    pub(super) fn keep(mut self) -> Option<PinDirectory> {
        self.socket = None;
        self.pins.take()
    }
}

impl Drop for StartChanges {
    fn drop(&mut self) {
        if let Some(pins) = self.pins.take() {
            pins.undo();
        }
        if let Some(socket) = self.socket.take() {
            // One that stays is replaced by the next agent.
            let _ = fs::remove_file(socket);
        }
    }
}
