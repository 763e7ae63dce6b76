use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// The same rules, written down without regard to cost.
#[derive(Debug)]
struct Model {
    capacity: usize,
    /// In the order in which they became idle or in use.
    places: Vec<(PlaceId, u8, usize)>,
}

impl Model {
    fn held(&self, source: u8) -> usize {
        let of_source = self.places.iter().filter(|(_, of, _)| *of == source);
        of_source.count()
    }

    fn oldest_idle(&self, source: u8) -> Option<PlaceId> {
        let mut places = self.places.iter();
        let found = places.find(|(_, of, users)| *of == source && *users == 0);
        found.map(|(place, ..)| *place)
    }

    fn to_displace(&self, newcomer: u8) -> Option<Option<PlaceId>> {
        let held = self.held(newcomer);
        if held < (self.capacity - self.places.len()) * SHARE {
            return Some(None);
        }
        let idle = self.places.iter().filter(|(_, _, users)| *users == 0);
        let larger = idle.filter(|(_, of, _)| self.held(*of) > held);
        // The first one of those that hold most: the oldest.
        let most = larger.clone().map(|(_, of, _)| self.held(*of)).max();
        let mut of_most = larger.filter(|(_, of, _)| Some(self.held(*of)) == most);
        let victim = of_most.next().map(|(place, ..)| *place);
        victim.or_else(|| self.oldest_idle(newcomer)).map(Some)
    }

    fn release(&mut self, place: PlaceId) {
        let mut places = self.places.iter();
        if !places.any(|(id, _, users)| *id == place && *users > 0) {
            return;
        }
        if let Some((id, source, users)) = self.take(place) {
            self.places.push((id, source, users - 1));
        }
    }

    fn take(&mut self, place: PlaceId) -> Option<(PlaceId, u8, usize)> {
        let index = self.places.iter().position(|(id, ..)| *id == place)?;
        Some(self.places.remove(index))
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Enter(u8),
    Leave(usize),
    Occupy(usize),
    Release(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        5 => (0_u8..6).prop_map(Act::Enter),
        1 => any::<usize>().prop_map(Act::Leave),
        1 => any::<usize>().prop_map(Act::Occupy),
        1 => any::<usize>().prop_map(Act::Release),
    ];
    proptest::collection::vec(act, 0..300)
}

proptest! {
    #[test]
    fn the_room_does_what_the_rules_say(capacity in 0_usize..20, acts in acts()) {
        let mut room = Room::new(capacity);
        let mut model = Model { capacity, places: Vec::new() };
        let mut known = Vec::new();
        for act in acts {
            let place = |index: usize| known.get(index % known.len().max(1)).copied();
            match act {
                Act::Enter(source) => {
                    let expected = model.to_displace(source);
                    let entered = room.enter(source).ok();
                    prop_assert_eq!(entered.map(|entered| entered.displaced), expected);
                    if let Some(Entered { place, displaced }) = entered {
                        displaced.map(|displaced| model.take(displaced));
                        model.places.push((place, source, 0));
                        known.push(place);
                    }
                }
                Act::Leave(index) => if let Some(place) = place(index) {
                    room.leave(place);
                    model.take(place);
                },
                Act::Occupy(index) => if let Some(place) = place(index) {
                    room.occupy(place);
                    let places = &mut model.places;
                    places.iter_mut().filter(|(id, ..)| *id == place).for_each(|held| held.2 += 1);
                },
                Act::Release(index) => if let Some(place) = place(index) {
                    room.release(place);
                    model.release(place);
                },
            }
            prop_assert!(room.places.len() <= capacity);
            prop_assert_eq!(room.places.len(), model.places.len());
            let sources: HashMap<u8, usize> = model
                .places
                .iter()
                .map(|(_, source, _)| (*source, model.held(*source)))
                .collect();
            prop_assert_eq!(room.sources.len(), sources.len());
            prop_assert!(room.displaceable.len() <= sources.len());
        }
    }

    /// Whatever others do, a source keeps its part of the room.
    #[test]
    fn a_source_keeps_its_part(
        attackers in 1_u8..7,
        floods in proptest::collection::vec((0_u8..7, 1_usize..50), 1..40),
    ) {
        const CAPACITY: usize = 64;
        const HONEST: u8 = u8::MAX;
        let part = CAPACITY / (usize::from(attackers) + 2);
        let mut room = Room::new(CAPACITY);
        for (attacker, times) in floods.iter().copied().cycle().take(80) {
            for _ in 0..times {
                // An attacker may fail; how it fares does not matter.
                let _ = room.enter(attacker % attackers);
            }
            if room.held(&HONEST) < part {
                prop_assert!(room.enter(HONEST).is_ok());
            }
        }
        let places: Vec<PlaceId> = room.sources[&HONEST].idle.values().copied().collect();
        for (attacker, times) in floods {
            for _ in 0..times {
                let _ = room.enter(attacker % attackers);
            }
        }
        for place in places.into_iter().take(part) {
            prop_assert!(room.places.contains_key(&place), "displaced below its part");
        }
    }
}

#[test]
fn a_newcomer_displaces_the_oldest_idle_place_of_the_largest_source() {
    let mut room = Room::new(4);
    let places: Vec<PlaceId> = ["small", "large", "large", "large"]
        .map(|source| room.enter(source).expect("free").place)
        .into();
    let entered = room.enter("new").expect("the largest source gives way");
    assert_eq!(entered.displaced, Some(places[1]));
}

#[test]
fn a_source_that_holds_most_displaces_its_own() {
    let mut room = Room::new(3);
    let [_, first, _] = ["small", "large", "large"].map(|source| room.enter(source).unwrap().place);
    let entered = room.enter("large").expect("its own place");
    assert_eq!(entered.displaced, Some(first));
}

#[test]
fn a_place_in_use_is_not_taken_away() {
    let mut room = Room::new(2);
    let places = ["a", "a"].map(|source| room.enter(source).unwrap().place);
    places.iter().for_each(|place| room.occupy(*place));
    assert_eq!(room.enter("b"), Err(NoRoom));
    room.occupy(places[0]);
    room.release(places[0]);
    assert_eq!(room.enter("b"), Err(NoRoom), "it had two users");
    room.release(places[1]);
    assert_eq!(room.enter("b").unwrap().displaced, Some(places[1]));
}

#[test]
fn what_was_used_last_is_the_youngest() {
    let mut room = Room::new(3);
    let [first, second, _] = ["a", "a", "a"].map(|source| room.enter(source).unwrap().place);
    room.occupy(first);
    room.release(first);
    assert_eq!(room.enter("b").unwrap().displaced, Some(second));
}

#[test]
fn sources_that_use_all_that_they_get_leave_room_for_the_next() {
    let mut room = Room::new(4096);
    for source in 0..3 {
        while let Ok(Entered { place, .. }) = room.enter(source) {
            room.occupy(place);
        }
    }
    for _ in 0..5 {
        let place = room.enter(3).expect("left by the others").place;
        room.occupy(place);
    }
}

#[test]
fn more_sources_than_places_leave_a_newcomer_its_time() {
    const CAPACITY: usize = 256;
    let mut room = Room::new(CAPACITY);
    for attacker in 0..10 * CAPACITY {
        room.enter(attacker).expect("the oldest gives way");
    }
    let honest = room.enter(usize::MAX).expect("the oldest gives way").place;
    for attacker in 0..CAPACITY - 1 {
        room.enter(20 * CAPACITY + attacker)
            .expect("the oldest gives way");
        assert!(room.places.contains_key(&honest));
    }
}

#[test]
fn a_room_without_places_lets_nobody_in() {
    assert_eq!(Room::new(0).enter("a"), Err(NoRoom));
}

#[test]
fn nothing_is_left_of_those_who_have_left() {
    let mut room = Room::new(10);
    for source in 0..1000 {
        let place = room.enter(source).unwrap().place;
        room.occupy(place);
        room.leave(place);
        // Later calls about a place that is gone change nothing.
        room.release(place);
        room.occupy(place);
        room.leave(place);
    }
    assert!(room.places.is_empty() && room.sources.is_empty() && room.displaceable.is_empty());
}
