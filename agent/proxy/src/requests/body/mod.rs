//! Reads as much of a request's body as external authorizers are to see (Envoy's `with_request_body`).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::StatusCode;
use tokio::time::{Instant, timeout_at};

use ambit_account::{AccountExhausted, Charge, PodAccount};
use ambit_authorizer::{BodyExtent, BodyPart};
use ambit_http::{BodyError, JudgedBody, RequestHead};
use ambit_model::{BodyExcess, BodyInCheck, MeshSettings};
use ambit_policy::Consultation;

/// How much of a request's body its authorizers want.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BodyDemand {
    /// The most that one of them wants, in bytes.
    most: usize,
    /// The smallest limit of those that may not be shown a part.
    refused_beyond: Option<usize>,
}

/// Why a body cannot be shown to authorizers. The request is refused, whatever `failOpen` says.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum BodyUnavailable {
    /// It is longer than a provider may see.
    #[error(
        "the body is longer than {0} bytes, the maxRequestBytes of an external authorizer that may not \
         be shown a part (allowPartialMessage)"
    )]
    TooLong(usize),
    /// It did not come in time.
    #[error("the body did not arrive within {0:?}, and an external authorizer has to see it")]
    TimedOut(Duration),
    /// The pod's account of memory has too little to spare.
    #[error("no memory to hold the body, which an external authorizer has to see: {0}")]
    NoMemory(#[from] AccountExhausted),
    /// Reading it failed.
    #[error(transparent)]
    Broken(#[from] BodyError),
}

/// Reads the beginning of a body, and holds it.
pub(super) struct BodyReader {
    time: Duration,
    deadline: Instant,
    read: BytesMut,
    charge: Charge,
    extent: BodyExtent,
}

/// The beginning of a body that was read ahead.
#[derive(Debug)]
pub(super) struct BodyPrefix {
    bytes: Bytes,
    extent: BodyExtent,
}

/// Bytes that the pod's account holds until the last of them is passed on.
struct Charged {
    bytes: BytesMut,
    _charge: Charge,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl BodyDemand {
    /// Returns what the authorizers to consult want. `None` if none of them wants any of the body.
    pub(super) fn of(settings: &MeshSettings, asked: &[Consultation]) -> Option<Self> {
        let providers = asked
            .iter()
            .filter_map(|one| settings.extension_provider(&one.provider));
        let bodies: Vec<BodyInCheck> = providers.filter_map(|one| one.request_body).collect();
        let strict = bodies.iter().filter(|one| one.excess == BodyExcess::Refuse);
        Some(Self {
            most: bodies.iter().map(most).max()?,
            refused_beyond: strict.map(most).min(),
        })
    }

    /// Checks that a body of this length may be shown.
    fn check(self, length: u64) -> Result<(), BodyUnavailable> {
        match self.refused_beyond {
            Some(most) if length > most as u64 => Err(BodyUnavailable::TooLong(most)),
            Some(_) | None => Ok(()),
        }
    }
}

fn most(body: &BodyInCheck) -> usize {
    usize::try_from(body.max_bytes).unwrap_or(usize::MAX)
}

impl BodyReader {
    /// A reader that has read nothing yet. All that is wanted has to come within `time`.
    pub(super) fn new(memory: &PodAccount, time: Duration) -> Self {
        Self {
            time,
            deadline: Instant::now() + time,
            read: BytesMut::new(),
            charge: memory.nothing(),
            extent: BodyExtent::Beginning,
        }
    }

    /// Whether it has read as much as `demand` wants.
    pub(super) fn has(&self, demand: BodyDemand) -> bool {
        match self.extent {
            BodyExtent::Whole => demand.check(self.read.len() as u64).is_ok(),
            BodyExtent::Beginning => {
                demand.refused_beyond.is_none() && self.read.len() >= demand.most
            }
        }
    }

    /// Reads as much as `demand` wants.
    ///
    /// # Errors
    /// [`BodyUnavailable`].
    pub(super) async fn read(
        &mut self,
        demand: BodyDemand,
        head: &mut RequestHead,
        body: &mut impl JudgedBody,
    ) -> Result<(), BodyUnavailable> {
        demand.check(body.length().unwrap_or_default())?;
        demand.check(self.read.len() as u64)?;
        while !self.has(demand) {
            match timeout_at(self.deadline, body.next(head)).await {
                Ok(next) => self.take(next?)?,
                Err(_) => return Err(BodyUnavailable::TimedOut(self.time)),
            }
            demand.check(self.read.len() as u64)?;
        }
        // Find out whether this is all, if that has come already.
        if self.extent == BodyExtent::Beginning
            && let Some(next) = body.next(head).now_or_never()
        {
            self.take(next?)?;
        }
        Ok(())
    }

    fn take(&mut self, next: Option<Bytes>) -> Result<(), BodyUnavailable> {
        let Some(data) = next else {
            self.extent = BodyExtent::Whole;
            return Ok(());
        };
        self.read.reserve(data.len());
        let missing = self.read.capacity().saturating_sub(self.charge.bytes());
        self.charge.grow_spare(missing)?;
        self.read.extend_from_slice(&data);
        Ok(())
    }

    /// Puts what was read back, so that it is passed on before the rest.
    pub(super) fn finish(self, body: &mut impl JudgedBody) -> BodyPrefix {
        let bytes = match self.read.is_empty() {
            true => Bytes::new(),
            false => Bytes::from_owner(Charged {
                bytes: self.read,
                _charge: self.charge,
            }),
        };
        body.put_back(bytes.clone());
        BodyPrefix {
            bytes,
            extent: self.extent,
        }
    }
}

impl BodyPrefix {
    /// Returns the part that one provider sees. `None` if there is no body, as in Envoy.
    pub(super) fn part(&self, provider: &BodyInCheck) -> Option<BodyPart> {
        let length = self.bytes.len().min(most(provider));
        let extent = match length == self.bytes.len() {
            true => self.extent,
            false => BodyExtent::Beginning,
        };
        let is_none = self.bytes.is_empty() && self.extent == BodyExtent::Whole;
        (!is_none).then(|| BodyPart {
            bytes: self.bytes.slice(..length),
            extent,
        })
    }
}

impl BodyUnavailable {
    /// The status that answers the client.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TimedOut(_) => StatusCode::REQUEST_TIMEOUT,
            Self::NoMemory(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken(error) => error.status(),
        }
    }

    /// The word under which metrics count it.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::TooLong(_) => "body-too-long",
            Self::TimedOut(_) => "body-timed-out",
            Self::NoMemory(_) => "no-memory",
            Self::Broken(_) => "body-broken",
        }
    }
}

#[cfg(test)]
mod tests;
