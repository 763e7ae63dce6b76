//! The commands that show what an agent answers.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::output::{Format, Output};
use crate::admin::client::AdminClient;

/// The agent to ask, and how to print its answer.
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
    /// Prints what the agent answers to one request.
    pub(super) fn print<A: Serialize>(
        &self,
        request: impl AsyncFnOnce(AdminClient<'_>) -> anyhow::Result<A>,
    ) -> anyhow::Result<()> {
        Output::of(&ask(&self.socket, request)?, self.output)?.print()
    }
}

/// Asks the agent at a socket.
pub(super) fn ask<A>(
    socket: &Path,
    request: impl AsyncFnOnce(AdminClient<'_>) -> anyhow::Result<A>,
) -> anyhow::Result<A> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(request(AdminClient::new(socket)))
}
