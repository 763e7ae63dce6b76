//! The agents' memory: what one takes at rest and with connections, that it goes back to the system, and that
//! one account bounds what waits.

mod at_once;
mod small;

use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use ambit_tests::{
    Agent, Footprint, Hoard, Hoarded, Lab, NodeName, Policies, Reference, Swarm, SwarmServer,
    Unhelpful, UnhelpfulServer, eventually, run_tests, tests,
};
use anyhow::{Context, Result, ensure};

use at_once::all_floods_at_once_stay_within_the_account;
use small::connections_and_requests_that_wait_take_little;

const PORT: u16 = Reference::PORT;

/// How long an agent has to give memory back that it no longer needs: tunnels without streams are kept for 90 s.
const GIVES_BACK: Duration = Duration::from_secs(180);

/// The anonymous memory of an agent that carries nothing, in bytes.
const AT_REST: u64 = 16 << 20;

/// What an agent may keep of a flood that has ended, in bytes.
const KEEPS: u64 = 12 << 20;

/// The account of an agent whose memory is flooded.
const ACCOUNT: u64 = 64 << 20;

/// What one connection may take beside the account, in bytes: its task, its sockets, TLS.
const EACH: u64 = 24 << 10;

/// What a flood may take beside the account and its connections, in bytes: half of the account, for what the
/// allocator wastes, and some for what grows with anything.
const BESIDE: u64 = ACCOUNT / 2 + (32 << 20);

/// How long a flood is watched after all of its connections have been opened.
const WATCHED: Duration = Duration::from_secs(10);

/// Between two looks at a flood.
const BETWEEN: Duration = Duration::from_millis(250);

fn main() -> ExitCode {
    run_tests(tests![
        an_agent_at_rest_takes_little,
        memory_goes_back_after_a_flood,
        connections_and_requests_that_wait_take_little,
        unread_streams_stay_within_the_account,
        unread_answers_stay_within_the_account,
        bodies_that_no_one_takes_stay_within_the_account,
        long_heads_stay_within_the_account,
        parts_of_heads_stay_within_the_account,
        all_floods_at_once_stay_within_the_account,
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

/// A kind of flood of `orders` by `frontend`.
struct Flood {
    policies: Policies,
    server: Unhelpful,
    client: Hoarded,
    connections: usize,
}

impl Flood {
    fn ensure_it_stays_within_the_account(&self, lab: &Lab) -> Result<()> {
        let mesh = Reference::build_with(lab, self.policies)?;
        let agents = start_agents(lab)?;
        let orders = mesh.orders.at(PORT);
        let _server = UnhelpfulServer::start(lab, mesh.orders.place(), self.server, orders)?;
        let before = Footprints::of(&agents)?.most_anonymous();
        let from = mesh.frontend.place();
        let hoard = Hoard::start(lab, from, self.client, orders, self.connections)?;
        let bound = before + ACCOUNT + BESIDE + EACH * self.connections as u64;
        let most = watch(&agents, &hoard, bound)?;
        let (opened, refused) = hoard.outcome()?;
        println!(
            "    {opened} opened, {refused} refused: {} MiB more, {} MiB allowed",
            most.saturating_sub(before) >> 20,
            bound.saturating_sub(before) >> 20,
        );
        ensure!(opened > 0, "no connection was carried");
        for agent in &agents {
            let memory = &agent.ask("status")?["memory"];
            println!("    account: {memory}");
            let number = |field: &str| {
                memory[field]
                    .as_u64()
                    .with_context(|| format!("no {field}"))
            };
            ensure!(number("limit")? == ACCOUNT, "another account: {memory}");
            ensure!(number("peak")? <= ACCOUNT, "over the limit: {memory}");
        }
        drop(hoard);
        ensure_the_account_is_empty(&agents)?;
        Footprints::wait_below(&agents, before + KEEPS)?.show("after the flood");
        Ok(())
    }
}

fn start_agents(lab: &Lab) -> Result<[Agent; 2]> {
    let account = format!("AMBIT_MEMORY={ACCOUNT}");
    let start = |node| -> Result<Agent> {
        let mut agent = lab.launch_agent_by(node, &["env", &account])?;
        lab.wait_until_serving(&mut agent)?;
        Ok(agent)
    };
    let [a, b] = NodeName::ALL;
    Ok([start(a)?, start(b)?])
}

/// Watches a flood, and returns the most anonymous memory that an agent took.
fn watch(agents: &[Agent; 2], hoard: &Hoard, bound: u64) -> Result<u64> {
    let mut most = 0;
    let mut left = WATCHED;
    while left > Duration::ZERO {
        most = most.max(Footprints::of(agents)?.most_anonymous());
        ensure!(most < bound, "an agent takes {} MiB", most >> 20);
        sleep(BETWEEN);
        if hoard.said().is_some() {
            left = left.saturating_sub(BETWEEN);
        }
    }
    Ok(most)
}

fn unread_streams_stay_within_the_account(lab: &Lab) -> Result<()> {
    let flood = Flood {
        policies: Policies::PerConnection,
        server: Unhelpful::Endless,
        client: Hoarded::Answers,
        connections: 3000,
    };
    flood.ensure_it_stays_within_the_account(lab)
}

fn unread_answers_stay_within_the_account(lab: &Lab) -> Result<()> {
    let flood = Flood {
        policies: Policies::PerRequest,
        server: Unhelpful::Endless,
        client: Hoarded::Answers,
        connections: 6000,
    };
    flood.ensure_it_stays_within_the_account(lab)
}

fn bodies_that_no_one_takes_stay_within_the_account(lab: &Lab) -> Result<()> {
    let flood = Flood {
        policies: Policies::PerRequest,
        server: Unhelpful::Closed,
        client: Hoarded::Streams,
        connections: 600,
    };
    flood.ensure_it_stays_within_the_account(lab)
}

fn long_heads_stay_within_the_account(lab: &Lab) -> Result<()> {
    let flood = Flood {
        policies: Policies::PerRequest,
        server: Unhelpful::Silent,
        client: Hoarded::Heads,
        connections: 1500,
    };
    flood.ensure_it_stays_within_the_account(lab)
}

fn parts_of_heads_stay_within_the_account(lab: &Lab) -> Result<()> {
    let flood = Flood {
        policies: Policies::PerRequest,
        server: Unhelpful::Silent,
        client: Hoarded::Parts,
        connections: 1500,
    };
    flood.ensure_it_stays_within_the_account(lab)
}

fn ensure_the_account_is_empty(agents: &[Agent; 2]) -> Result<()> {
    for agent in agents {
        eventually(GIVES_BACK, "the account being empty", || {
            (agent.ask("status").ok()?["memory"]["in_use"] == 0).then_some(())
        })?;
    }
    Ok(())
}
