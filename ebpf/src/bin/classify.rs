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
#![no_std]
#![no_main]

use ambit_common::{Answer, Question};
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

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
