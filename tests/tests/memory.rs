//! The agents' memory: what one takes at rest and with connections, and that it goes back to the
//! system.

use std::process::ExitCode;
use std::time::Duration;

use ambit_tests::{
    Agent, Footprint, Lab, Reference, Swarm, SwarmServer, eventually, run_tests, tests,
};
use anyhow::{Context, Result, ensure};

const PORT: u16 = Reference::PORT;

/// How long an agent has to give memory back that it no longer needs: tunnels without streams are kept for 90 s.
const GIVES_BACK: Duration = Duration::from_secs(180);

/// The anonymous memory of an agent that carries nothing, in bytes.
const AT_REST: u64 = 16 << 20;

/// What an agent may keep of a flood that has ended, in bytes.
const KEEPS: u64 = 12 << 20;

fn main() -> ExitCode {
    run_tests(tests![
        an_agent_at_rest_takes_little,
        memory_goes_back_after_a_flood,
    ])
}

/// The agents' memory.
struct Footprints([Footprint; 2]);

impl Footprints {
    fn of(agents: &[Agent; 2]) -> Result<Self> {
        let of = |agent: &Agent| Footprint::of(agent.id().context("the agent has ended")?);
        Ok(Self([of(&agents[0])?, of(&agents[1])?]))
    }

    fn show(&self, when: &str) {
        for footprint in self.0 {
            println!("    {when}: {footprint}");
        }
    }

    fn most_anonymous(&self) -> u64 {
        self.0.iter().map(|one| one.anonymous).max().unwrap_or(0)
    }

    /// Waits until the anonymous memory of both agents is below `bound`.
    fn wait_below(agents: &[Agent; 2], bound: u64) -> Result<Self> {
        let below = || {
            let now = Self::of(agents).ok()?;
            (now.most_anonymous() < bound).then_some(now)
        };
        eventually(GIVES_BACK, "memory going back to the system", below).with_context(|| {
            let now = Self::of(agents).map(|now| now.most_anonymous() >> 20);
            format!("{now:?} MiB, not below {} MiB", bound >> 20)
        })
    }
}

fn an_agent_at_rest_takes_little(lab: &Lab) -> Result<()> {
    let (mesh, agents) = Reference::start(lab)?;
    let orders = mesh.orders.at(PORT);
    let _server = SwarmServer::start(lab, mesh.orders.place(), orders)?;
    let mut call = Swarm::hold(lab, mesh.frontend.place(), orders, 1)?;
    ensure!(call.outcome()? == (1, 0), "it does not serve");
    Footprints::wait_below(&agents, AT_REST)?.show("at rest");
    Ok(())
}

fn memory_goes_back_after_a_flood(lab: &Lab) -> Result<()> {
    let (mesh, agents) = Reference::start(lab)?;
    let orders = mesh.orders.at(PORT);
    let _server = SwarmServer::start(lab, mesh.orders.place(), orders)?;
    let hold = |connections| -> Result<Swarm> {
        let mut swarm = Swarm::hold(lab, mesh.frontend.place(), orders, connections)?;
        let (answered, refused) = swarm.outcome()?;
        ensure!(
            answered as usize == connections,
            "{answered} answered, {refused} refused"
        );
        Ok(swarm)
    };
    let before = Footprints::wait_below(&agents, AT_REST)?.most_anonymous();
    let thousand = hold(1000)?;
    Footprints::of(&agents)?.show("with 1,000 connections");
    drop(thousand);
    let flood = hold(8000)?;
    let flooded = Footprints::of(&agents)?;
    flooded.show("with 8,000 connections");
    ensure!(
        flooded.most_anonymous() > before + 2 * KEEPS,
        "8,000 connections take next to nothing"
    );
    drop(flood);
    Footprints::wait_below(&agents, before + KEEPS)?.show("after them");
    Ok(())
}
