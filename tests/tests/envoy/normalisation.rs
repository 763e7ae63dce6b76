//! Normalisation of paths.

use std::fmt;

use ambit_model::PathNormalization;
use ambit_policy::normalise_path;
use anyhow::Result;

use crate::case::{Case, MODES, Protocol};
use crate::proxy::{Binary, Envoy};
use crate::request::get;

/// A target, and what each passes on; `None` if it is refused.
pub(crate) struct Normalised {
    mode: PathNormalization,
    target: String,
    ambit: Option<String>,
    envoy: Option<String>,
}

impl Normalised {
    /// Whether both do the same, or Ambit more: it refuses a `%00` that is not normalised, merges
    /// slashes if there is nothing else, and also treats segments as dot segments if they have
    /// parameters and are escaped, or follow a backslash.
    pub(crate) fn is_as_documented(&self) -> bool {
        let Some(envoy) = &self.envoy else {
            return self.ambit.is_none();
        };
        match &self.ambit {
            None => envoy.contains("%00"),
            Some(ambit) if ambit == envoy => true,
            Some(ambit) => {
                let only_slashes = envoy.starts_with("//") && ambit[1..] == envoy[2..];
                only_slashes && path(envoy) == "//" || has_hidden_dots(&self.target)
            }
        }
    }
}

/// Whether there are dot segments with parameters that Envoy does not see.
fn has_hidden_dots(target: &str) -> bool {
    let count = |path: &str| {
        let segments = path.split('/');
        let has_parameters = |one: &&str| one.starts_with(".;") || one.starts_with("..;");
        segments.filter(has_parameters).count()
    };
    let written = path(target).to_ascii_lowercase();
    let decoded = written
        .replace("%2e", ".")
        .replace("%2f", "/")
        .replace("%5c", "/")
        .replace('\\', "/");
    count(&decoded) > count(&written)
}

fn path(target: &str) -> &str {
    target.split(['?', '#']).next().unwrap_or_default()
}

impl fmt::Display for Normalised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            mode,
            target,
            ambit,
            envoy,
        } = self;
        write!(f, "{target} by {mode:?}: Ambit {ambit:?}, Envoy {envoy:?}")
    }
}

/// Lets both normalise targets, in every mode.
pub(crate) fn compare(binary: &Binary, targets: &[String]) -> Result<Vec<Normalised>> {
    let cases = MODES.map(|mode| Case::undisputed(Vec::new(), mode, Vec::new()));
    let envoy = Envoy::start(binary, &cases)?;
    let mut all = Vec::new();
    for (number, mode) in MODES.into_iter().enumerate() {
        let mut clients = envoy.clients(number, Protocol::Http1);
        for target in targets {
            all.push(Normalised {
                mode,
                target: target.clone(),
                ambit: normalise_path(mode, target).ok(),
                envoy: clients.ask(&get(target))?.path,
            });
        }
    }
    Ok(all)
}
