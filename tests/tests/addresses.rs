//! The addresses that applications see: those that they would see without a mesh.

use std::net::SocketAddr;
use std::process::ExitCode;

use ambit_tests::{Family, HeldConnection, Lab, LabServer, Mode, Reference, run_tests, tests};
use anyhow::{Result, ensure};
use serde_json::Value;

const PORT: u16 = Reference::PORT;

fn main() -> ExitCode {
    run_tests(tests![
        both_sides_see_each_other,
        behind_a_service_the_caller_sees_the_service,
        a_dual_stack_server_sees_its_callers,
    ])
}

fn both_sides_see_each_other(lab: &Lab) -> Result<()> {
    let (mesh, _agents) = Reference::start(lab)?;
    let server = LabServer::in_pod(lab, &mesh.orders, Mode::Echo, PORT)?;
    for (known, family) in Family::ALL.into_iter().enumerate() {
        let orders = SocketAddr::new(mesh.orders.ip(family), PORT);
        let mut caller = HeldConnection::open(lab, mesh.frontend.place(), orders)?;
        caller.echo("hello")?;
        let called = server.next_connection(known)?;
        ensure!(
            caller.opened()["peer"] == orders.to_string(),
            "{:?}",
            caller.opened()
        );
        let local = address(&caller.opened()["local"])?;
        ensure!(local.ip() == mesh.frontend.ip(family), "{local}");
        ensure!(called["accepted"] == local.to_string(), "{called}");
        ensure!(called["peer"] == local.to_string(), "{called}");
        ensure!(called["local"] == orders.to_string(), "{called}");
    }
    Ok(())
}

fn behind_a_service_the_caller_sees_the_service(lab: &Lab) -> Result<()> {
    let (mesh, _agents) = Reference::start(lab)?;
    let server = LabServer::in_pod(lab, &mesh.orders, Mode::Echo, PORT)?;
    let service = mesh.orders_service.at();
    let mut caller = HeldConnection::open(lab, mesh.frontend.place(), service)?;
    caller.echo("hello")?;
    ensure!(
        caller.opened()["peer"] == service.to_string(),
        "{:?}",
        caller.opened()
    );
    let called = server.next_connection(0)?;
    ensure!(called["accepted"] == caller.opened()["local"], "{called}");
    ensure!(
        called["local"] == mesh.orders.at(PORT).to_string(),
        "{called}"
    );
    Ok(())
}

/// One socket bound to `[::]` serves both families, as Go's and Java's do.
fn a_dual_stack_server_sees_its_callers(lab: &Lab) -> Result<()> {
    let (mesh, _agents) = Reference::start(lab)?;
    let every_address = "[::]:8080".parse()?;
    let server = LabServer::start(lab, mesh.orders.place(), Mode::Echo, &[every_address])?;
    for (known, family) in Family::ALL.into_iter().enumerate() {
        let orders = SocketAddr::new(mesh.orders.ip(family), PORT);
        let mut caller = HeldConnection::open(lab, mesh.frontend.place(), orders)?;
        caller.echo("hello")?;
        let called = server.next_connection(known)?;
        for side in ["accepted", "peer"] {
            let seen = address(&called[side])?;
            ensure!(
                seen.ip().to_canonical() == mesh.frontend.ip(family),
                "{called}"
            );
        }
    }
    Ok(())
}

fn address(text: &Value) -> Result<SocketAddr> {
    Ok(text.as_str().unwrap_or_default().parse()?)
}
