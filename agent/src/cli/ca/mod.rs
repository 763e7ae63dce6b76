//! `ambit ca`: the certificate authority.

mod serve;

/// The certificate authority.
#[derive(clap::Args)]
pub(super) struct Ca {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Serve certificates to the node agents, sidecars and ztunnels of a cluster without Istio.
    Serve(Box<serve::ServeArguments>),
}

impl Ca {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(arguments) => arguments.run(),
        }
    }
}
