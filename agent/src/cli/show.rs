//! Prints what an agent answers.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::output::{Format, Output};
use crate::admin::client;

/// Where to ask, and how to print the answer.
#[derive(clap::Args)]
pub(super) struct ShowArguments {
    /// The agent's admin socket.
    #[arg(long, env = "AMBIT_SOCKET", default_value = super::run::DEFAULT_SOCKET)]
    socket: PathBuf,
    /// How to print the answer.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

impl ShowArguments {
    pub(super) fn print(&self, what: &str) -> anyhow::Result<()> {
        Output::of(&ask(&self.socket, what)?, self.output)?.print()
    }
}

/// What an agent answers.
pub(super) fn ask(socket: &Path, what: &str) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(client::get(socket, what))
}
