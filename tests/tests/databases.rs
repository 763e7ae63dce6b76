//! Unmodified databases through the mesh: long conversations, much data in both directions at the same time.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use ambit_tests::{
    Family, Lab, Outcome, Place, Process, Reference, output, run_tests, slowness, tests,
};
use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

const PORT: u16 = Reference::PORT;

fn main() -> ExitCode {
    run_tests(tests![postgresql, redis])
}

/// The user that runs programs which refuse to run as root: nobody.
const NOBODY: u32 = 65534;
const AS_NOBODY: [&str; 4] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
];

/// A PostgreSQL server that admits only one address.
fn postgres(
    lab: &Lab,
    place: &Place,
    listen: SocketAddr,
    caller: IpAddr,
) -> Result<(TempDir, Process)> {
    let programs = std::fs::read_dir("/usr/lib/postgresql")?
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .max()
        .context("no PostgreSQL; see `cargo xtask setup`")?;
    // The lab's own directory is root's.
    let home = TempDir::new()?;
    chown(home.path(), Some(NOBODY), Some(NOBODY))?;
    let data = home.path().join("data");
    let as_nobody = |program: &str| -> Result<Command> {
        let [first, rest @ ..] = AS_NOBODY;
        let mut command = place.command(first)?;
        command
            .args(rest)
            .arg(programs.join(program))
            .arg("-D")
            .arg(&data);
        command.current_dir(home.path());
        Ok(command)
    };
    let outcome = output(as_nobody("initdb")?.args(["--username=lab", "--no-sync"]))?;
    ensure!(outcome.status.success(), "initdb: {}", outcome.stderr);
    std::fs::write(
        data.join("pg_hba.conf"),
        format!("host all all {caller}/32 trust\n"),
    )?;
    let mut command = as_nobody("postgres")?;
    command.args(["-c", &format!("listen_addresses={}", listen.ip())]);
    command.args(["-c", &format!("port={}", listen.port()), "-c", "fsync=off"]);
    command.args(["-c", "unix_socket_directories="]);
    let mut server = Process::start(&mut command, &lab.new_log("postgres")?)?;
    server.wait_for_line("PostgreSQL", |line| {
        line.contains("ready to accept connections").then_some(())
    })?;
    Ok((home, server))
}

fn postgresql(lab: &Lab) -> Result<()> {
    let (mesh, _agents) = Reference::start(lab)?;
    let (orders, caller) = (mesh.orders.at(PORT), mesh.frontend.ip(Family::V4));
    let _server = postgres(lab, mesh.orders.place(), orders, caller)?;
    let run = |program: &str, to: SocketAddr, arguments: &[&str]| -> Result<Outcome> {
        let mut command = mesh.frontend.command(program)?;
        command
            .env("PGHOST", to.ip().to_string())
            .env("PGPORT", to.port().to_string());
        command
            .env("PGUSER", "lab")
            .env("PGDATABASE", "postgres")
            .env("PGCONNECT_TIMEOUT", "5");
        output(command.args(arguments))
    };
    let pipeline = lab.directory().join("pipeline.sql");
    let statements = "SELECT count(*) FROM pgbench_branches;\n".repeat(20);
    std::fs::write(
        &pipeline,
        format!("\\startpipeline\n{statements}\\endpipeline\n"),
    )?;
    let pipeline = pipeline.to_string_lossy();
    for arguments in [
        // COPY, a hundred thousand rows.
        &["--initialize", "--quiet"][..],
        &["--client=8", "--transactions=50"],
        &[
            "--client=4",
            "--transactions=50",
            "--protocol=extended",
            "--no-vacuum",
            "--file",
            &pipeline,
        ],
    ] {
        let outcome = run("pgbench", orders, arguments)?;
        let Outcome {
            status,
            stdout,
            stderr,
        } = &outcome;
        ensure!(status.success(), "pgbench {arguments:?}: {stdout}{stderr}");
    }
    let outcome = run(
        "psql",
        orders,
        &[
            "-Atc",
            "SELECT inet_client_addr(), count(*) FROM pgbench_accounts",
        ],
    )?;
    ensure!(
        outcome.stdout.trim() == format!("{caller}|100000"),
        "{outcome:?}"
    );
    let denied = run("psql", mesh.payments.at(PORT), &["-Atc", "SELECT 1"])?;
    ensure!(!denied.status.success(), "{denied:?}");
    Ok(())
}

fn redis(lab: &Lab) -> Result<()> {
    let (mesh, _agents) = Reference::start(lab)?;
    let orders = mesh.orders.at(PORT);
    // The package of Redis' tools contains the server, under the name of a tool.
    let mut command = mesh.orders.command("redis-check-rdb")?;
    command.arg0("redis-server").current_dir(lab.directory());
    command.args(["--save", "", "--protected-mode", "no"]);
    command.args([
        "--bind",
        &orders.ip().to_string(),
        "--port",
        &orders.port().to_string(),
    ]);
    let mut server = Process::start(&mut command, &lab.new_log("redis")?)?;
    server.wait_for_line("Redis", |line| {
        line.contains("Ready to accept").then_some(())
    })?;
    let run = |program: &str, to: SocketAddr, arguments: &[&str]| -> Result<Outcome> {
        let mut command = mesh.frontend.command(program)?;
        command.args(["-h", &to.ip().to_string(), "-p", &to.port().to_string()]);
        output(command.args(arguments))
    };
    // A hundred commands at a time on each of fifty connections, with values of 1 KiB, and answers of
    // 100 KiB.
    for (commands, last, count) in [
        ("set,get", "GET", 20_000),
        ("lrange_100", "LRANGE_100", 5000),
    ] {
        let count = (count / slowness()).to_string();
        let pipelined = [
            "-t", commands, "-n", &count, "-r", "1000", "-P", "100", "-d", "1024", "-q",
        ];
        let outcome = run("redis-benchmark", orders, &pipelined)?;
        let said = outcome.stdout + &outcome.stderr;
        let is_done = outcome.status.success() && said.contains(last);
        ensure!(is_done, "redis-benchmark: {said}");
    }
    let outcome = run("redis-cli", orders, &["dbsize"])?;
    let keys: u32 = outcome.stdout.trim().parse()?;
    ensure!(keys > 900, "{keys} keys are left of what was sent");
    let denied = run("redis-cli", mesh.payments.at(PORT), &["ping"])?;
    ensure!(!denied.stdout.contains("PONG"), "{denied:?}");
    Ok(())
}
