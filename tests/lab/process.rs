//! Runs processes to their end, or while their guard lives.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::run::creating;
use crate::wait::{SOON, eventually};

/// The result of a process.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

/// Runs a command to its end.
///
/// # Errors
///
/// If it cannot be started, or has not ended after twenty seconds (it is killed then).
pub fn output(command: &mut Command) -> Result<Outcome> {
    output_within(SOON, command)
}

/// Runs a command to its end, which may take some time, for example a compiler.
///
/// # Errors
///
/// If it cannot be started, or has not ended within `limit` (it is killed then).
pub fn output_within(limit: Duration, command: &mut Command) -> Result<Outcome> {
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?);
    let mut child = spawn(command)?;
    let ended = eventually(limit, "the end of a command", || {
        child.try_wait().transpose()
    });
    if ended.is_err() {
        child.kill()?;
        child.wait()?;
    }
    Ok(Outcome {
        status: ended.with_context(|| format!("{command:?}"))??,
        stdout: read_back(&mut stdout)?,
        stderr: read_back(&mut stderr)?,
    })
}

fn read_back(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn spawn(command: &mut Command) -> Result<Child> {
    let _gate = creating();
    command
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))
}

/// A process in the background, with its output in a file. Dropping it kills it, unless
/// [`Process::leave`] was called.
#[derive(Debug)]
pub struct Process {
    child: Option<Child>,
    log: PathBuf,
}

impl Process {
    /// Starts a command whose output goes to `log`.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        command.stdout(file.try_clone()?).stderr(file);
        Ok(Self {
            child: Some(spawn(command)?),
            log: log.to_owned(),
        })
    }

    /// Its whole output.
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Waits until its output has a complete line in which `find` finds something.
    ///
    /// # Errors
    ///
    /// If it ends first, or there is no such line after twenty seconds.
    pub fn wait_for_line<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> Result<T> {
        self.wait_until(what, |process| {
            let log = process.log();
            let complete = &log[..log.rfind('\n')?];
            complete.lines().find_map(&find)
        })
    }

    /// Calls `look` until it finds something.
    ///
    /// # Errors
    ///
    /// If the process ends first, or twenty seconds pass.
    pub fn wait_until<T>(&mut self, what: &str, look: impl Fn(&Self) -> Option<T>) -> Result<T> {
        let found = eventually(SOON, what, || {
            // In this order: when its end is seen, its last output is there.
            let ended = self.ended();
            look(self).map(Ok).or(ended.map(Err))
        });
        match found {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(status)) => bail!("{what}: ended first, {status}; it said: {}", self.log()),
            Err(late) => Err(late.context(format!("it said: {}", self.log()))),
        }
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.ended().is_none()
    }

    /// Its id.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Its standard input, if the command asked for a pipe; once.
    pub(crate) fn take_stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.as_mut()?.stdin.take()
    }

    /// Sends a signal and waits for the end.
    ///
    /// # Errors
    ///
    /// If it does not end within twenty seconds.
    pub fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        let id = self.id().context("the process was left to itself")?;
        kill(Pid::from_raw(id.cast_signed()), signal)?;
        self.wait_for_end()
    }

    /// Waits for the end.
    ///
    /// # Errors
    ///
    /// If it does not end within twenty seconds.
    pub fn wait_for_end(&mut self) -> Result<ExitStatus> {
        eventually(SOON, "the end of a process", || self.ended())
    }

    /// Leaves it running when this is dropped.
    pub fn leave(mut self) {
        self.child = None;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
