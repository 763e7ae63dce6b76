//! Programs for tests and benchmarks, which run them with `BPF_PROG_TEST_RUN`. The agent neither embeds
//! nor loads them. Their return values are not XDP actions, so they must not be attached. They count and
//! report nothing.
//!
//! `ambit_classify` gives the verdict of the hooks on a connection. Its input is a [`ClassifierInput`], its
//! return value a [`ClassifierOutput`]:
//!
//! | input and maps | return value |
//! |---|---|
//! | shorter than a [`ClassifierInput`] | `ClassifierOutput::UNREADABLE` |
//! | the set, the identity's bits in it, or a prefix is missing | `ClassifierOutput::INCOMPLETE` |
//! | otherwise | the verdict and the alternative that decided |
//!
//! `ambit_watch` looks one pod up many times. Its input is a [`NetnsCookie`]. Its return value is a
//! [`Sightings`]: how often the pod's entry was missing, and how often it was seen in part.
#![no_std]
#![no_main]

use ambit_common::{ClassifierInput, ClassifierOutput, NetnsCookie, PodEntry, Sightings};
use ambit_ebpf::pods::{self, PodLookup};
use ambit_ebpf::report::now_ns;
use ambit_ebpf::verdict::judge_connection;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

/// An XDP program, because its test run passes the data on as they are, whatever their form.
#[xdp]
pub fn ambit_classify(ctx: XdpContext) -> u32 {
    classify(&ctx).0
}

#[inline(always)]
fn classify(ctx: &XdpContext) -> ClassifierOutput {
    let start = ctx.data();
    if start + size_of::<ClassifierInput>() > ctx.data_end() {
        return ClassifierOutput::UNREADABLE;
    }
    // SAFETY: the data are as long as the input, which is made of integers. They begin at a page.
    let question = unsafe { &*(start as *const ClassifierInput) };
    let judgement = judge_connection(
        question.set,
        question.identity,
        &question.source,
        &question.destination,
    );
    match judgement {
        Some(judgement) => ClassifierOutput::new(judgement),
        None => ClassifierOutput::INCOMPLETE,
    }
}

/// Look-ups of one run: as many as the verifier accepts. In each group, one look-up holds the entry for a
/// long time.
const GROUPS: u32 = 64;
const QUICK_LOOKUPS: u32 = 7;

/// Helper calls between the first and the last read of an entry that is held for a long time.
const PAUSE: u32 = 200;

#[xdp]
pub fn ambit_watch(ctx: XdpContext) -> u32 {
    let start = ctx.data();
    if start + size_of::<NetnsCookie>() > ctx.data_end() {
        return Sightings::UNREADABLE.0;
    }
    // SAFETY: the data are as long as a cookie. They begin at a page.
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
        PodLookup::Enrolled(pod) if is_whole(pod, pause) => seen,
        PodLookup::Enrolled(_) | PodLookup::EntryMissing => seen.and_torn(),
        PodLookup::NotEnrolled => seen.and_missed(),
    }
}

/// Whether the first and the last part of an entry belong together: the test makes both from one number.
#[inline(always)]
fn is_whole(pod: &PodEntry, pause: u32) -> bool {
    // SAFETY: the reference is valid. Volatile reads keep their order.
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
