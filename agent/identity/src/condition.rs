//! How one identity's certificate fares.

use serde::{Deserialize, Serialize};

use super::validity::Timeliness;

/// How an identity's certificate fares.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateState {
    /// The first one is being asked for.
    #[default]
    Pending,
    /// The first one could not be had, and is asked for again.
    Missing,
    /// It is valid.
    Valid,
    /// It is valid, and could not be renewed.
    Failing,
    /// It is not valid now: new connections are refused.
    Expired,
}

impl CertificateState {
    /// Of a certificate, or none, and of whether the last attempt to get another failed.
    pub(super) const fn of(timeliness: Option<Timeliness>, has_failed: bool) -> Self {
        match (timeliness, has_failed) {
            (None, false) => Self::Pending,
            (None, true) => Self::Missing,
            (Some(Timeliness::Valid), false) => Self::Valid,
            (Some(Timeliness::Valid), true) => Self::Failing,
            (Some(Timeliness::Expired | Timeliness::TooEarly), _) => Self::Expired,
        }
    }
}
