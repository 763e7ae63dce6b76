//! As much of a request's body as external authorizers are to see (Envoy's `with_request_body`).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::StatusCode;
use tokio::time::{Instant, timeout_at};

use crate::limits::{OverCap, PodCaps, Slot};
use ambit_authorizer::{BodyExtent, BodyPart};
use ambit_http::{BodyError, JudgedBody, RequestHead};
use ambit_model::{BodyExcess, BodyInCheck, MeshSettings};
use ambit_policy::Consultation;

/// What the authorizers of a request want of its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BodyDemand {
    /// The most that one of them wants.
    most: usize,
    /// The least of those that may not be shown a part.
    refused_beyond: Option<usize>,
}

/// Why authorizers cannot be shown a body. Such a request is refused whatever `failOpen` says.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum BodyUnavailable {
    /// It is longer than a provider may see.
    #[error(
        "its body is longer than {0} bytes, which is the maxRequestBytes of an external authorizer \
         that may not be shown a part (allowPartialMessage)"
    )]
    TooLong(usize),
    /// It does not come.
    #[error("its body did not come within {0:?}, and an external authorizer is to see it")]
    TimedOut(Duration),
    /// The pod holds too much already.
    #[error(transparent)]
    OverCap(#[from] OverCap),
    /// It cannot be read.
    #[error(transparent)]
    Broken(#[from] BodyError),
}

/// Reads a body ahead.
pub(super) struct BodyReader<'a> {
    caps: &'a PodCaps,
    time: Duration,
    deadline: Instant,
    read: BytesMut,
    slot: Option<Slot>,
    extent: BodyExtent,
}

/// What was read ahead.
#[derive(Debug)]
pub(super) struct BodyPrefix {
    bytes: Bytes,
    extent: BodyExtent,
}

/// Bytes with what they take of the pod's cap, until the last of them is passed on.
struct Capped {
    bytes: BytesMut,
    _slot: Option<Slot>,
}

impl AsRef<[u8]> for Capped {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl BodyDemand {
    /// By those who are to be asked; `None` where nobody wants any.
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

    /// Whether a body may be so long.
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

impl<'a> BodyReader<'a> {
    /// Nothing yet; all of it has to come within `time`.
    pub(super) fn new(caps: &'a PodCaps, time: Duration) -> Self {
        Self {
            caps,
            time,
            deadline: Instant::now() + time,
            read: BytesMut::new(),
            slot: None,
            extent: BodyExtent::Beginning,
        }
    }

    /// Whether as much as is wanted has been read.
    pub(super) fn has(&self, wanted: BodyDemand) -> bool {
        match self.extent {
            BodyExtent::Whole => wanted.check(self.read.len() as u64).is_ok(),
            BodyExtent::Beginning => {
                wanted.refused_beyond.is_none() && self.read.len() >= wanted.most
            }
        }
    }

    /// Reads as much as is wanted.
    ///
    /// # Errors
    /// [`BodyUnavailable`].
    pub(super) async fn read(
        &mut self,
        wanted: BodyDemand,
        head: &mut RequestHead,
        body: &mut impl JudgedBody,
    ) -> Result<(), BodyUnavailable> {
        wanted.check(body.length().unwrap_or_default())?;
        wanted.check(self.read.len() as u64)?;
        while !self.has(wanted) {
            match timeout_at(self.deadline, body.next(head)).await {
                Ok(next) => self.take(next?)?,
                Err(_) => return Err(BodyUnavailable::TimedOut(self.time)),
            }
            wanted.check(self.read.len() as u64)?;
        }
        // What has come already tells whether this is all.
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
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.caps.hold_bytes(&mut self.slot, length)?;
        self.read.extend_from_slice(&data);
        Ok(())
    }

    /// Has what was read passed on in its turn.
    pub(super) fn finish(self, body: &mut impl JudgedBody) -> BodyPrefix {
        let bytes = match self.read.is_empty() {
            true => Bytes::new(),
            false => Bytes::from_owner(Capped {
                bytes: self.read,
                _slot: self.slot,
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
    /// What one provider sees of it; nothing where there is no body, as in Envoy.
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
    /// The answer.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TimedOut(_) => StatusCode::REQUEST_TIMEOUT,
            Self::OverCap(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken(error) => error.status(),
        }
    }

    /// The word that counts it.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::TooLong(_) => "body-too-long",
            Self::TimedOut(_) => "body-timed-out",
            Self::OverCap(_) => "over-cap",
            Self::Broken(_) => "body-broken",
        }
    }
}

#[cfg(test)]
mod tests;
