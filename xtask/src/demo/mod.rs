//! `cargo xtask demo`: the reference example on two nodes, every call of it, and the link between
//! them overheard.

mod explore;

use std::process::ExitCode;

use ambit_tests::{
    Agent, Application, Call, Capture, Captured, Decision, Lab, LogMark, PAYLOADS, Policies,
    Reference, Reply, tear_down_on_signals,
};
use anyhow::Result;
use comfy_table::{Table, presets};

use crate::process::say;

/// What becomes of the mesh at the end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Afterwards {
    /// It is removed.
    Remove,
    /// It stays up, to be explored.
    Keep,
}

/// Runs the demo and prints the results.
///
/// # Errors
///
/// If the mesh cannot be built.
pub(crate) fn run(afterwards: Afterwards) -> Result<ExitCode> {
    tear_down_on_signals()?;
    say(
        "demo",
        "two nodes, three pods in the mesh and an intruder, an agent on each node",
    );
    let lab = Lab::new()?;
    let (mesh, agents) = Reference::start_with(&lab, Policies::PerRequest)?;
    let application = Application::start(&lab, &mesh)?;

    say(
        "demo",
        "every call of the example, with curl, while the link is overheard",
    );
    let capture = Capture::start(&lab)?;
    let calls = mesh.calls(&lab)?;
    let rows = calls
        .iter()
        .map(|call| Row::make(call, &agents))
        .collect::<Result<Vec<_>>>()?;
    let captured = capture.finish()?;

    println!("{}", table(&rows));
    let secret = report_secrecy(&captured);
    let unexpected = rows.iter().filter(|row| !row.as_expected).count();
    println!("{} calls, {unexpected} not as expected", rows.len());
    if afterwards == Afterwards::Keep {
        println!("\n{}", explore::instructions(&lab, &mesh, &agents)?);
        lab.keep()?;
        application.leave();
        agents.into_iter().for_each(Agent::leave);
    }
    Ok(if secret && unexpected == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A line of the table.
struct Row {
    cells: [String; 7],
    as_expected: bool,
}

impl Row {
    fn make(call: &Call, agents: &[Agent]) -> Result<Self> {
        let mark = LogMark::now(agents);
        let reply = call.make()?;
        let decision = match call.decider {
            Some(decider) => mark.decision_about(agents, decider.pod)?,
            None => passed_by_the_kernel(),
        };
        let decider_agrees = call.decider.is_none_or(|decider| decision.is_by(&decider));
        let as_expected = call.expected.is_met_by(&reply) && decider_agrees;
        let observed = match reply {
            Reply::Answer(text) | Reply::Refusal(text) | Reply::Failure(text) => text,
            Reply::Status(status, text) => format!("{status} {text}"),
        };
        Ok(Self {
            cells: [
                if as_expected { "✓" } else { "✗" }.to_owned(),
                format!("{} → {}", call.caller, call.called),
                decision.path,
                call.expected.to_string(),
                observed,
                decision.layer,
                decision.decided_by,
            ],
            as_expected,
        })
    }
}

/// Traffic that no policy is asked about.
fn passed_by_the_kernel() -> Decision {
    Decision {
        path: "direct".to_owned(),
        layer: "kernel".to_owned(),
        decided_by: "none: passed".to_owned(),
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header([
            "",
            "call",
            "path",
            "expected",
            "observed",
            "decided in",
            "by",
        ])
        .add_rows(rows.iter().map(|row| &row.cells));
    table
}

/// Whether none of the payloads crossed the link as it is.
fn report_secrecy(captured: &Captured) -> bool {
    let leaked: Vec<&str> = PAYLOADS
        .into_iter()
        .filter(|payload| captured.contains(payload.as_bytes()))
        .collect();
    if leaked.is_empty() {
        println!(
            "✓ {} bytes crossed the link, and no plaintext of the payloads {}",
            captured.len(),
            PAYLOADS.join(", ")
        );
    } else {
        println!("✗ plaintext on the link: {}", leaked.join(", "));
    }
    leaked.is_empty()
}
