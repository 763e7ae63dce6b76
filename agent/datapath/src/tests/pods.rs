//! The kernel programs find an enrolled pod at every moment, and with a complete entry, while the entry is changed
//! and while other pods come and go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ambit_common::{MAX_PODS, NetnsCookie, Sightings};
use aya::programs::Xdp;
use aya::{Ebpf, TestRun, TestRunOptions};

use super::node_maps::{Hammer, NodeMaps, entry};
use crate::{CLASSIFIER, DatapathError};

/// How long the table is changed.
const WATCH: Duration = Duration::from_secs(3);

/// The program that watches the pods of a node.
struct Watcher(Ebpf);

impl Watcher {
    fn load(maps: &NodeMaps) -> Self {
        let object = std::fs::read(CLASSIFIER)
            .unwrap_or_else(|error| panic!("{CLASSIFIER}: {error}; run `cargo xtask build`"));
        let mut ebpf = maps.loader().load(&object).expect("an object");
        let program: &mut Xdp = ebpf
            .program_mut("ambit_watch")
            .expect("a program")
            .try_into()
            .expect("of this type");
        program.load().expect("the verifier accepts it");
        Self(ebpf)
    }

    fn look(&self, netns: NetnsCookie) -> Sightings {
        let program: &Xdp = self
            .0
            .program("ambit_watch")
            .expect("a program")
            .try_into()
            .expect("of this type");
        // The shortest packet that a test run accepts.
        let mut data = [0; 64];
        data[..8].copy_from_slice(&netns.0.to_ne_bytes());
        let result = program.test_run(TestRunOptions {
            data_in: Some(&data),
            ..TestRunOptions::new()
        });
        Sightings(result.expect("runs").return_value)
    }

    /// Looks at the pods that stay for a while. Returns how often one was missing, and how often one was torn.
    fn watch(&self) -> (u32, u32) {
        let (mut missed, mut torn) = (0, 0);
        let end = Instant::now() + WATCH;
        let mut number = 0;
        while Instant::now() < end {
            number += 1;
            let seen = self.look(NetnsCookie(number % Hammer::STAY.end));
            assert_ne!(seen, Sightings::UNREADABLE);
            missed += seen.missed();
            torn += seen.torn();
        }
        (missed, torn)
    }
}

#[test]
fn an_enrolled_pod_is_never_missed_nor_seen_in_part() {
    let Some(maps) = NodeMaps::make(Hammer::ROOM) else {
        return;
    };
    let (watcher, mut table) = (Watcher::load(&maps), maps.pods());
    let mut hammer = Hammer::start(&mut table);
    let done = AtomicBool::new(false);
    let (missed, torn, rounds) = thread::scope(|scope| {
        let hammering = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) {
                hammer.strike(&mut table);
                rounds += 1;
            }
            rounds
        });
        let (missed, torn) = watcher.watch();
        done.store(true, Ordering::Relaxed);
        (missed, torn, hammering.join().expect("thread"))
    });
    println!("{rounds} rounds; {missed} look-ups missed, {torn} saw parts");
    assert_eq!((missed, torn), (0, 0), "in {rounds} rounds of changes");
    assert!(
        rounds > 10,
        "{rounds} rounds of changes are not enough for a test"
    );
}

#[test]
fn the_watcher_sees_what_is_not_there_and_what_is_anothers() {
    let Some(maps) = NodeMaps::make(MAX_PODS) else {
        return;
    };
    let (watcher, mut table) = (Watcher::load(&maps), maps.pods());
    let (pod, other) = (NetnsCookie(7), NetnsCookie(8));
    assert!(watcher.look(pod).missed() > 0);
    table.set(entry(pod, 1)).expect("written");
    assert_eq!(watcher.look(pod), Sightings::NONE);
    // A key that leads to another pod's entry is refused; it does not count as not enrolled.
    let mut slots = maps.pins.hash::<NetnsCookie, u32>("PODS").expect("opens");
    let slot = slots.get(&pod, 0).expect("reads");
    slots.insert(other, slot, 0).expect("written");
    let seen = watcher.look(other);
    assert!(seen.missed() == 0 && seen.torn() > 0, "{seen:?}");
    let mut table = maps.pods();
    let refused = table.set(entry(other, 1));
    assert!(
        matches!(refused, Err(DatapathError::SlotTaken(_))),
        "{refused:?}"
    );
    assert_eq!(watcher.look(pod), Sightings::NONE);
    // The other pod can be removed, and then enrolled.
    table.remove(other).expect("removed");
    assert!(watcher.look(other).missed() > 0);
    table.set(entry(other, 1)).expect("written");
    assert_eq!(watcher.look(other), Sightings::NONE);
    assert_eq!(watcher.look(pod), Sightings::NONE);
}

#[test]
fn slots_are_used_again_and_survive_the_agent() {
    let Some(maps) = NodeMaps::make(MAX_PODS) else {
        return;
    };
    let mut table = maps.pods();
    let netns = |number: u32| NetnsCookie(number.into());
    for number in 0..MAX_PODS {
        table.set(entry(netns(number), 1)).expect("written");
    }
    let full = table.set(entry(netns(MAX_PODS), 1));
    assert!(matches!(full, Err(DatapathError::NoSlot)), "{full:?}");
    for round in 0..3 {
        let (gone, new) = (netns(round), netns(MAX_PODS + round));
        table.remove(gone).expect("removed");
        table.set(entry(new, 2)).expect("written");
        assert!(table.get(gone).is_none());
    }
    let table = maps.pods();
    assert_eq!(table.pods().len(), MAX_PODS as usize);
    for number in 3..MAX_PODS + 3 {
        let expected = entry(netns(number), if number < MAX_PODS { 1 } else { 2 });
        assert_eq!(table.get(netns(number)), Some(&expected));
    }
}
