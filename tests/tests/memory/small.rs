//! What connections, and requests that wait, take of memory.

use std::thread::sleep;
use std::time::Duration;

use ambit_tests::{Hoard, Hoarded, Http, Lab, Policies, Reference, Unhelpful, UnhelpfulServer};
use anyhow::{Result, ensure};

use crate::{AT_REST, Footprints, PORT};

/// How long agents have to settle before they are measured.
const SETTLED: Duration = Duration::from_secs(3);

/// What one connection of a kind may take in either agent, in bytes.
struct Kind {
    name: &'static str,
    policies: Policies,
    server: Unhelpful,
    client: Hoarded,
    most: u64,
}

const KINDS: [Kind; 5] = [
    Kind {
        name: "a tunnel's stream",
        policies: Policies::PerConnection,
        server: Unhelpful::Prompt,
        client: Hoarded::Idle(Http::One),
        most: 16 << 10,
    },
    Kind {
        name: "an idle judged HTTP/1 connection",
        policies: Policies::PerRequest,
        server: Unhelpful::Prompt,
        client: Hoarded::Idle(Http::One),
        most: 32 << 10,
    },
    Kind {
        name: "an idle judged HTTP/2 connection",
        policies: Policies::PerRequest,
        server: Unhelpful::Prompt,
        client: Hoarded::Idle(Http::Two),
        most: 128 << 10,
    },
    Kind {
        name: "a judged HTTP/1 request that waits",
        policies: Policies::PerRequest,
        server: Unhelpful::Silent,
        client: Hoarded::Waiting(Http::One),
        most: 48 << 10,
    },
    Kind {
        name: "a judged HTTP/2 request that waits, with its connection",
        policies: Policies::PerRequest,
        server: Unhelpful::Silent,
        client: Hoarded::Waiting(Http::Two),
        most: 160 << 10,
    },
];

/// Connections of a kind whose memory is measured.
const MEASURED: usize = 1000;

pub(crate) fn connections_and_requests_that_wait_take_little(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    let orders = mesh.orders.at(PORT);
    for kind in &KINDS {
        mesh.set_policies(lab, kind.policies)?;
        // What others have left in the heap would hide what this takes.
        let agents = lab.start_agents()?;
        Footprints::wait_below(&agents, AT_REST)?;
        let _server = UnhelpfulServer::start(lab, mesh.orders.place(), kind.server, orders)?;
        let hold = |count| -> Result<(Hoard, u64)> {
            let from = mesh.frontend.place();
            let hoard = Hoard::start(lab, from, kind.client, orders, count)?;
            let (opened, _) = hoard.outcome()?;
            Ok((hoard, opened))
        };
        // What only the first connections need is there before.
        let _some = hold(50)?;
        sleep(SETTLED);
        let before = Footprints::of(&agents)?;
        let (_held, opened) = hold(MEASURED)?;
        sleep(SETTLED);
        let after = Footprints::of(&agents)?;
        kind.ensure_it_takes_little(&before, &after, opened)?;
        for agent in &agents {
            println!("    account: {}", agent.ask("status")?["memory"]);
        }
        ensure!(opened == MEASURED as u64, "{}: {opened} opened", kind.name);
    }
    Ok(())
}

impl Kind {
    fn ensure_it_takes_little(
        &self,
        before: &Footprints,
        after: &Footprints,
        opened: u64,
    ) -> Result<()> {
        let Self { name, most, .. } = self;
        for (node, (before, after)) in ["caller's", "destination's"]
            .iter()
            .zip(before.0.iter().zip(&after.0))
        {
            let each = after.anonymous.saturating_sub(before.anonymous) / opened.max(1);
            println!("    {name}: {each} bytes at the {node} node");
            ensure!(each < *most, "{name}: {each} bytes at the {node} node");
        }
        Ok(())
    }
}
