//! The tools that measure: iperf3, wrk against nginx, and sockperf.

use std::fs;
use std::process::Command;

use ambit_tests::{Lab, Pod, Process, output};
use anyhow::{Context, Result, ensure};

use super::stretch::Stretch;

/// How long one measurement takes, in seconds.
const SECONDS: &str = "3";

/// The unit in which requests are counted.
const REQUESTS: f64 = 100_000.0;

const IPERF: u16 = 5201;
pub(super) const NGINX: u16 = 8080;
const SOCKPERF: u16 = 11111;

/// Where the servers listen.
pub(super) const PORTS: [u16; 3] = [IPERF, NGINX, SOCKPERF];

/// Something that is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Measure {
    /// Bytes per second over this many streams.
    Throughput(Streams, Towards),
    /// HTTP requests per second, on connections that are kept or not.
    Requests(Connections),
    /// Microseconds for 1 KiB there and back, at a percentile.
    PingPong(Percentile),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Streams {
    One,
    Eight,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Towards {
    Server,
    Caller,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Connections {
    Kept,
    New,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Percentile {
    P50,
    P99,
}

/// The result of one measurement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    /// In the measure's unit.
    pub(super) value: f64,
    /// The work done meanwhile, in the measure's unit.
    pub(super) work: f64,
}

/// All of it, in the order of the table.
pub(super) const MEASURES: [Measure; 8] = [
    Measure::Throughput(Streams::One, Towards::Server),
    Measure::Throughput(Streams::One, Towards::Caller),
    Measure::Throughput(Streams::Eight, Towards::Server),
    Measure::Throughput(Streams::Eight, Towards::Caller),
    Measure::Requests(Connections::Kept),
    Measure::Requests(Connections::New),
    Measure::PingPong(Percentile::P50),
    Measure::PingPong(Percentile::P99),
];

impl Measure {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Throughput(Streams::One, Towards::Server) => "1 stream, to the server",
            Self::Throughput(Streams::One, Towards::Caller) => "1 stream, to the caller",
            Self::Throughput(Streams::Eight, Towards::Server) => "8 streams, to the server",
            Self::Throughput(Streams::Eight, Towards::Caller) => "8 streams, to the caller",
            Self::Requests(Connections::Kept) => "requests, kept connections",
            Self::Requests(Connections::New) => "requests, new connections",
            Self::PingPong(Percentile::P50) => "1 KiB ping-pong, p50",
            Self::PingPong(Percentile::P99) => "1 KiB ping-pong, p99",
        }
    }

    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Throughput(..) => "Gbit/s",
            Self::Requests(_) => "/s",
            Self::PingPong(_) => "µs",
        }
    }

    /// The unit by which system calls and copied bytes are divided.
    pub(super) fn piece(self) -> &'static str {
        match self {
            Self::Throughput(..) => "MB",
            Self::Requests(Connections::New) => "connection",
            Self::Requests(Connections::Kept) | Self::PingPong(_) => "request",
        }
    }

    /// How many of these are a unit of work.
    pub(super) fn pieces(self) -> f64 {
        match self {
            Self::Throughput(..) => 1000.0,
            Self::Requests(_) | Self::PingPong(_) => REQUESTS,
        }
    }

    /// The unit by which the proxies' processor time is divided.
    pub(super) fn unit_of_work(self) -> &'static str {
        match self {
            Self::Throughput(..) => "GB",
            Self::Requests(_) | Self::PingPong(_) => "100,000 requests",
        }
    }

    /// Takes it once.
    pub(super) fn take(self, lab: &Lab, stretch: &Stretch<'_>) -> Result<Taken> {
        match self {
            Self::Throughput(streams, towards) => iperf(stretch, streams, towards),
            Self::Requests(connections) => wrk(stretch, connections),
            Self::PingPong(percentile) => sockperf(lab, stretch, percentile),
        }
        .with_context(|| self.name())
    }
}

/// Starts in a pod what the measurements call.
pub(super) fn serve(lab: &Lab, pod: &Pod) -> Result<[Process; 3]> {
    let ip = pod.ip(ambit_tests::Family::V4);
    let directory = lab.directory().join(pod.name());
    let configuration = directory.join("nginx.conf");
    fs::write(
        &configuration,
        format!(
            "daemon off;\nworker_processes 1;\nuser root;\npid nginx.pid;\nerror_log stderr notice;\n\
             events {{ worker_connections 16384; }}\n\
             http {{\naccess_log off;\nkeepalive_requests 1000000000;\n\
             server {{ listen {ip}:{NGINX} backlog=16384; location / {{ return 200 \"hello\"; }} }}\n}}\n"
        ),
    )?;
    let log = |tool: &str| directory.join(format!("{tool}.log"));
    let start = |tool: &str, command: &mut Command| Process::start(command, &log(tool));
    let mut nginx = pod.command("nginx")?;
    nginx.args(["-e", "stderr", "-p"]).arg(&directory);
    nginx.arg("-c").arg(&configuration);
    let mut iperf = pod.command("iperf3")?;
    iperf.args(["--server", "--port", &IPERF.to_string(), "--forceflush"]);
    let mut sockperf = pod.command("sockperf")?;
    sockperf.args(["server", "--tcp", "--ip", &ip.to_string()]);
    sockperf.args(["--port", &SOCKPERF.to_string()]);
    let mut servers = [
        start("nginx", &mut nginx)?,
        start("iperf3", &mut iperf)?,
        start("sockperf", &mut sockperf)?,
    ];
    let ready = [
        "start worker process",
        "Server listening",
        "to block on socket",
    ];
    for (server, words) in servers.iter_mut().zip(ready) {
        server.wait_for_line(words, |line| line.contains(words).then_some(()))?;
    }
    Ok(servers)
}

fn iperf(stretch: &Stretch<'_>, streams: Streams, towards: Towards) -> Result<Taken> {
    let mut command = stretch.from.command("iperf3")?;
    command.args(["--client", &stretch.to.to_string()]);
    command.args(["--port", &IPERF.to_string(), "--time", SECONDS, "--json"]);
    let streams = match streams {
        Streams::One => "1",
        Streams::Eight => "8",
    };
    command.args(["--parallel", streams]);
    if towards == Towards::Caller {
        command.arg("--reverse");
    }
    let said: serde_json::Value = serde_json::from_str(&run(&mut command)?)?;
    let received = &said["end"]["sum_received"];
    let figure = |name: &str| {
        let figure = received[name].as_f64();
        figure.with_context(|| format!("iperf3 says no {name}"))
    };
    Ok(Taken {
        value: figure("bits_per_second")? / 1e9,
        work: figure("bytes")? / 1e9,
    })
}

fn wrk(stretch: &Stretch<'_>, connections: Connections) -> Result<Taken> {
    let mut command = stretch.from.command("wrk")?;
    command.args(["-t1", "-c16", "-d", SECONDS]);
    if connections == Connections::New {
        command.args(["-H", "Connection: close"]);
    }
    command.arg(format!("http://{}:{NGINX}/", stretch.to));
    let said = run(&mut command)?;
    ensure!(!said.contains("Non-2xx"), "wrk: {said}");
    Ok(Taken {
        value: number_after(&said, "Requests/sec:")?,
        work: number_before(&said, "requests in")? / REQUESTS,
    })
}

fn sockperf(lab: &Lab, stretch: &Stretch<'_>, percentile: Percentile) -> Result<Taken> {
    let mut command = stretch.from.command("sockperf")?;
    command.current_dir(lab.directory());
    command.args(["ping-pong", "--tcp", "--ip", &stretch.to.to_string()]);
    command.args(["--port", &SOCKPERF.to_string()]);
    command.args(["--msg-size", "1024", "--time", SECONDS, "--full-rtt"]);
    let said = run(&mut command)?;
    let label = match percentile {
        Percentile::P50 => "percentile 50.000 =",
        Percentile::P99 => "percentile 99.000 =",
    };
    Ok(Taken {
        value: number_after(&said, label)?,
        work: number_after(&said, "ReceivedMessages=")? / REQUESTS,
    })
}

fn run(command: &mut Command) -> Result<String> {
    let outcome = output(command)?;
    ensure!(
        outcome.status.success(),
        "{command:?}: {} {}",
        outcome.stdout,
        outcome.stderr
    );
    Ok(outcome.stdout)
}

fn number_after(text: &str, label: &str) -> Result<f64> {
    let (_, after) = parts(text, label)?;
    number(after.split([' ', ';', '\n']).find(|word| !word.is_empty()))
}

fn number_before(text: &str, label: &str) -> Result<f64> {
    let (before, _) = parts(text, label)?;
    number(before.split_whitespace().next_back())
}

fn parts<'a>(text: &'a str, label: &str) -> Result<(&'a str, &'a str)> {
    text.split_once(label)
        .with_context(|| format!("no {label:?} in: {text}"))
}

fn number(word: Option<&str>) -> Result<f64> {
    let word = word.unwrap_or_default();
    word.parse()
        .with_context(|| format!("{word:?} is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_in_what_the_tools_say() -> Result<()> {
        let wrk = "  301 requests in 3.00s, 40KB read\nRequests/sec:   100.33\n";
        assert_eq!(number_before(wrk, "requests in")?, 301.0);
        assert_eq!(number_after(wrk, "Requests/sec:")?, 100.33);
        let sockperf = "[Valid Duration] RunTime=2.5 sec; SentMessages=7; ReceivedMessages=6\n";
        assert_eq!(number_after(sockperf, "SentMessages=")?, 7.0);
        assert_eq!(number_after(sockperf, "ReceivedMessages=")?, 6.0);
        Ok(())
    }
}
