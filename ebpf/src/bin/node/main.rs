//! The node's programs: attached once, to the cgroup below which every pod runs.
#![no_std]
#![no_main]

mod agent_process;
mod agents;
mod connect;
mod maps;
mod names;
mod outcome;
mod own;
mod socket;
mod transfer;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
