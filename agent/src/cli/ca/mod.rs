//! `ambit ca`: the certificate authority.

mod init;
mod serve;
mod sign;

/// The certificate authority.
#[derive(clap::Args)]
pub(super) struct CaArguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a root, or an intermediate that a root signs, in Istio's cacerts layout.
    Init(init::InitArguments),
    /// Sign a workload's certificate for the key of a certificate signing request.
    Sign(sign::SignArguments),
    /// Serve certificates to the node agents, sidecars and ztunnels of a cluster without Istio.
    Serve(Box<serve::ServeArguments>),
}

impl CaArguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Init(arguments) => arguments.run(),
            Command::Sign(arguments) => arguments.run(),
            Command::Serve(arguments) => arguments.run(),
        }
    }
}
