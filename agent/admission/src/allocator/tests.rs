use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// The same rules, without regard to cost.
#[derive(Debug)]
struct Model {
    capacity: usize,
    /// Seat, source and number of uses, in the order in which they became idle or in use.
    seats: Vec<(SeatId, u8, usize)>,
}

impl Model {
    fn held(&self, source: u8) -> usize {
        let of_source = self.seats.iter().filter(|(_, of, _)| *of == source);
        of_source.count()
    }

    fn oldest_idle(&self, source: u8) -> Option<SeatId> {
        let mut seats = self.seats.iter();
        let found = seats.find(|(_, of, users)| *of == source && *users == 0);
        found.map(|(seat, ..)| *seat)
    }

    fn to_displace(&self, newcomer: u8) -> Option<Option<SeatId>> {
        let held = self.held(newcomer);
        if held < (self.capacity - self.seats.len()) * SHARE {
            return Some(None);
        }
        let idle = self.seats.iter().filter(|(_, _, users)| *users == 0);
        let larger = idle.filter(|(_, of, _)| self.held(*of) > held);
        // The first one of the sources that hold most is the oldest.
        let most = larger.clone().map(|(_, of, _)| self.held(*of)).max();
        let mut of_most = larger.filter(|(_, of, _)| Some(self.held(*of)) == most);
        let victim = of_most.next().map(|(seat, ..)| *seat);
        victim.or_else(|| self.oldest_idle(newcomer)).map(Some)
    }

    fn release(&mut self, seat: SeatId) {
        let mut seats = self.seats.iter();
        if !seats.any(|(id, _, users)| *id == seat && *users > 0) {
            return;
        }
        if let Some((id, source, users)) = self.take(seat) {
            self.seats.push((id, source, users - 1));
        }
    }

    fn take(&mut self, seat: SeatId) -> Option<(SeatId, u8, usize)> {
        let index = self.seats.iter().position(|(id, ..)| *id == seat)?;
        Some(self.seats.remove(index))
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
    fn the_allocator_does_what_the_rules_say(capacity in 0_usize..20, acts in acts()) {
        let mut allocator = SeatAllocator::new(capacity);
        let mut model = Model { capacity, seats: Vec::new() };
        let mut known = Vec::new();
        for act in acts {
            let seat = |index: usize| known.get(index % known.len().max(1)).copied();
            match act {
                Act::Enter(source) => {
                    let expected = model.to_displace(source);
                    let entered = allocator.take(source).ok();
                    prop_assert_eq!(entered.map(|entered| entered.displaced), expected);
                    if let Some(NewSeat { seat, displaced }) = entered {
                        displaced.map(|displaced| model.take(displaced));
                        model.seats.push((seat, source, 0));
                        known.push(seat);
                    }
                }
                Act::Leave(index) => if let Some(seat) = seat(index) {
                    allocator.leave(seat);
                    model.take(seat);
                },
                Act::Occupy(index) => if let Some(seat) = seat(index) {
                    allocator.occupy(seat);
                    let seats = &mut model.seats;
                    seats.iter_mut().filter(|(id, ..)| *id == seat).for_each(|held| held.2 += 1);
                },
                Act::Release(index) => if let Some(seat) = seat(index) {
                    allocator.release(seat);
                    model.release(seat);
                },
            }
            prop_assert!(allocator.seats.len() <= capacity);
            prop_assert_eq!(allocator.seats.len(), model.seats.len());
            let sources: HashMap<u8, usize> = model
                .seats
                .iter()
                .map(|(_, source, _)| (*source, model.held(*source)))
                .collect();
            prop_assert_eq!(allocator.sources.len(), sources.len());
            prop_assert!(allocator.displaceable.len() <= sources.len());
        }
    }

    /// Whatever others do, a source keeps its share of the seats.
    #[test]
    fn a_source_keeps_its_part(
        attackers in 1_u8..7,
        floods in proptest::collection::vec((0_u8..7, 1_usize..50), 1..40),
    ) {
        const CAPACITY: usize = 64;
        const HONEST: u8 = u8::MAX;
        let part = CAPACITY / (usize::from(attackers) + 2);
        let mut allocator = SeatAllocator::new(CAPACITY);
        for (attacker, times) in floods.iter().copied().cycle().take(80) {
            for _ in 0..times {
                // An attacker may fail; how it fares does not matter.
                let _ = allocator.take(attacker % attackers);
            }
            if allocator.held(&HONEST) < part {
                prop_assert!(allocator.take(HONEST).is_ok());
            }
        }
        let seats: Vec<SeatId> = allocator.sources[&HONEST].idle.values().copied().collect();
        for (attacker, times) in floods {
            for _ in 0..times {
                let _ = allocator.take(attacker % attackers);
            }
        }
        for seat in seats.into_iter().take(part) {
            prop_assert!(allocator.seats.contains_key(&seat), "displaced below its part");
        }
    }
}

#[test]
fn a_newcomer_displaces_the_oldest_idle_seat_of_the_largest_source() {
    let mut allocator = SeatAllocator::new(4);
    let seats: Vec<SeatId> = ["small", "large", "large", "large"]
        .map(|source| allocator.take(source).expect("free").seat)
        .into();
    let entered = allocator.take("new").expect("the largest source gives way");
    assert_eq!(entered.displaced, Some(seats[1]));
}

#[test]
fn a_source_that_holds_most_displaces_its_own() {
    let mut allocator = SeatAllocator::new(3);
    let [_, first, _] =
        ["small", "large", "large"].map(|source| allocator.take(source).unwrap().seat);
    let entered = allocator.take("large").expect("its own seat");
    assert_eq!(entered.displaced, Some(first));
}

#[test]
fn a_seat_in_use_is_not_taken_away() {
    let mut allocator = SeatAllocator::new(2);
    let seats = ["a", "a"].map(|source| allocator.take(source).unwrap().seat);
    seats.iter().for_each(|seat| allocator.occupy(*seat));
    assert_eq!(allocator.take("b"), Err(NoSeat));
    allocator.occupy(seats[0]);
    allocator.release(seats[0]);
    assert_eq!(allocator.take("b"), Err(NoSeat), "it had two users");
    allocator.release(seats[1]);
    assert_eq!(allocator.take("b").unwrap().displaced, Some(seats[1]));
}

#[test]
fn what_was_used_last_is_the_youngest() {
    let mut allocator = SeatAllocator::new(3);
    let [first, second, _] = ["a", "a", "a"].map(|source| allocator.take(source).unwrap().seat);
    allocator.occupy(first);
    allocator.release(first);
    assert_eq!(allocator.take("b").unwrap().displaced, Some(second));
}

#[test]
fn sources_that_use_all_that_they_get_leave_room_for_the_next() {
    let mut allocator = SeatAllocator::new(4096);
    for source in 0..3 {
        while let Ok(NewSeat { seat, .. }) = allocator.take(source) {
            allocator.occupy(seat);
        }
    }
    for _ in 0..5 {
        let seat = allocator.take(3).expect("left by the others").seat;
        allocator.occupy(seat);
    }
}

#[test]
fn more_sources_than_places_leave_a_newcomer_its_time() {
    const CAPACITY: usize = 256;
    let mut allocator = SeatAllocator::new(CAPACITY);
    for attacker in 0..10 * CAPACITY {
        allocator.take(attacker).expect("the oldest gives way");
    }
    let honest = allocator
        .take(usize::MAX)
        .expect("the oldest gives way")
        .seat;
    for attacker in 0..CAPACITY - 1 {
        allocator
            .take(20 * CAPACITY + attacker)
            .expect("the oldest gives way");
        assert!(allocator.seats.contains_key(&honest));
    }
}

#[test]
fn without_seats_no_newcomer_gets_in() {
    assert_eq!(SeatAllocator::new(0).take("a"), Err(NoSeat));
}

#[test]
fn nothing_is_left_of_those_who_have_left() {
    let mut allocator = SeatAllocator::new(10);
    for source in 0..1000 {
        let seat = allocator.take(source).unwrap().seat;
        allocator.occupy(seat);
        allocator.leave(seat);
        // Later calls about a seat that is gone change nothing.
        allocator.release(seat);
        allocator.occupy(seat);
        allocator.leave(seat);
    }
    assert!(
        allocator.seats.is_empty()
            && allocator.sources.is_empty()
            && allocator.displaceable.is_empty()
    );
}
