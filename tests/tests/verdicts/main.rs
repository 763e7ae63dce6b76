//! The kernel's verdicts on real connections, at both of its hooks, are the evaluator's: random
//! policies, one set after the other, and after each a sample of connections.

mod random;
mod reference;
mod site;
mod verdict;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use ambit_policy::ConnectionAttributes;
use ambit_tests::{Dialled, Family, Lab, SOON, SameNode, eventually, run_tests, tests};
use anyhow::{Context, Result, ensure};

use random::Random;
use reference::Reference;
use site::{PORTS, Site};
use verdict::{Hook, Logged, Outcome, Verdict};

const SEED: u64 = 2026;

/// Names another seed.
const SEED_VARIABLE: &str = "AMBIT_SEED";

/// Sets of policies.
const SETS: usize = 40;

/// Connections there must have been, of each outcome at each hook.
const LEAST: usize = 100;

/// Between two sets: so that the kernel, which reports 20 denials of a pod and source in a second,
/// reports all.
const PAUSE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    run_tests(tests![the_kernel_judges_connections_as_the_evaluator_does])
}

/// A connection that was made.
#[derive(Debug)]
struct Sample {
    caller: String,
    hook: Hook,
    dialled: Dialled,
    expected: Verdict,
}

/// How many connections there were.
type Counts = BTreeMap<(Hook, Outcome), usize>;

fn the_kernel_judges_connections_as_the_evaluator_does(lab: &Lab) -> Result<()> {
    let seed = match std::env::var(SEED_VARIABLE) {
        Ok(text) => text.parse().context(SEED_VARIABLE)?,
        Err(_) => SEED,
    };
    let mut random = Random::new(seed);
    let mut site = Site::start(lab)?;
    let mut made = Counts::new();
    for number in 0..SETS {
        let name = format!("set-{number}");
        let policies = random.policies(&name);
        let context = || {
            let text = serde_norway::to_string(&policies).unwrap_or_default();
            format!("{SEED_VARIABLE}={seed}, {name}:\n{text}")
        };
        site.apply(lab, &name, &policies).with_context(context)?;
        let start = site.agent.log().len();
        let samples = sample(lab, &mut site, &mut random).with_context(context)?;
        for sample in &samples {
            sample.check().with_context(context)?;
            *made.entry(sample.cell()).or_default() += 1;
        }
        check_logged(&site, start, &samples).with_context(context)?;
        sleep(PAUSE);
    }
    println!("{made:?}");
    for hook in [Hook::Delivery, Hook::Lookup] {
        for outcome in [Outcome::Allowed, Outcome::Denied] {
            let count = made.get(&(hook, outcome)).copied().unwrap_or(0);
            ensure!(
                count >= LEAST,
                "{SEED_VARIABLE}={seed}: only {count} {outcome:?} at {hook}"
            );
        }
    }
    Ok(())
}

/// Has each caller call one port of each family, and then another one.
fn sample(lab: &Lab, site: &mut Site, random: &mut Random) -> Result<Vec<Sample>> {
    let reference = Reference::read(lab)?;
    let addresses = PORTS.map(|port| Family::ALL.map(|family| site.at(family, port)));
    let chosen: Vec<[usize; 2]> = site
        .callers
        .iter()
        .map(|_| {
            let first = random.one(&[0, 1, 2, 3]);
            [first, (first + random.one(&[1, 2, 3])) % PORTS.len()]
        })
        .collect();
    let mut samples = Vec::new();
    for round in [0, 1] {
        for (caller, chosen) in site.callers.iter_mut().zip(&chosen) {
            for to in addresses[chosen[round]] {
                caller.dialer.begin(to)?;
            }
        }
        collect(site, &reference, &mut samples)?;
        if lab.same_node() == SameNode::Handoff {
            // All callers have neighbouring addresses, which may share the kernel's reports in a second.
            sleep(PAUSE);
        }
    }
    Ok(samples)
}

/// Waits until all calls are over, and adds them.
fn collect(site: &mut Site, reference: &Reference, samples: &mut Vec<Sample>) -> Result<()> {
    for caller in &mut site.callers {
        for dialled in caller.dialer.finish()? {
            let connection = ConnectionAttributes {
                identity: caller.identity.clone(),
                source: dialled.source,
                destination: dialled.to,
            };
            samples.push(Sample {
                caller: caller.name.clone(),
                hook: caller.hook(),
                expected: reference.judge(&connection)?,
                dialled,
            });
        }
    }
    Ok(())
}

impl Sample {
    fn cell(&self) -> (Hook, Outcome) {
        (self.hook, self.expected.outcome)
    }

    /// Whether the connection met what the evaluator says.
    fn check(&self) -> Result<()> {
        let as_expected = match (self.expected.outcome, self.dialled.met.as_str()) {
            (Outcome::Allowed, met) => met == "answer",
            (Outcome::Denied, met) => ["ConnectionReset", "ConnectionRefused"].contains(&met),
        };
        ensure!(
            as_expected,
            "{} → {:?}, but the evaluator says {:?}",
            self.caller,
            self.dialled,
            self.expected
        );
        Ok(())
    }

    /// Whether the log has nothing of it: `sk_lookup` lets it pass.
    fn leaves_no_line(&self) -> bool {
        self.cell() == (Hook::Lookup, Outcome::Allowed)
    }

    /// Whether this is what the kernel said of it.
    fn is_about(&self, logged: &Logged) -> bool {
        (logged.hook, logged.source, logged.destination)
            == (self.hook, self.dialled.source, self.dialled.to)
    }
}

/// Waits until the log has every expected verdict, and compares all its verdicts with the evaluator's.
fn check_logged(site: &Site, start: usize, samples: &[Sample]) -> Result<()> {
    let read = || -> Vec<Logged> {
        let log = site.agent.log();
        let lines = log.get(start..).unwrap_or_default().lines();
        lines.filter_map(Logged::read).collect()
    };
    let untold = |logged: &[Logged]| {
        let mut samples = samples.iter().filter(|sample| !sample.leaves_no_line());
        samples.find(|sample| !logged.iter().any(|verdict| sample.is_about(verdict)))
    };
    let told = eventually(SOON, "the verdicts in the log", || {
        let logged = read();
        untold(&logged).is_none().then_some(logged)
    });
    let logged =
        told.with_context(|| format!("the log has nothing about {:?}", untold(&read())))?;
    for verdict in &logged {
        let mut samples = samples.iter();
        let sample = samples.find(|sample| sample.is_about(verdict));
        let sample = sample.with_context(|| format!("no caller for {verdict:?}"))?;
        ensure!(
            verdict.said == sample.expected,
            "{} → {:?}: the kernel says {:?}, but the evaluator {:?}",
            sample.caller,
            sample.dialled,
            verdict.said,
            sample.expected
        );
    }
    Ok(())
}
