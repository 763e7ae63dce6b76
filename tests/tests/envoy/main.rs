//! The policy evaluator against Envoy, whose RBAC filter enforces the same policies in Istio's
//! sidecars: the same policies and requests must lead to the same verdict.
//!
//! The translation into Envoy's configuration is this test's own. If Ambit differs on purpose,
//! [`differences`] says why.

mod case;
mod clients;
mod comparison;
mod connection;
mod differences;
mod evaluator;
mod hand_picked;
mod http2;
mod listener;
mod normalisation;
mod opaque;
mod peer;
mod pools;
mod proxy;
mod random;
mod request;
mod token;
mod translation;

use std::process::ExitCode;

use ambit_tests::{run_tests_of, tests};
use anyhow::{Result, ensure};

use case::Case;
use comparison::{Comparison, compare};
use differences::DIFFERENCES;
use proxy::Binary;

/// Makes random policies the same each time.
const SEED: u64 = 2026;

/// Names another seed.
const SEED_VARIABLE: &str = "AMBIT_SEED";

fn main() -> ExitCode {
    run_tests_of(
        Binary::find(),
        tests![
            hand_picked_policies_mean_what_they_mean_to_envoy,
            random_policies_mean_what_they_mean_to_envoy,
            requests_over_http2_are_judged_alike,
            policies_mean_the_same_on_connections_that_are_not_http,
            random_paths_are_normalised_as_by_envoy,
            what_differs_differs_as_documented,
        ],
    )
}

fn hand_picked_policies_mean_what_they_mean_to_envoy(envoy: &Binary) -> Result<()> {
    agree(&compare(envoy, &hand_picked::cases())?)
}

fn random_policies_mean_what_they_mean_to_envoy(envoy: &Binary) -> Result<()> {
    let cases = random::cases(seed()?);
    let all = compare(envoy, &cases)?;
    ensure_mixed(&all)?;
    agree(&all)
}

/// The random ones, and every tenth of the hand-picked ones.
fn requests_over_http2_are_judged_alike(envoy: &Binary) -> Result<()> {
    let hand_picked = hand_picked::cases().into_iter().step_by(10);
    let cases = hand_picked.chain(random::cases(seed()?));
    let cases: Vec<_> = cases.map(Case::over_http2).collect();
    let all = compare(envoy, &cases)?;
    ensure_mixed(&all)?;
    agree(&all)
}

fn policies_mean_the_same_on_connections_that_are_not_http(envoy: &Binary) -> Result<()> {
    let mut cases = opaque::cases();
    cases.extend(random::opaque_cases(seed()?));
    let all = compare(envoy, &cases)?;
    ensure_mixed(&all)?;
    agree(&all)
}

/// Whether enough are allowed, and enough are not.
fn ensure_mixed(all: &[Comparison]) -> Result<()> {
    for outcome in [evaluator::Outcome::Allowed, evaluator::Outcome::Denied] {
        let count = all.iter().filter(|one| one.envoy == outcome).count();
        ensure!(
            count > all.len() / 5,
            "only {count} of {} are {outcome:?}: the policies are too much alike",
            all.len()
        );
    }
    Ok(())
}

fn random_paths_are_normalised_as_by_envoy(envoy: &Binary) -> Result<()> {
    let targets = random::targets(seed()?);
    let all = normalisation::compare(envoy, &targets)?;
    let differing: Vec<_> = all.iter().filter(|one| !one.is_as_documented()).collect();
    let shown: Vec<_> = differing.iter().take(20).map(ToString::to_string).collect();
    ensure!(
        differing.is_empty(),
        "{} of {} paths differ:\n{}",
        differing.len(),
        all.len(),
        shown.join("\n")
    );
    Ok(())
}

fn what_differs_differs_as_documented(envoy: &Binary) -> Result<()> {
    let cases: Vec<_> = DIFFERENCES
        .iter()
        .map(differences::Difference::case)
        .collect();
    let all = compare(envoy, &cases)?;
    for (difference, found) in DIFFERENCES.iter().zip(&all) {
        ensure!(
            (found.ambit, found.envoy) == (difference.ambit, difference.envoy),
            "{}: {found}",
            difference.reason
        );
    }
    ensure!(all.len() == DIFFERENCES.len(), "one request each");
    Ok(())
}

fn seed() -> Result<u64> {
    let seed = match std::env::var(SEED_VARIABLE) {
        Ok(text) => text.parse()?,
        Err(_) => SEED,
    };
    println!("{SEED_VARIABLE}={seed}");
    Ok(seed)
}

fn agree(all: &[Comparison]) -> Result<()> {
    let differing: Vec<_> = all.iter().filter(|one| one.ambit != one.envoy).collect();
    let shown: Vec<_> = differing.iter().take(10).map(ToString::to_string).collect();
    ensure!(
        differing.is_empty(),
        "{} of {} verdicts differ:\n{}",
        differing.len(),
        all.len(),
        shown.join("\n")
    );
    println!("{} verdicts agree", all.len());
    Ok(())
}
