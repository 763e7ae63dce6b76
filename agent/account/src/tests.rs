use std::thread;

use proptest::prelude::*;

use crate::{AccountExhausted, Charge, GUARANTEE, NodeAccount, Owner, PodAccount};

const MIB: usize = 1 << 20;

fn sum(node: &NodeAccount) -> usize {
    usize::try_from(node.pool.sum()).expect("never below zero")
}

/// Takes what is left, to the byte.
fn exhaust(pod: &PodAccount) -> (Charge, AccountExhausted) {
    let mut charge = pod.nothing();
    let mut refusal = None;
    let mut step = 1_usize << 40;
    while step > 0 {
        match charge.grow(step) {
            Ok(()) => {}
            Err(refused) => {
                refusal = Some(refused);
                step /= 2;
            }
        }
    }
    (charge, refusal.expect("the account has an end"))
}

#[test]
fn what_is_taken_is_given_back() {
    let node = NodeAccount::new(64 * MIB);
    let pod = node.pod();
    let mut charge = pod.take(5 * MIB).expect("room");
    charge.grow(MIB).expect("room");
    assert_eq!((charge.bytes(), node.usage().in_use), (6 * MIB, 6 * MIB));
    assert_eq!(pod.usage().in_use, 6 * MIB);
    charge.shrink(2 * MIB);
    assert_eq!(node.usage().in_use, 4 * MIB);
    drop(charge);
    assert_eq!((node.usage().in_use, node.usage().peak), (0, 6 * MIB));
    assert_eq!(pod.usage().in_use, 0);
    assert_eq!(sum(&node), 64 * MIB);
}

#[test]
fn a_split_charge_is_given_back_in_parts() {
    let node = NodeAccount::new(64 * MIB);
    let mut whole = node.pod().take(10).expect("room");
    let part = whole.split(4);
    assert_eq!((whole.bytes(), part.bytes()), (6, 4));
    drop(whole);
    assert_eq!(node.usage().in_use, 4);
    drop(part);
    assert_eq!(node.usage().in_use, 0);
}

#[test]
fn one_pod_gets_five_eighths_and_is_told_so() {
    let node = NodeAccount::new(64 * MIB);
    let pod = node.pod();
    let (charge, refused) = exhaust(&pod);
    assert_eq!(charge.bytes(), 40 * MIB);
    assert_eq!(refused.owner, Owner::Pod);
    assert_eq!(
        refused.to_string(),
        "the pod's account of memory is used up: 1 bytes more than its 41943040 would be over the 41943040 \
         that one pod may have; a larger --memory raises that"
    );
}

#[test]
fn pods_that_use_up_the_node_are_told_so_and_leave_shares_for_newcomers() {
    let node = NodeAccount::new(128 * MIB);
    let pods = [node.pod(), node.pod(), node.pod()];
    let held = pods.each_ref().map(exhaust);
    let all: usize = held.iter().map(|(charge, _)| charge.bytes()).sum();
    assert_eq!(all, 128 * MIB - 4 * GUARANTEE);
    let refused = held[2].1;
    assert_eq!(refused.owner, Owner::Node);
    assert!(refused.to_string().contains("--memory"), "{refused}");
    let newcomers = [(); 4].map(|()| node.pod());
    let _shares = newcomers
        .each_ref()
        .map(|pod| pod.take(GUARANTEE).expect("its share"));
    assert_eq!(node.usage().in_use, 128 * MIB);
    assert_eq!(sum(&node), 128 * MIB);
}

#[test]
fn shares_follow_the_number_of_pods() {
    let node = NodeAccount::new(64 * MIB);
    let pods: Vec<PodAccount> = (0..28).map(|_| node.pod()).collect();
    assert_eq!(node.usage().guarantee, MIB);
    assert!(pods.iter().all(|pod| pod.usage().guarantee == MIB));
    drop(pods);
    let pod = node.pod();
    assert_eq!(pod.usage().guarantee, GUARANTEE);
    assert_eq!((node.usage().pods, sum(&node)), (1, 64 * MIB));
}

#[test]
fn what_a_pod_uses_beyond_a_share_that_shrinks_becomes_a_debt() {
    let node = NodeAccount::new(64 * MIB);
    let pod = node.pod();
    let _charge = pod.take(GUARANTEE).expect("its share");
    let others: Vec<PodAccount> = (0..27).map(|_| node.pod()).collect();
    assert_eq!(
        (pod.usage().in_use, pod.usage().guarantee),
        (GUARANTEE, MIB)
    );
    drop(others);
    assert_eq!(pod.usage().in_use, GUARANTEE);
    assert_eq!(sum(&node), 64 * MIB);
}

#[test]
fn a_pod_is_gone_with_its_last_charge() {
    let node = NodeAccount::new(64 * MIB);
    let charge = node.pod().take(10 * MIB).expect("room");
    assert_eq!((node.usage().pods, node.usage().in_use), (1, 10 * MIB));
    drop(charge);
    assert_eq!((node.usage().pods, node.usage().in_use), (0, 0));
    assert_eq!(sum(&node), 64 * MIB);
}

#[test]
fn what_could_be_done_without_leaves_room_for_what_could_not() {
    let node = NodeAccount::new(128 * MIB);
    let pods = [node.pod(), node.pod(), node.pod()];
    let mut held = pods.each_ref().map(PodAccount::nothing);
    for _ in 0..100 {
        for charge in &mut held {
            charge.extend(64 << 10);
        }
    }
    for (pod, charge) in pods.iter().zip(&mut held) {
        while charge.extend(usize::MAX) > 0 {}
        assert_eq!(pod.spare(), 0);
    }
    for (pod, held) in pods.iter().zip(&held) {
        assert!(held.bytes() > 10 * MIB, "{held:?}");
        drop(pod.take(25 * MIB).expect("room is left to each"));
    }
}

#[test]
fn spare_room_comes_back() {
    let node = NodeAccount::new(64 * MIB);
    let pod = node.pod();
    let spare = pod.spare();
    let (all, _) = exhaust(&pod);
    assert_eq!(pod.spare(), 0);
    assert_eq!(pod.nothing().extend(1), 0);
    drop(all);
    assert_eq!(pod.spare(), spare);
    assert_eq!(pod.nothing().extend(usize::MAX), spare);
}

#[test]
fn what_does_not_fit_into_spare_room_is_not_taken_in_part() {
    let node = NodeAccount::new(64 * MIB);
    let pod = node.pod();
    let mut charge = pod.nothing();
    let spare = pod.spare();
    let refused = charge
        .grow_spare(spare + 1)
        .expect_err("more than is spare");
    assert_eq!((refused.owner, node.usage().in_use), (Owner::Spare, 0));
    assert!(refused.to_string().contains("--memory"), "{refused}");
    charge.grow_spare(spare).expect("what is spare");
    drop(pod.take(1).expect("room for what cannot be done without"));
}

#[test]
fn refusals_are_counted() {
    let node = NodeAccount::new(MIB);
    let (flooded, other) = (node.pod(), node.pod());
    flooded.take(MIB).expect_err("over");
    flooded.take(usize::MAX).expect_err("over");
    assert_eq!(flooded.usage().refused, 2);
    assert_eq!((other.usage().refused, node.usage().refused), (0, 2));
}

#[test]
fn an_account_without_memory_refuses_everything() {
    let pod = NodeAccount::new(0).pod();
    drop(pod.take(0).expect("nothing is always there"));
    pod.take(1).expect_err("nothing is there");
    assert_eq!(pod.spare(), 0);
}

#[test]
fn an_account_without_a_limit_does_not_overflow() {
    let node = NodeAccount::new(usize::MAX);
    let pod = node.pod();
    let _charge = pod.take(1 << 40).expect("room");
    pod.take(usize::MAX).expect_err("more than there can be");
    assert!(pod.spare() > 1 << 40);
}

#[derive(Clone, Debug)]
enum Step {
    Join,
    Leave(usize),
    Take(usize, usize),
    Grow(usize, usize),
    Extend(usize, usize),
    Shrink(usize, usize),
    Split(usize, usize),
    Drop(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = 0..64_usize;
    let bytes = prop_oneof![0..4096_usize, 0..2 * MIB, Just(GUARANTEE), 0..64 * MIB];
    let step = prop_oneof![
        1 => Just(Step::Join),
        1 => which.clone().prop_map(Step::Leave),
        4 => (which.clone(), bytes.clone()).prop_map(|(pod, bytes)| Step::Take(pod, bytes)),
        2 => (which.clone(), bytes.clone()).prop_map(|(charge, bytes)| Step::Grow(charge, bytes)),
        2 => (which.clone(), bytes.clone()).prop_map(|(charge, bytes)| Step::Extend(charge, bytes)),
        2 => (which.clone(), bytes.clone()).prop_map(|(charge, bytes)| Step::Shrink(charge, bytes)),
        1 => (which.clone(), bytes).prop_map(|(charge, bytes)| Step::Split(charge, bytes)),
        3 => which.prop_map(Step::Drop),
    ];
    prop::collection::vec(step, 0..200)
}

/// Pods, and the charges of each, those of pods that have left included.
struct World {
    node: NodeAccount,
    pods: Vec<(usize, PodAccount)>,
    charges: Vec<(usize, Charge)>,
    next: usize,
}

impl World {
    fn new(limit: usize, pods: usize) -> Self {
        let mut world = Self {
            node: NodeAccount::new(limit),
            pods: Vec::new(),
            charges: Vec::new(),
            next: 0,
        };
        (0..pods).for_each(|_| world.join());
        world
    }

    fn join(&mut self) {
        self.pods.push((self.next, self.node.pod()));
        self.next += 1;
    }

    fn of_charge(&mut self, which: usize) -> Option<&mut (usize, Charge)> {
        let charges = self.charges.len();
        (charges > 0).then(|| &mut self.charges[which % charges])
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Join => self.join(),
            Step::Leave(which) if !self.pods.is_empty() => {
                self.pods.swap_remove(which % self.pods.len());
            }
            Step::Take(which, bytes) if !self.pods.is_empty() => {
                let (id, pod) = &self.pods[which % self.pods.len()];
                if let Ok(charge) = pod.take(bytes) {
                    assert_eq!(charge.bytes(), bytes);
                    self.charges.push((*id, charge));
                }
            }
            Step::Drop(which) if !self.charges.is_empty() => {
                drop(self.charges.swap_remove(which % self.charges.len()));
            }
            Step::Leave(_) | Step::Take(..) | Step::Drop(_) => {}
            Step::Grow(which, bytes) => {
                if let Some((_, charge)) = self.of_charge(which) {
                    let before = charge.bytes();
                    let grown = charge.grow(bytes).is_ok();
                    assert_eq!(charge.bytes(), before + if grown { bytes } else { 0 });
                }
            }
            Step::Extend(which, bytes) => {
                if let Some((_, charge)) = self.of_charge(which) {
                    let before = charge.bytes();
                    let more = charge.extend(bytes);
                    assert!(more <= bytes);
                    assert_eq!(charge.bytes(), before + more);
                }
            }
            Step::Shrink(which, bytes) => {
                if let Some((_, charge)) = self.of_charge(which) {
                    charge.shrink(bytes);
                }
            }
            Step::Split(which, bytes) => {
                if let Some((id, charge)) = self.of_charge(which) {
                    let part = (*id, charge.split(bytes));
                    self.charges.push(part);
                }
            }
        }
    }

    fn held(&self, id: usize) -> usize {
        let own = self.charges.iter().filter(|(other, _)| *other == id);
        own.map(|(_, charge)| charge.bytes()).sum()
    }

    fn check(&self) {
        let usage = self.node.usage();
        let held: usize = self.charges.iter().map(|(_, charge)| charge.bytes()).sum();
        assert_eq!(usage.in_use, held);
        assert!(usage.peak >= held);
        assert_eq!(sum(&self.node), usage.limit);
        for (id, pod) in &self.pods {
            assert_eq!(pod.usage().in_use, self.held(*id));
            assert!(pod.spare() <= usage.limit);
        }
    }

    fn check_guarantees(&self) {
        let mut shares = Vec::new();
        for (id, pod) in &self.pods {
            let left = pod.usage().guarantee.saturating_sub(self.held(*id));
            shares.push(pod.take(left).expect("a guarantee is always there"));
        }
        assert_eq!(sum(&self.node), self.node.usage().limit);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn sums_are_right_and_guarantees_honoured(
        limit in prop_oneof![Just(0), 0..MIB, 16 * MIB..256 * MIB],
        steps in steps(),
    ) {
        let mut world = World::new(limit, 2);
        for step in &steps {
            world.step(step);
            world.check();
            world.check_guarantees();
        }
        world.charges.clear();
        world.check();
        world.pods.clear();
        let usage = world.node.usage();
        prop_assert_eq!((usage.in_use, usage.pods), (0, 0));
        prop_assert_eq!(sum(&world.node), limit);
    }

    #[test]
    fn pods_that_stay_never_exceed_the_limit(limit in 0..256 * MIB, pods in 0..40_usize, steps in steps()) {
        let mut world = World::new(limit, pods);
        for step in steps.iter().filter(|step| !matches!(step, Step::Join)) {
            world.step(step);
            prop_assert!(world.node.usage().in_use <= limit);
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sums_are_right_when_threads_share_pods(
        limit in 16 * MIB..64 * MIB,
        work in prop::collection::vec(steps(), 4),
    ) {
        let node = NodeAccount::new(limit);
        let pods: Vec<(usize, PodAccount)> = (0..3).map(|id| (id, node.pod())).collect();
        let worlds = thread::scope(|scope| {
            let run = |steps: Vec<Step>| {
                let mut world = World { node: node.clone(), pods: pods.clone(), charges: Vec::new(), next: 3 };
                scope.spawn(move || {
                    steps.iter().for_each(|step| world.step(step));
                    world
                })
            };
            let threads: Vec<_> = work.into_iter().map(run).collect();
            let joined = threads.into_iter().map(|thread| thread.join().expect("no panic"));
            joined.collect::<Vec<World>>()
        });
        let held: usize = worlds.iter().flat_map(|world| &world.charges).map(|(_, charge)| charge.bytes()).sum();
        prop_assert_eq!(node.usage().in_use, held);
        prop_assert_eq!(sum(&node), limit);
        drop(worlds);
        for (_, pod) in &pods {
            prop_assert_eq!(pod.usage().in_use, 0);
            drop(pod.take(pod.usage().guarantee).expect("a guarantee is always there"));
        }
        drop(pods);
        prop_assert_eq!((node.usage().in_use, node.usage().pods, sum(&node)), (0, 0, limit));
    }
}

impl World {
    /// Returns how much a pod can have while the others keep what they have: its share or what it has, and all
    /// that no one else has and no guarantee reserves, as far as one pod may go.
    fn reachable(&self, id: usize) -> usize {
        let usage = self.node.usage();
        let own_or_share = |id| self.held(id).max(usage.guarantee);
        let reserved: usize = self.pods.iter().map(|(id, _)| own_or_share(*id)).sum();
        let newcomers = crate::node::NEWCOMERS * usage.guarantee;
        let lendable = usage.limit.saturating_sub(reserved + newcomers);
        (own_or_share(id) + lendable).min(usage.limit / 8 * 5)
    }

    /// Checks that each pod gets as much as it can have, to the byte, and that it all comes back.
    fn check_borrowing(&self) {
        for (id, pod) in &self.pods {
            let (most, refused) = exhaust(pod);
            assert_eq!(
                self.held(*id) + most.bytes(),
                self.reachable(*id),
                "{refused}"
            );
            drop(most);
            assert_eq!(pod.usage().in_use, self.held(*id));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(25))]

    #[test]
    fn all_that_no_guarantee_reserves_can_be_borrowed_and_what_is_given_back_again(
        limit in 16 * MIB..256 * MIB,
        pods in 1..6_usize,
        steps in steps(),
    ) {
        let mut world = World::new(limit, pods);
        // What could be done without leaves a quarter of the pod's own share, even if it borrows.
        let is_left_out = |step: &Step| matches!(step, Step::Join | Step::Leave(_) | Step::Extend(..));
        for step in steps.iter().filter(|step| !is_left_out(step)) {
            world.step(step);
        }
        world.check_borrowing();
        while let Some(charge) = world.charges.pop() {
            drop(charge);
            world.check_borrowing();
        }
    }

    #[test]
    fn pods_that_take_what_could_be_done_without_in_turn_end_with_like_parts(
        limit in 64 * MIB..256 * MIB,
        pods in 2..6_usize,
        size in 1..64_usize,
    ) {
        let node = NodeAccount::new(limit);
        let pods: Vec<PodAccount> = (0..pods).map(|_| node.pod()).collect();
        let mut held: Vec<Charge> = pods.iter().map(PodAccount::nothing).collect();
        while held.iter_mut().map(|charge| charge.extend(size << 10)).sum::<usize>() > 0 {}
        let parts = held.iter().map(Charge::bytes);
        let (least, most) = (parts.clone().min().unwrap_or(0), parts.max().unwrap_or(0));
        prop_assert!(most - least <= 4 * (size << 10), "{least} and {most}");
        prop_assert!(least >= node.usage().guarantee / 4 * 3);
        for pod in &pods {
            drop(pod.take(node.usage().guarantee / 4).expect("kept for what cannot be done without"));
        }
    }
}

#[test]
fn a_guarantee_is_honoured_while_other_pods_fight_over_the_rest() {
    let node = NodeAccount::new(32 * MIB);
    let (quiet, greedy) = (node.pod(), [node.pod(), node.pod()]);
    let share = quiet.usage().guarantee;
    thread::scope(|scope| {
        for pod in &greedy {
            scope.spawn(move || {
                let mut held = Vec::new();
                for turn in 0..50_000_usize {
                    held.extend(pod.take(turn * 977 % MIB));
                    if turn % 3 == 0 && !held.is_empty() {
                        drop(held.swap_remove(turn % held.len()));
                    }
                }
            });
        }
        for _ in 0..50_000 {
            drop(quiet.take(share).expect("a guarantee is always there"));
        }
    });
    assert!(node.usage().refused > 0);
    assert_eq!((node.usage().in_use, sum(&node)), (0, 32 * MIB));
}
