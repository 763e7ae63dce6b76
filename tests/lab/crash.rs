//! Kills an agent at a chosen call to the kernel.

use std::process::Command;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::agent::Agent;
use crate::lab::Lab;
use crate::process::Process;

/// A command that starts an agent stopped before its first instruction.
pub(crate) const STOPPED: [&str; 3] = ["sh", "-c", "kill -STOP $$; exec \"$0\" \"$@\""];

/// A tracer that kills an agent as soon as its threads begin the n-th bpf(2) from now on. An agent
/// changes the kernel only by bpf(2), so these are all the states that differ.
pub struct Crash(Process);

impl Crash {
    /// Begins to count.
    ///
    /// # Errors
    ///
    /// If strace cannot be started, or the agent has ended.
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

    /// Stops counting, and detaches from the agent.
    ///
    /// # Errors
    ///
    /// If the tracer does not end.
    pub fn call_off(mut self) -> Result<()> {
        if self.0.is_running() {
            // It has inherited a mask that blocks other signals. The agent continues: the kernel
            // detaches the tracees of a dead tracer.
            self.0.end(Signal::SIGKILL)?;
        }
        Ok(())
    }
}
