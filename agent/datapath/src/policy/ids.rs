//! Numbers of policy sets and identities. They are never reused within a pin directory.

use ambit_common::{IdentityId, PolicySetId};
use aya::maps::{Array, MapData};

use crate::{DatapathError, Pins};

const MAP: &str = "NEXT_IDS";
const NEXT_SET: u32 = 0;
const NEXT_IDENTITY: u32 = 1;

/// Gives out numbers. The next ones are pinned, because an entry that a dead agent left in the maps must never
/// be taken for a new one.
pub(crate) struct Ids {
    next: Array<MapData, u64>,
}

impl Ids {
    /// Opens the numbers of a pin directory, or starts them.
    pub(crate) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        if pins.map(MAP).exists() {
            return Ok(Self {
                next: pins.array(MAP)?,
            });
        }
        let mut next = Array::create(2, 0).map_err(DatapathError::map(MAP, "created"))?;
        next.set(NEXT_SET, 1, 0)
            .map_err(DatapathError::map(MAP, "written"))?;
        let first_identity = u64::from(IdentityId::FIRST_WORKLOAD.0);
        next.set(NEXT_IDENTITY, first_identity, 0)
            .map_err(DatapathError::map(MAP, "written"))?;
        next.pin(pins.map(MAP))
            .map_err(|error| DatapathError::Pin {
                path: pins.map(MAP),
                action: "pinned",
                source: std::io::Error::other(error),
            })?;
        Ok(Self {
            next: pins.array(MAP)?,
        })
    }

    pub(crate) fn policy_set(&mut self) -> Result<PolicySetId, DatapathError> {
        self.take(NEXT_SET).map(PolicySetId)
    }

    pub(crate) fn identity(&mut self) -> Result<IdentityId, DatapathError> {
        self.take(NEXT_IDENTITY).map(IdentityId)
    }

    fn take(&mut self, index: u32) -> Result<u32, DatapathError> {
        let value = self
            .next
            .get(&index, 0)
            .map_err(DatapathError::map(MAP, "read"))?;
        let number = u32::try_from(value).map_err(|_| DatapathError::IdsExhausted)?;
        self.next
            .set(index, value + 1, 0)
            .map_err(DatapathError::map(MAP, "written"))?;
        Ok(number)
    }
}
