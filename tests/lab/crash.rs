//! Killing an agent at a chosen step of what it tells the kernel.

use std::process::Command;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::agent::Agent;
use crate::lab::Lab;
use crate::process::Process;

/// What an agent is started by to be stopped before its first instruction.
pub(crate) const STOPPED: [&str; 3] = ["sh", "-c", "kill -STOP $$; exec \"$0\" \"$@\""];

/// A tracer that kills an agent as soon as one of its threads begins its so many-th bpf(2) from now
/// on. Everything that an agent changes in the kernel is one: these are all moments that differ.
pub struct Crash(Process);

impl Crash {
    /// Begins to count.
    ///
    /// # Errors
    ///
    /// Where strace cannot be started, or the agent has ended.
    pub fn at_bpf_call(lab: &Lab, agent: &Agent, number: u32) -> Result<Self> {
        let id = agent.id().context("the agent has ended")?;
        let mut command = Command::new("strace");
        command
            .args(["-f", "-p", &id.to_string(), "-e", "trace=bpf", "-e"])
            .arg(format!("inject=bpf:signal=SIGKILL:when={number}"));
        let mut tracer = Process::start(&mut command, &lab.new_log("strace")?)?;
        tracer.wait_for_line("strace attached", |line| {
            line.contains(" attached").then_some(())
        })?;
        Ok(Self(tracer))
    }

    /// Stops counting, and leaves the agent alone.
    ///
    /// # Errors
    ///
    /// Where the tracer does not end.
    pub fn call_off(mut self) -> Result<()> {
        if self.0.is_running() {
            // It has inherited that other signals are blocked. The agent goes on: the kernel detaches
            // what a tracer leaves behind.
            self.0.end(Signal::SIGKILL)?;
        }
        Ok(())
    }
}
