//! The command line: `ambit run` is the agent, `ambit ca` the certificate authority; everything else
//! asks an agent, or looks at files.

mod ca;
mod certs;
mod check;
mod explain;
mod offline;
mod run;
mod show;
mod validate;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use show::Show;

/// An eBPF-accelerated, per-node ambient agent for Kubernetes.
#[derive(Parser)]
#[command(name = "ambit", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent of this node.
    Run(Box<run::RunArguments>),
    /// What the agent does and how it fares.
    Status(Show),
    /// The workloads that the agent knows, and how far each has come.
    Workloads(Show),
    /// The policy objects, and whether each is enforced.
    Policies(Show),
    /// The connections that the proxy carries.
    Connections(Show),
    /// The certificates of this node's workloads.
    Certs(certs::Certs),
    /// Recent denials, and what policies had noted (AUDIT, dry runs).
    Events(Show),
    /// What this kernel has and lacks, and whose programs besides Ambit's are on its hooks.
    Check(check::Check),
    /// The certificate authority.
    Ca(ca::Ca),
    /// Whether somebody may reach something, and which policy says so.
    Explain(Box<explain::Explain>),
    /// What is wrong with files of configuration.
    Validate(validate::Validate),
}

/// Runs the command line.
pub fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(arguments) => arguments.run()?,
        Command::Status(show) => show.print("status")?,
        Command::Workloads(show) => show.print("workloads")?,
        Command::Policies(show) => show.print("policies")?,
        Command::Connections(show) => show.print("connections")?,
        Command::Certs(certs) => certs.run()?,
        Command::Events(show) => show.print("events")?,
        Command::Ca(ca) => ca.run()?,
        Command::Check(check) => return check.run(),
        Command::Explain(explain) => return explain.run(),
        Command::Validate(validate) => return validate.run(),
    }
    Ok(ExitCode::SUCCESS)
}
