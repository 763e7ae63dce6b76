//! The slots that hold the entries of enrolled pods. They are changed so that a program sees either the old
//! or the new entry.

use std::collections::{BTreeSet, HashMap as Known};
use std::sync::atomic::{Ordering, fence};

use ambit_common::{MAX_PODS, NetnsCookie, PodEntry, PodSlot, PolicySetId};
use aya::maps::{Array, HashMap, MapData};

use crate::error::{BPF_NOEXIST, removed};
use crate::kernel::grace::{Grace, GraceEpoch};
use crate::{DatapathError, Pins};

const PODS: &str = "PODS";
const TURNS: &str = "POD_TURNS";
const ENTRIES: &str = "POD_ENTRIES";

/// The slots of a node and their contents.
pub(crate) struct PodSlots {
    slots: HashMap<MapData, NetnsCookie, PodSlot>,
    turns: Array<MapData, u8>,
    entries: Array<MapData, PodEntry>,
    enrolled: Known<NetnsCookie, Slot>,
    free: BTreeSet<PodSlot>,
    /// Slots of pods that have left, and when each left.
    left: Vec<(PodSlot, GraceEpoch)>,
    grace: Grace,
}

/// A slot in use.
#[derive(Clone, Copy, Debug)]
struct Slot {
    slot: PodSlot,
    turn: u8,
    /// `None` if the kernel has another pod's entry there.
    entry: Option<PodEntry>,
    /// When the other copy went out of force.
    switched: GraceEpoch,
}

impl PodSlots {
    /// Opens the slots, with what an earlier agent left.
    pub(crate) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        let mut slots = Self {
            slots: pins.hash(PODS)?,
            turns: pins.array(TURNS)?,
            entries: pins.array(ENTRIES)?,
            enrolled: Known::new(),
            free: (0..MAX_PODS).map(PodSlot).collect(),
            left: Vec::new(),
            grace: Grace::new()?,
        };
        // It is unknown when the earlier agent made its last changes.
        let before = slots.grace.note();
        slots.grace.wait(before)?;
        let known: Result<Vec<_>, _> = slots.slots.iter().collect();
        for (netns, slot) in known.map_err(DatapathError::map(PODS, "read"))? {
            let found = slots.read(netns, slot, before)?;
            slots.enrolled.insert(netns, found);
            slots.free.remove(&slot);
        }
        Ok(slots)
    }

    fn read(
        &self,
        netns: NetnsCookie,
        slot: PodSlot,
        switched: GraceEpoch,
    ) -> Result<Slot, DatapathError> {
        let absent = Slot {
            slot,
            turn: 0,
            entry: None,
            switched,
        };
        if slot.0 >= MAX_PODS {
            return Ok(absent);
        }
        let turn = self
            .turns
            .get(&slot.0, 0)
            .map_err(DatapathError::map(TURNS, "read"))?;
        let entry = self
            .entries
            .get(&slot.copy(turn), 0)
            .map_err(DatapathError::map(ENTRIES, "read"))?;
        Ok(Slot {
            turn,
            entry: (entry.netns == netns).then_some(entry),
            ..absent
        })
    }

    /// Returns a pod's entry.
    pub(crate) fn get(&self, netns: NetnsCookie) -> Option<&PodEntry> {
        self.enrolled.get(&netns)?.entry.as_ref()
    }

    /// Returns the enrolled pods.
    pub(crate) fn pods(&self) -> impl Iterator<Item = NetnsCookie> {
        self.enrolled.keys().copied()
    }

    /// Returns the policy sets of the enrolled pods.
    pub(crate) fn policy_sets(&self) -> impl Iterator<Item = PolicySetId> {
        let entries = self.enrolled.values().filter_map(|slot| slot.entry);
        entries.map(|entry| entry.policy_set)
    }

    /// Puts a pod's entry in force.
    ///
    /// # Errors
    /// [`DatapathError`]; the former entry stays in force.
    pub(crate) fn set(&mut self, entry: PodEntry) -> Result<(), DatapathError> {
        match self.enrolled.get(&entry.netns).copied() {
            None => self.enrol(entry),
            Some(Slot { entry: None, .. }) => Err(DatapathError::SlotTaken(entry.netns)),
            Some(Slot {
                entry: Some(known), ..
            }) if known == entry => Ok(()),
            Some(slot) => self.switch(slot, entry),
        }
    }

    /// Writes the key last: until then, no program finds the slot.
    fn enrol(&mut self, entry: PodEntry) -> Result<(), DatapathError> {
        let slot = self.free_slot()?;
        self.write(slot, 0, &entry)?;
        let written = self.slots.insert(entry.netns, slot, BPF_NOEXIST);
        written.map_err(DatapathError::map(PODS, "written"))?;
        self.free.remove(&slot);
        let enrolled = Slot {
            slot,
            turn: 0,
            entry: Some(entry),
            // No program has ever read the other copy as this pod's.
            switched: GraceEpoch::PASSED,
        };
        self.enrolled.insert(entry.netns, enrolled);
        Ok(())
    }

    fn switch(&mut self, slot: Slot, entry: PodEntry) -> Result<(), DatapathError> {
        self.grace.wait(slot.switched)?;
        let turn = slot.turn.wrapping_add(1) & 1;
        self.write(slot.slot, turn, &entry)?;
        let switched = Slot {
            turn,
            entry: Some(entry),
            switched: self.grace.note(),
            ..slot
        };
        self.enrolled.insert(entry.netns, switched);
        Ok(())
    }

    /// Writes a copy that no program reads, and then the byte that puts it in force.
    fn write(&mut self, slot: PodSlot, turn: u8, entry: &PodEntry) -> Result<(), DatapathError> {
        self.entries
            .set(slot.copy(turn), entry, 0)
            .map_err(DatapathError::map(ENTRIES, "written"))?;
        // Whatever the processor does, the copy becomes visible before the turn.
        fence(Ordering::SeqCst);
        self.turns
            .set(slot.0, turn, 0)
            .map_err(DatapathError::map(TURNS, "written"))
    }

    /// Removes a pod.
    ///
    /// # Errors
    /// [`DatapathError::Map`]; the pod is still there.
    pub(crate) fn remove(&mut self, netns: NetnsCookie) -> Result<(), DatapathError> {
        removed(self.slots.remove(&netns), PODS)?;
        if let Some(Slot { slot, .. }) = self.enrolled.remove(&netns)
            && !self.enrolled.values().any(|other| other.slot == slot)
        {
            let left = self.grace.note();
            self.left.push((slot, left));
        }
        Ok(())
    }

    /// Returns a slot that no program can still be reading.
    fn free_slot(&mut self) -> Result<PodSlot, DatapathError> {
        if self.free.is_empty()
            && let Some(&(_, last)) = self.left.last()
        {
            self.grace.wait(last)?;
            let left = self.left.drain(..).map(|(slot, _)| slot);
            self.free.extend(left.filter(|slot| slot.0 < MAX_PODS));
        }
        self.free.first().copied().ok_or(DatapathError::NoSlot)
    }
}
