//! Programs for `cargo xtask bench`: they count the system calls of some processes, and the bytes that these
//! calls copy between a process and the kernel. The agent neither embeds nor loads them.
//!
//! | program | at the raw tracepoint | does |
//! |---|---|---|
//! | `ambit_call_begins` | `sys_enter` | counts the call, and remembers it if it copies bytes |
//! | `ambit_call_ends` | `sys_exit` | adds the result of a remembered call |
//!
//! The return value of such a program means nothing.
#![no_std]
#![no_main]

use aya_ebpf::Global;
use aya_ebpf::bindings::bpf_pidns_info;
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_get_ns_current_pid_tgid};
use aya_ebpf::macros::{btf_map, raw_tracepoint};
use aya_ebpf::programs::RawTracePointContext;

/// The pid namespace in which the processes have their ids: device and inode of its file.
#[unsafe(no_mangle)]
static PID_NAMESPACE: Global<[u64; 2]> = Global::new([0; 2]);

/// The processes whose calls are counted.
#[btf_map]
static COUNTED: HashMap<u32, u8, 64> = HashMap::new();

/// By the number of a call: the figure of [`TALLY`] to which its result is added, or 0 for none.
#[btf_map]
static ADDED_TO: Array<u32, 1024> = Array::new();

/// By thread: the figure to which the result of its present call will be added.
#[btf_map]
static BEGUN: HashMap<u64, u32, 4096> = HashMap::new();

/// Calls, and bytes by direction.
#[btf_map]
static TALLY: PerCpuArray<u64, 3> = PerCpuArray::new();

const CALLS: u32 = 0;

#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn ambit_call_begins(ctx: RawTracePointContext) -> i32 {
    let number: u64 = ctx.arg(1);
    if !is_counted() {
        return 0;
    }
    add(CALLS, 1);
    if let Some(&figure) = ADDED_TO.get(number as u32)
        && figure != CALLS
    {
        // It fails only if more threads are in such a call than the map holds: the figure is then too small.
        let _ = BEGUN.insert(bpf_get_current_pid_tgid(), figure, 0);
    }
    0
}

#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn ambit_call_ends(ctx: RawTracePointContext) -> i32 {
    let result: i64 = ctx.arg(1);
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: the entry is this thread's own, and is copied before it is removed.
    let Some(figure) = unsafe { BEGUN.get(thread) }.copied() else {
        return 0;
    };
    let _ = BEGUN.remove(thread);
    if result > 0 {
        add(figure, result as u64);
    }
    0
}

#[inline(always)]
fn is_counted() -> bool {
    let [device, inode] = PID_NAMESPACE.load();
    let mut ids = bpf_pidns_info { pid: 0, tgid: 0 };
    let size = size_of::<bpf_pidns_info>() as u32;
    // SAFETY: `ids` has this size.
    let failure = unsafe { bpf_get_ns_current_pid_tgid(device, inode, &mut ids, size) };
    failure == 0 && COUNTED.get_ptr(ids.tgid).is_some()
}

#[inline(always)]
fn add(figure: u32, more: u64) {
    if let Some(sum) = TALLY.get_ptr_mut(figure) {
        // SAFETY: the figure is this CPU's own, and the kernel does not preempt these programs.
        unsafe { *sum += more };
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
