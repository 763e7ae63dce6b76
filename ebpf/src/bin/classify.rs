//! The verdict of the hooks on a connection that is given as data: for tests and benchmarks, which
//! run it by `BPF_PROG_TEST_RUN`. The agent neither embeds nor loads it.
//!
//! The input is a [`Question`]. The return value is an [`Answer`]; it is no action of XDP, and the
//! program is not to be attached.
//!
//! | input, tables | return value |
//! |---|---|
//! | shorter than a question | `Answer::UNREADABLE` |
//! | the set, the identity's bits in it or a prefix is missing | `Answer::INCOMPLETE` |
//! | otherwise | verdict and deciding alternative |
//!
//! A second program, `ambit_watch`, looks one pod up again and again, and says how often its entry was
//! missing and how often it was seen in part. Its input is a [`NetnsCookie`], its return value
//! [`Sightings`].
#![no_std]
#![no_main]

use ambit_common::{Answer, NetnsCookie, PodEntry, Question, Sightings};
use ambit_ebpf::pods::{self, Enrolment};
use ambit_ebpf::report::now_ns;
use ambit_ebpf::verdict::judge_connection;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

/// XDP, since its test run hands the data over as they are and asks nothing of their form.
#[xdp]
pub fn ambit_classify(ctx: XdpContext) -> u32 {
    answer(&ctx).0
}

#[inline(always)]
fn answer(ctx: &XdpContext) -> Answer {
    let start = ctx.data();
    if start + size_of::<Question>() > ctx.data_end() {
        return Answer::UNREADABLE;
    }
    // SAFETY: the data are as long as a question, which is made of integers. They begin on a page.
    let question = unsafe { &*(start as *const Question) };
    let judgement = judge_connection(
        question.set,
        question.identity,
        &question.source,
        &question.destination,
    );
    match judgement {
        Some(judgement) => Answer::new(judgement),
        None => Answer::INCOMPLETE,
    }
}

/// Look-ups of one run: as many as the verifier follows. Each group has one that holds the entry for
/// long.
const GROUPS: u32 = 64;
const QUICK_LOOKUPS: u32 = 7;

/// Helper calls between the first and the last read of an entry that is held for long.
const PAUSE: u32 = 200;

#[xdp]
pub fn ambit_watch(ctx: XdpContext) -> u32 {
    let start = ctx.data();
    if start + size_of::<NetnsCookie>() > ctx.data_end() {
        return Sightings::UNREADABLE.0;
    }
    // SAFETY: the data are as long as a cookie. They begin on a page.
    let netns = unsafe { *(start as *const NetnsCookie) };
    let mut sightings = Sightings::NONE;
    for _ in 0..GROUPS {
        for _ in 0..QUICK_LOOKUPS {
            sightings = look(netns, 0, sightings);
        }
        sightings = look(netns, PAUSE, sightings);
    }
    sightings.0
}

#[inline(always)]
fn look(netns: NetnsCookie, pause: u32, seen: Sightings) -> Sightings {
    match pods::find(netns) {
        Enrolment::Pod(pod) if is_whole(pod, pause) => seen,
        Enrolment::Pod(_) | Enrolment::Broken => seen.and_torn(),
        Enrolment::None => seen.and_missed(),
    }
}

/// Whether the first part of an entry belongs to its last: the test makes both from one number.
#[inline(always)]
fn is_whole(pod: &PodEntry, pause: u32) -> bool {
    // SAFETY: the reference is valid. Read one after the other, whatever else the compiler sees.
    let first = unsafe { (&raw const pod.generation).read_volatile() };
    for _ in 0..pause {
        core::hint::black_box(now_ns());
    }
    // SAFETY: as above.
    let last = unsafe { (&raw const pod.primary_v6).read_volatile() };
    first.0 as u32 == last.v6_be()[3]
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
