//! The node's programs. They are attached once, to the cgroup above all pods.
#![no_std]
#![no_main]

mod agent;
mod agent_connect;
mod connect;
mod dialled;
mod listener;
mod maps;
mod names;
mod sock_ops;
mod socket;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
