//! Ambit's build, demo and test commands: `cargo xtask --help`.

mod bench;
mod build;
mod citations;
mod demo;
mod everything;
mod files;
mod fuzz;
mod kernel;
mod lint;
mod miri;
mod process;
mod setup;
mod soak;
mod test;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use ambit_tests::{SameNode, Ztunnel};
use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use bench::Beside;
use demo::Afterwards;
use setup::Purpose;

/// Ambit's build, demo and test commands. Each one first installs what it needs and does not find.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building, testing and linting need (Debian 12, as root, with rustup).
    Setup,
    /// Build the kernel programs and the `ambit` binary that embeds them.
    Build,
    /// Run the reference example on two nodes of this machine (as root) and show the results.
    Demo {
        /// Leave the mesh up, and print commands to explore it.
        #[arg(long, conflicts_with = "clean")]
        keep: bool,
        /// Only remove what earlier runs with --keep left up.
        #[arg(long)]
        clean: bool,
    },
    /// Measure what a connection costs through Ambit, as a ratio of the direct path in the same rounds (as
    /// root).
    ///
    /// A figure is the median of the rounds, a ratio the median of each round's own. Only ratios of one run can
    /// be compared with those of another, and only on an otherwise idle machine. To repeat the README's table:
    /// `cargo xtask bench --relay`, and `--peer PATH` if you have a ztunnel.
    ///
    /// After the rounds, each measure is taken once more to count the proxies' system calls and the bytes that
    /// these copy between process and kernel (read, write, recv, send and their variants). Copies within a
    /// process or the kernel are not counted, nor are io_uring's.
    Bench {
        /// How often each path is measured.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
        rounds: u16,
        /// Take only the measures whose span and name contain this, for example `one node, requests`, and
        /// nothing after them.
        #[arg(long, default_value = "")]
        only: String,
        /// How the agents carry connections between two pods of one node.
        #[arg(long, value_enum, default_value_t = SameNodePath::Tunnel)]
        same_node: SameNodePath,
        /// Measure two plain TCP relays, too: one beside each pod, without TLS, HTTP/2 and policy. They show
        /// what relaying alone costs.
        #[arg(long)]
        relay: bool,
        /// Measure a peer's proxy, too: the path of a ztunnel that was built with its feature `testing`. One
        /// runs in each pod, with a certificate authority of its own, and nftables redirect to it.
        #[arg(long, value_name = "PATH")]
        peer: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check formatting, lints, documentation, licences and dependencies.
    Lint,
    /// Fuzz what reads bytes from outside.
    Fuzz {
        /// How long, for each target.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
        /// Run only the targets whose name contains this.
        #[arg(default_value = "")]
        only: String,
    },
    /// Run traffic, with pods, policies and certificates that come and go, and see that nothing
    /// fails or grows (as root).
    Soak {
        /// How long.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        minutes: u32,
    },
    /// Run the unit tests of what kernel and userspace share under Miri (needs a rustup nightly).
    Miri,
    /// Run the unit tests, then the end-to-end tests on this kernel (as root).
    Test {
        /// Run the end-to-end tests on Debian's kernel of this series, for example 6.1, in an emulated
        /// machine.
        #[arg(long, value_name = "SERIES")]
        kernel: Option<String>,
        /// Run the tests with a real API server and istiod, which are built from their source first.
        #[arg(long, conflicts_with = "kernel")]
        cluster: bool,
        /// Run more of the end-to-end tests with all pods on one node, and `--same-node handoff`.
        #[arg(long, conflicts_with_all = ["kernel", "cluster"])]
        same_node: bool,
        /// Run every check: lint, Miri, all tests on this kernel, with a control plane and on the
        /// oldest kernel, fuzzing, and ten minutes of soak. Takes about two hours.
        #[arg(long, conflicts_with_all = ["kernel", "cluster", "same_node", "names"])]
        all: bool,
        /// Run only the tests whose names contain one of these; with --kernel, only these files of
        /// tests/tests.
        names: Vec<String>,
    },
}

/// The agents' option `--same-node`.
#[derive(Clone, Copy, ValueEnum)]
enum SameNodePath {
    Tunnel,
    Handoff,
}

impl From<SameNodePath> for SameNode {
    fn from(path: SameNodePath) -> Self {
        match path {
            SameNodePath::Tunnel => Self::Tunnel,
            SameNodePath::Handoff => Self::Handoff,
        }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Setup => {
            setup::run(&[Purpose::Build, Purpose::Mesh, Purpose::Tests, Purpose::Lint])?;
            eprintln!("setup: everything is in place");
        }
        Command::Build => {
            setup::run(&[Purpose::Build])?;
            build::run()?;
        }
        Command::Demo { clean: true, .. } => {
            let removed = ambit_tests::remove_kept()?;
            eprintln!("demo: removed {removed} that were left up");
        }
        Command::Demo { keep, clean: false } => {
            setup::run(&[Purpose::Build, Purpose::Mesh])?;
            build::run()?;
            let afterwards = if keep {
                Afterwards::Keep
            } else {
                Afterwards::Remove
            };
            return demo::run(afterwards);
        }
        Command::Bench {
            rounds,
            only,
            same_node,
            relay,
            peer,
            json,
        } => {
            let peer = peer.as_deref().map(Ztunnel::at).transpose()?;
            setup::run(&[Purpose::Build, Purpose::Mesh, Purpose::Bench])?;
            build::run()?;
            build::lab_tools()?;
            let format = if json {
                bench::Format::Json
            } else {
                bench::Format::Table
            };
            let relay = relay.then(build::relay).transpose()?;
            let beside = Beside { relay, peer };
            let choice = bench::Choice {
                rounds: rounds.into(),
                only,
                same_node: same_node.into(),
            };
            return bench::run(&choice, format, &beside);
        }
        Command::Fuzz { seconds, only } => {
            setup::run(&[Purpose::Build, Purpose::Fuzz])?;
            build::kernel_programs()?;
            return fuzz::run(&only, seconds);
        }
        Command::Soak { minutes } => {
            setup::run(&[Purpose::Build, Purpose::Mesh])?;
            build::run()?;
            build::lab_tools()?;
            return soak::run(minutes);
        }
        Command::Miri => {
            setup::run(&[Purpose::Miri])?;
            miri::run()?;
        }
        Command::Lint => {
            setup::run(&[Purpose::Build, Purpose::Lint])?;
            lint::run()?;
        }
        Command::Test { all: true, .. } => return Ok(everything::run(run)),
        Command::Test {
            cluster: true,
            names,
            ..
        } => {
            setup::run(&[Purpose::Build, Purpose::Mesh, Purpose::Cluster])?;
            build::run()?;
            return test::run_cluster(&names);
        }
        Command::Test {
            kernel: None,
            cluster: false,
            all: false,
            same_node,
            names,
        } => {
            setup::run(&[Purpose::Build, Purpose::Mesh, Purpose::Tests])?;
            build::run()?;
            return if same_node {
                test::run_same_node(&names)
            } else {
                test::run(&names)
            };
        }
        Command::Test {
            kernel: Some(series),
            cluster: false,
            all: false,
            names,
            ..
        } => {
            setup::run(&[
                Purpose::Build,
                Purpose::Mesh,
                Purpose::Tests,
                Purpose::Kernels,
            ])?;
            build::run()?;
            return kernel::run(&series, &names);
        }
    }
    Ok(ExitCode::SUCCESS)
}
