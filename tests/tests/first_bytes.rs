//! The first bytes of a connection travel with its CONNECT: over a link with a delay, a new connection gets its answer
//! sooner than without a mesh. They are held at the destination until the verdict, and a denied connection's never reach
//! the application.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use ambit_tests::{
    Claim, Connections, Family, HboneCall, HboneReply, Lab, Link, Pulse, Rate, SOON, Site, Source,
    TunnelData, eventually, run_tests, tests,
};
use anyhow::{Result, ensure};

const PORT: u16 = 8090;

const HBONE_PORT: u16 = 15008;

/// The delay, and not the processor, decides how long a call takes.
const FAR: Link = Link {
    delay: Duration::from_millis(25),
    rate: Rate::Unlimited,
    queue: 16 << 20,
};

const CALLER: &str = "spiffe://cluster.local/ns/caller/sa/default";
const STRANGER: &str = "spiffe://cluster.local/ns/stranger/sa/default";

/// Decided by the kernel.
const ONLY_CALLER: &str =
    "rules: [{from: [{source: {principals: [cluster.local/ns/caller/sa/default]}}]}]";

/// Decided request by request, and by what is not a request.
const ONLY_CALLERS_ORDERS: &str = "rules: [{from: [{source: {principals: [cluster.local/ns/caller/sa/default]}}], \
     to: [{operation: {paths: [/order]}}]}]";

fn main() -> ExitCode {
    run_tests(tests![
        a_new_connection_is_answered_sooner_than_without_a_mesh,
        early_bytes_are_carried_once_they_are_allowed,
        early_bytes_of_a_denied_connection_reach_no_application,
        early_bytes_of_a_denied_request_reach_no_application,
    ])
}

fn a_new_connection_is_answered_sooner_than_without_a_mesh(lab: &Lab) -> Result<()> {
    const CALLS: usize = 15;
    let _link = lab.slow_link(FAR)?;
    let site = Site::start(lab, &[("plain", &[])])?;
    let pod = &site.backend("plain")?.pod;
    let _source = Source::in_pod(lab, pod, PORT)?;
    let calls = |count| Pulse {
        connections: Connections::New,
        to: pod.at(PORT),
        lanes: 1,
        count,
    };
    // Opens the tunnels of the agent's threads.
    calls(CALLS).longest_median(site.caller.place())?;
    let direct = calls(CALLS).longest_median(site.outsider.place())?;
    let meshed = calls(CALLS).longest_median(site.caller.place())?;
    println!("{direct:?} without a mesh, {meshed:?} with one");
    // The handshake and the request are two round trips.
    ensure!(direct >= FAR.delay * 4, "the link has no delay: {direct:?}");
    ensure!(
        meshed * 10 <= direct * 7,
        "{meshed:?}, and without a mesh {direct:?}"
    );
    Ok(())
}

/// A pod whose policies decide by the connection, and one whose policies decide by the request.
fn site(lab: &Lab) -> Result<Site> {
    let backends: [(&str, &[&str]); 2] = [
        ("connections", &[ONLY_CALLER]),
        ("requests", &[ONLY_CALLERS_ORDERS]),
    ];
    Site::start(lab, &backends)
}

/// A CONNECT to a pod with data right behind it, before any answer.
fn call_early(
    lab: &Lab,
    site: &Site,
    name: &str,
    identity: &'static str,
    data: &str,
) -> Result<HboneReply> {
    let pod = &site.backend(name)?.pod;
    let credentials = Claim::of(&[identity]).certify(lab)?;
    let authority = pod.at(Site::PORT).to_string();
    let call = HboneCall {
        data: TunnelData::Early(data),
        ..HboneCall::connect(
            SocketAddr::new(pod.ip(Family::V4), HBONE_PORT),
            &credentials,
            &authority,
        )
    };
    call.make(site.outsider.place())
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
}

fn early_bytes_are_carried_once_they_are_allowed(lab: &Lab) -> Result<()> {
    let site = site(lab)?;
    for name in ["connections", "requests"] {
        let reply = call_early(lab, &site, name, CALLER, &get("/order"))?;
        ensure!(
            matches!(&reply, HboneReply::Status(200, answer) if !answer.is_null()),
            "{name}: {reply:?}"
        );
        let heads = site.backend(name)?.web.heads();
        ensure!(
            heads.len() == 1 && heads[0].starts_with("GET /order "),
            "{name}: {heads:?}"
        );
    }
    Ok(())
}

fn early_bytes_of_a_denied_connection_reach_no_application(lab: &Lab) -> Result<()> {
    let site = site(lab)?;
    let long = format!("{}{}", get("/order"), "x".repeat(15 << 10));
    for data in [get("/order"), long, "\u{1}not HTTP".to_owned()] {
        let reply = call_early(lab, &site, "connections", STRANGER, &data)?;
        ensure!(matches!(reply, HboneReply::Status(401, _)), "{reply:?}");
    }
    let connections = site.backend("connections")?.web.connections();
    ensure!(connections == 0, "{connections} connections were made");
    Ok(())
}

fn early_bytes_of_a_denied_request_reach_no_application(lab: &Lab) -> Result<()> {
    let site = site(lab)?;
    let web = &site.backend("requests")?.web;
    let denied = [
        (CALLER, get("/admin")),
        (CALLER, format!("{}{}", get("/admin"), get("/order"))),
        (CALLER, "\u{1}not HTTP\r\n\r\n".to_owned()),
        (STRANGER, get("/order")),
        (STRANGER, "\u{1}not HTTP\r\n\r\n".to_owned()),
    ];
    for (identity, data) in denied {
        let reply = call_early(lab, &site, "requests", identity, &data)?;
        let is_answered = matches!(&reply, HboneReply::Status(200, answer) if !answer.is_null());
        ensure!(!is_answered, "{identity}, {data:?}: {reply:?}");
    }
    let heads = web.heads();
    ensure!(heads.is_empty(), "it got {heads:?}");
    // Nor any other byte, on the connections that were made before the verdict.
    web.ensure_nothing_left()?;
    let reply = call_early(lab, &site, "requests", CALLER, &get("/order"))?;
    ensure!(matches!(reply, HboneReply::Status(200, _)), "{reply:?}");
    eventually(SOON, "the request that is allowed", || {
        (web.heads().len() == 1).then_some(())
    })
}
