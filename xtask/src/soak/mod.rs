//! `cargo xtask soak`: traffic of every kind while pods, policies and certificates come and go, in
//! rounds; after each the mesh is at rest, and what the agents hold then must not grow. At the end
//! agents are replaced, again and again, and what the node holds must not grow by that.

mod churn;
mod gauge;
mod traffic;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ambit_tests::{Lab, tear_down_on_signals};
use anyhow::{Context, Result};

use crate::process::say;
use churn::Guest;
use gauge::Gauge;
use traffic::{Stage, Tally};

/// The traffic of one round, before the mesh comes to rest.
const ROUND: Duration = Duration::from_secs(20);

/// How long the mesh is left alone before it is measured.
const REST: Duration = Duration::from_secs(5);

/// How often both agents are replaced at the end.
const REPLACED: usize = 6;

/// How long certificates live: each is renewed once in a round at least.
const CERTIFICATE_SECONDS: u32 = 30;

/// Soaks for this many minutes, at least three rounds.
///
/// # Errors
///
/// If the mesh cannot be built or changed.
pub(crate) fn run(minutes: u32) -> Result<ExitCode> {
    tear_down_on_signals()?;
    let lab = Lab::new()?;
    lab.set_certificate_lifetime(CERTIFICATE_SECONDS);
    let mut stage = Stage::build(&lab)?;
    let guest = Guest::new(&lab)?;
    let end = Instant::now() + Duration::from_secs(60) * minutes;
    let mut total = Tally::default();
    let mut gauges = Vec::new();
    while gauges.len() < 3 || Instant::now() < end {
        total.add(&round(&lab, &stage, &guest)?);
        thread::sleep(REST);
        let gauge = Gauge::settled(&lab, stage.agents())?;
        say("soak", &format!("{gauge}; {total}"));
        gauges.push(gauge);
    }
    // The first round fills pools and allocators.
    let (settled, last) = (gauges[0], *gauges.last().context("no round")?);
    let mut growth = last.growth_since(&settled);
    for _ in 0..REPLACED {
        stage.replace_agents(&lab)?;
        total.add(&stage.call_once()?);
    }
    thread::sleep(REST);
    let replaced = Gauge::settled(&lab, stage.agents())?;
    say(
        "soak",
        &format!("{replaced}; agents replaced {REPLACED} times"),
    );
    growth.extend(replaced.growth_since(&settled));
    for sentence in &growth {
        eprintln!("error: {sentence}");
    }
    println!("{total}; {} rounds", gauges.len());
    Ok(if growth.is_empty() && total.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Traffic on separate threads, and churn on this one.
fn round(lab: &Lab, stage: &Stage, guest: &Guest) -> Result<Tally> {
    let stop = AtomicBool::new(false);
    let start = Instant::now();
    let mut held = stage.hold(lab)?;
    let mut swarm = stage.swarm(lab, ROUND)?;
    thread::scope(|scope| {
        let traffic: Vec<_> = stage
            .kinds()
            .into_iter()
            .map(|kind| scope.spawn(|| kind.run(&stop)))
            .collect();
        let mut churned = Ok(Tally::default());
        while start.elapsed() < ROUND && churned.is_ok() {
            churned = guest.come_and_go(lab, stage).map(|visit| {
                let mut all = churned.unwrap_or_default();
                all.add(&visit);
                all
            });
        }
        stop.store(true, Ordering::Relaxed);
        let mut tally = churned?;
        for thread in traffic {
            tally.add(
                &thread
                    .join()
                    .ok()
                    .context("a thread of traffic panicked")??,
            );
        }
        let (answered, refused) = swarm.outcome()?;
        tally.count("new connections", answered, refused);
        // What stood all the while still does.
        let (stands, broken) = match held.echo("still here") {
            Ok(()) => (1, 0),
            Err(_) => (0, 1),
        };
        tally.count("held connections", stands, broken);
        Ok(tally)
    })
}
