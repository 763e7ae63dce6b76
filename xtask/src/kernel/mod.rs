//! `cargo xtask test --kernel SERIES`: the end-to-end tests on another kernel, Debian's of that
//! series, booted by virtme-ng in an emulated machine that shares this one's files.

mod image;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::process::{output_of, say};
use crate::setup::ENVOY;
use crate::test::Counts;
use crate::workspace;
use image::Image;

/// Cargo's kinds of what the tests run: the programs of the lab, and the test files.
const PROGRAM: &str = "bin";
const TEST: &str = "test";

/// The folder in which the emulated machine keeps copies: its view of this machine's files is slow.
const COPY: &str = "/run/ambit-bin";

/// The file that the emulated machine leaves if every test program succeeded.
const SUCCESS: &str = "succeeded";

/// How often the output is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs test files by name, or all of them.
///
/// # Errors
///
/// If the kernel cannot be fetched or booted.
pub(crate) fn run(series: &str, names: &[String]) -> Result<ExitCode> {
    let image = Image::fetch(series)?;
    let built = Built::new(names)?;
    let output = image.directory().join("output.log");
    let ended = image.directory().join("ended");
    for stale in [&output, &ended] {
        if stale.exists() {
            fs::remove_file(stale)?;
        }
    }
    File::create(&output)?;
    let script = image.directory().join("guest.sh");
    fs::write(
        &script,
        built.script(&image.search_path()?, &output, &ended),
    )?;
    say("test", &format!("booting Linux {}", image.version()));
    let counts = follow(image.boot(&script)?, &output)?;
    ensure!(
        ended.exists(),
        "the emulated machine ended before the tests did; what it said is in {}",
        image.console().display()
    );
    println!("on Linux {}: {counts}", image.version());
    // One that crashed has no line to be counted.
    ensure!(
        fs::read_to_string(&ended)?.trim() == SUCCESS,
        "not every test program ended as it should"
    );
    Ok(counts.exit_code())
}

/// What cargo has built of the tests.
struct Built {
    tests: Vec<PathBuf>,
    programs: Vec<PathBuf>,
}

impl Built {
    fn new(names: &[String]) -> Result<Self> {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(workspace::root());
        cargo.args(["test", "--package", "ambit-tests", "--no-run"]);
        cargo.arg("--message-format=json-render-diagnostics");
        let mut built = Self {
            tests: Vec::new(),
            programs: Vec::new(),
        };
        for line in output_of(&mut cargo)?.lines() {
            let artifact: Value = serde_json::from_str(line)?;
            let Some(path) = artifact["executable"].as_str() else {
                continue;
            };
            let (kind, name) = (&artifact["target"]["kind"][0], &artifact["target"]["name"]);
            let is_test = artifact["profile"]["test"] == true;
            if kind == PROGRAM && !is_test {
                built.programs.push(path.into());
            } else if kind == TEST && (names.is_empty() || names.iter().any(|own| name == own)) {
                built.tests.push(path.into());
            }
        }
        if built.tests.is_empty() {
            bail!("no file of tests/tests has one of the names {names:?}");
        }
        Ok(built)
    }

    /// The script of the emulated machine.
    fn script(&self, path: &OsStr, output: &Path, ended: &Path) -> String {
        let agent = workspace::agent_binary();
        let copied = self.programs.iter().chain([&agent]);
        let copies: String = copied
            .map(|path| format!("cp '{}' {COPY}/\n", path.display()))
            .collect();
        let tests: String = self
            .tests
            .iter()
            .map(|path| {
                let path = path.display();
                format!("cp '{path}' {COPY}/deps/test && {COPY}/deps/test || outcome=failed\n")
            })
            .collect();
        format!(
            "exec >'{}' 2>&1\n\
             mount -t bpf bpf /sys/fs/bpf\n\
             ip link set lo up\n\
             mkdir -p {COPY}/deps\n\
             {copies}\
             export AMBIT_BINARY={COPY}/ambit AMBIT_ENVOY='{envoy}' AMBIT_SLOWNESS=6 PATH='{path}'\n\
             outcome={SUCCESS}\n\
             {tests}\
             echo $outcome >'{}'\n\
             sync\n",
            output.display(),
            ended.display(),
            envoy = ENVOY.path().display(),
            path = path.display(),
        )
    }
}

/// Passes on what the tests say until the machine ends, and counts them.
fn follow(mut machine: Child, output: &Path) -> Result<Counts> {
    let mut lines = BufReader::new(File::open(output)?);
    let mut counts = Counts::default();
    let mut line = String::new();
    loop {
        let ended = machine.try_wait()?.is_some();
        while lines.read_line(&mut line).context("reading the output")? > 0 {
            if !line.ends_with('\n') {
                break;
            }
            print!("{line}");
            counts.add_line(line.trim_end());
            line.clear();
        }
        if ended {
            return Ok(counts);
        }
        thread::sleep(LOOK_EVERY);
    }
}

impl Image {
    fn console(&self) -> PathBuf {
        self.directory().join("console.log")
    }

    /// Starts a machine that runs a script as root and powers off.
    fn boot(&self, script: &Path) -> Result<Child> {
        let console = File::create(self.console())?;
        Command::new(self.virtme())
            .arg("--verbose")
            .arg("--run")
            .arg(self.kernel())
            // A nested machine with KVM is not everywhere, and this is to be the same everywhere.
            .args(["--disable-kvm", "--user", "root", "--rwdir"])
            .arg(self.directory())
            .args(["--memory", "6G", "--cpus", "2", "--exec"])
            .arg(format!("bash '{}'", script.display()))
            .env("PATH", self.search_path()?)
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .spawn()
            .context("cannot start virtme-ng")
    }
}
