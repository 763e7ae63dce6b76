//! The pinned maps of a node without an agent.

use ambit_common::{Address, Generation, MAX_SHARDS, NetnsCookie, PodEntry, PodMode, PolicySetId};
use aya::EbpfLoader;

use crate::pins::directory::PinDirectory;
use crate::pins::{NODE_MAPS, SHARED_MAPS};
use crate::pod::table::PodTable;
use crate::testing::{TestBpffs, is_root, mount_for_test};
use crate::{Pins, programs};

/// The maps. They are removed with the value.
pub(super) struct NodeMaps {
    pub(super) pins: Pins,
    pods: u32,
    _directory: PinDirectory,
    _bpffs: TestBpffs,
}

impl NodeMaps {
    /// Makes the maps with room for this many pods. Returns `None` if the test has to be skipped.
    pub(super) fn make(pods: u32) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let bpffs = mount_for_test();
        let directory = PinDirectory::prepare(&bpffs.path().join("ambit")).expect("prepares");
        let maps = Self {
            pins: Pins::open(&directory).expect("opens"),
            pods,
            _directory: directory,
            _bpffs: bpffs,
        };
        maps.loader()
            .load(programs::NODE_OBJECT)
            .expect("makes the maps");
        Some(maps)
    }

    /// Returns a loader whose objects use these maps.
    pub(super) fn loader(&self) -> EbpfLoader<'_> {
        let mut loader = EbpfLoader::new();
        for map in SHARED_MAPS.iter().chain(&NODE_MAPS) {
            loader.map_pin_path(map, self.pins.map(map));
        }
        loader.map_max_entries("PODS", self.pods);
        loader
    }

    pub(super) fn pods(&self) -> PodTable {
        PodTable::open(&self.pins).expect("opens")
    }
}

/// Returns a closed pod's entry, with all of its parts made from one number.
pub(super) fn entry(netns: NetnsCookie, number: u32) -> PodEntry {
    let address = Address::from_v6_be([number; 4]);
    PodEntry {
        netns,
        generation: Generation(number.into()),
        policy_set: PolicySetId(number),
        shards: 1,
        primary_v4: address,
        primary_v6: address,
        listener_ports: [[number as u16; MAX_SHARDS]; 3],
        state: PodMode::Closed as u8,
        zero: [0; 7],
    }
}

/// Changes the table of pods all the time: the entries of pods that stay, and pods that come and go.
///
/// There are few pods, so each is changed again within microseconds. `PODS` has little room, so the pods share
/// the buckets of its hash, and a look-up that walks along a bucket meets changes of other pods.
pub(super) struct Hammer {
    round: u32,
}

impl Hammer {
    /// Room in `PODS` for its pods and one more.
    pub(super) const ROOM: u32 = 16;
    /// Pods that stay.
    pub(super) const STAY: std::ops::Range<u64> = 0..14;
    const COME_AND_GO: std::ops::Range<u64> = 14..15;

    /// Enrols the pods that stay.
    pub(super) fn start(table: &mut PodTable) -> Self {
        for pod in Self::STAY {
            table.set(entry(NetnsCookie(pod), 1)).expect("written");
        }
        Self { round: 1 }
    }

    /// Changes each pod once.
    pub(super) fn strike(&mut self, table: &mut PodTable) {
        self.round += 1;
        for pod in Self::COME_AND_GO {
            let entry = entry(NetnsCookie(pod), self.round);
            table.set(entry).expect("written");
        }
        for pod in Self::STAY {
            let entry = entry(NetnsCookie(pod), self.round);
            table.set(entry).expect("written");
        }
        for pod in Self::COME_AND_GO {
            table.remove(NetnsCookie(pod)).expect("removed");
        }
    }
}
