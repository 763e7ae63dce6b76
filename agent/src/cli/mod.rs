//! The command line: `ambit run` is the agent, `ambit ca` the certificate authority; everything else
//! asks an agent, or reads files.

// What is printed goes through `output`, which escapes it.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod ca;
mod certs;
mod check;
mod explain;
mod offline;
mod output;
mod run;
mod show;
mod validate;

use std::process::ExitCode;

use clap::error::ContextValue;
use clap::{Parser, Subcommand};

use ambit_observe::text::escaped;
use output::{print_error, print_usage_error};
use show::ShowArguments;

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
    /// The state of the agent.
    Status(ShowArguments),
    /// The workloads that the agent knows, and whether each is served.
    Workloads(ShowArguments),
    /// The policy objects, and whether each is enforced.
    Policies(ShowArguments),
    /// The connections that the proxy carries.
    Connections(ShowArguments),
    /// The certificates of this node's workloads.
    Certs(certs::CertsArguments),
    /// Recent denials, and what policies noted (AUDIT, dry runs).
    Events(ShowArguments),
    /// What this kernel has and lacks, and other projects' programs on Ambit's hooks.
    Check(check::CheckArguments),
    /// The certificate authority.
    Ca(ca::CaArguments),
    /// Whether a caller may reach a destination, and which policy decides.
    Explain(Box<explain::ExplainArguments>),
    /// Check files of configuration.
    Validate(validate::ValidateArguments),
}

/// The exit status if the arguments are not understood; clap's own.
const USAGE: u8 = 2;

/// Runs the command line.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return explain(error),
    };
    match run(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            print_error(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Help is printed as it is. An error repeats arguments, which may be names of files.
fn explain(mut error: clap::Error) -> ExitCode {
    if error.use_stderr() {
        let repeated = error.context().map(|(kind, value)| (kind, harmless(value)));
        for (kind, value) in repeated.collect::<Vec<_>>() {
            error.insert(kind, value);
        }
        print_usage_error(&error.render().to_string());
        return ExitCode::from(USAGE);
    }
    // If the reader has closed the pipe, no help is needed.
    let _ = error.print();
    ExitCode::SUCCESS
}

/// A value that clap repeats, with its line breaks escaped.
fn harmless(value: &ContextValue) -> ContextValue {
    let safe = |text: &String| escaped(text).into_owned();
    match value {
        ContextValue::String(text) => ContextValue::String(safe(text)),
        ContextValue::Strings(texts) => ContextValue::Strings(texts.iter().map(safe).collect()),
        // clap's own words.
        other => other.clone(),
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(arguments) => arguments.run()?,
        Command::Status(show) => show.print(async |agent| agent.status().await)?,
        Command::Workloads(show) => show.print(async |agent| agent.workloads().await)?,
        Command::Policies(show) => show.print(async |agent| agent.policies().await)?,
        Command::Connections(show) => show.print(async |agent| agent.connections().await)?,
        Command::Certs(certs) => certs.run()?,
        Command::Events(show) => show.print(async |agent| agent.events().await)?,
        Command::Ca(ca) => ca.run()?,
        Command::Check(check) => return check.run(),
        Command::Explain(explain) => return explain.run(),
        Command::Validate(validate) => return validate.run(),
    }
    Ok(ExitCode::SUCCESS)
}
