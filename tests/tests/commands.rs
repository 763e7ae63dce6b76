//! The commands in odd situations: names that contain commands for a terminal, readers that leave,
//! agents that do not answer, files of other editors.

use std::fs;
use std::io::{Read, pipe};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use ambit_tests::{
    Agent, Lab, NodeName, Outcome, PodSpec, Reference, SOON, ambit, binary, eventually, output,
    run_tests, slowness, tests,
};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn main() -> ExitCode {
    run_tests(tests![
        what_objects_say_gives_no_terminal_a_command,
        a_reader_that_has_left_is_not_an_error,
        a_stopped_agent_is_not_awaited_forever,
        files_with_a_byte_order_mark_are_read,
    ])
}

/// Commands that ask an agent.
const ASKING: [&str; 6] = [
    "status",
    "workloads",
    "policies",
    "connections",
    "certs",
    "events",
];

const FORMATS: [&str; 3] = ["table", "json", "yaml"];

/// Text that would colour a terminal, begin a line with a command of a CI system, and reverse text.
const EVIL: &str = "evil\n::error::forged\u{1b}[31m\u{9b}2J\u{7f}\u{202e}\u{2066}\u{2028}\r";

/// The part of it that is shown.
const FORGED: &str = "::error::forged";

/// The API group of policies.
const POLICIES: &str = "security.istio.io/v1";

/// The part that a file name may contain.
const EVIL_FILE: &str = "evil\n::error::forged\u{1b}[31m\u{202e}.yaml";

/// Characters that a terminal or a CI system would obey, except the end of a line.
fn is_raw(character: char) -> bool {
    character != '\n'
        && (character.is_control()
            || matches!(
                character,
                '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            ))
}

/// Whether this output contains nothing unsafe from outside.
fn ensure_harmless(what: &str, text: &str) -> Result<()> {
    ensure!(!text.contains(is_raw), "{what}: {text:?}");
    let mut lines = text.lines();
    let forged = lines.find(|line| line.trim_start().starts_with("::error"));
    ensure!(forged.is_none(), "{what}: {text}");
    Ok(())
}

fn ensure_output_harmless(what: &str, outcome: &Outcome) -> Result<()> {
    ensure_harmless(what, &outcome.stdout)?;
    ensure_harmless(what, &outcome.stderr)
}

/// Objects of `orders` with evil names and annotations.
fn evil_objects(specs: &[(&str, &str, Value)]) -> Result<String> {
    let objects = specs.iter().map(|(kind, version, spec)| {
        serde_norway::to_string(&json!({
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": EVIL, "namespace": "orders", "labels": {"evil": EVIL},
                         "annotations": {"ambit.mesh/netns": format!("/run/{EVIL}")}},
            "spec": spec,
        }))
    });
    Ok(objects.collect::<Result<Vec<_>, _>>()?.join("---\n"))
}

/// Objects that are right except for a pod's network namespace, and one of an unknown kind.
fn right_objects() -> Result<String> {
    let rules = json!({"rules": [{"to": [{"operation": {"paths": [format!("/{EVIL}")]}}]}]});
    evil_objects(&[
        ("Pod", "v1", json!({"nodeName": NodeName::A.as_str()})),
        ("AuthorizationPolicy", POLICIES, rules),
        (
            "PeerAuthentication",
            POLICIES,
            json!({"mtls": {"mode": "STRICT"}}),
        ),
        (EVIL, "example.org/v1", json!({})),
    ])
}

/// Invalid objects.
fn broken_objects() -> Result<String> {
    let ports = json!({"rules": [{"to": [{"operation": {"ports": [EVIL]}}]}]});
    evil_objects(&[
        ("Pod", "v1", json!({"serviceAccountName": EVIL})),
        ("AuthorizationPolicy", POLICIES, ports),
        (
            "PeerAuthentication",
            POLICIES,
            json!({"mtls": {"mode": EVIL}, EVIL: EVIL}),
        ),
    ])
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the path is not UTF-8")
}

fn what_objects_say_gives_no_terminal_a_command(lab: &Lab) -> Result<()> {
    let _mesh = Reference::build(lab)?;
    // Like the others, but with a log in text format.
    let as_text = ["bash", "-c", "exec \"$0\" \"${@/#json/text}\""];
    let mut agent = lab.launch_agent_by(NodeName::A, &as_text)?;
    lab.wait_until_serving(&mut agent)?;
    let peer = lab.start_agent(NodeName::B)?;
    let manifests = lab.manifests();
    manifests.write("right.yaml", &right_objects()?)?;
    manifests.write("broken.yaml", &broken_objects()?)?;
    manifests.write(EVIL_FILE, "kind: [")?;
    for agent in [&agent, &peer] {
        eventually(SOON, "the evil objects", || {
            let shown = ["status", "workloads", "policies"];
            let mut shown = shown.iter().map(|verb| agent.ask(verb));
            let all = shown.all(|answer| answer.is_ok_and(|it| it.to_string().contains(FORGED)));
            all.then_some(())
        })?;
    }
    for agent in [&agent, &peer] {
        each_answer_is_harmless(agent)?;
        ensure_harmless("the log", &agent.log())?;
        ensure!(agent.log().contains(FORGED), "{}", agent.log());
    }
    let directory = text(manifests.directory())?;
    for format in FORMATS {
        let outcome = ambit(&["validate", "-o", format, "-f", directory])?;
        ensure_output_harmless(&format!("validate -o {format}"), &outcome)?;
        ensure!(outcome.stdout.contains(FORGED), "{outcome:?}");
    }
    let unheard = ambit(&["status", "--socket", EVIL])?;
    ensure_output_harmless("an error", &unheard)?;
    ensure_output_harmless("a wrong option", &ambit(&["status", "--evil", EVIL])?)
}

fn each_answer_is_harmless(agent: &Agent) -> Result<()> {
    let socket = text(agent.socket())?;
    for format in FORMATS {
        for verb in ASKING {
            let outcome = ambit(&[verb, "-o", format, "--socket", socket])?;
            let what = format!("{verb} -o {format}");
            ensure!(outcome.status.success(), "{what}: {outcome:?}");
            ensure_output_harmless(&what, &outcome)?;
            let names_objects = ["workloads", "policies"].contains(&verb);
            ensure!(
                !names_objects || outcome.stdout.contains(FORGED),
                "{what}: {outcome:?}"
            );
        }
        let question = [
            "--from", "10.0.0.1", "--to", EVIL, "--port", "80", "-o", format, "--socket", socket,
        ];
        let outcome = ambit(&[&["explain"], &question[..]].concat())?;
        ensure_output_harmless("explain", &outcome)?;
    }
    Ok(())
}

/// Runs `ambit` with a standard output whose reader has left.
fn unread(arguments: &[&str]) -> Result<Outcome> {
    let (reader, writer) = pipe()?;
    drop(reader);
    // `output` sets its own standard output.
    let script = "exec \"$0\" \"$@\" 1>&0";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(binary()?).args(arguments);
    command.stdin(Stdio::from(writer));
    let mut child = command
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let mut stderr = String::new();
    let mut told = child.stderr.take().context("no standard error")?;
    told.read_to_string(&mut stderr)?;
    Ok(Outcome {
        status: child.wait()?,
        stdout: String::new(),
        stderr,
    })
}

fn a_reader_that_has_left_is_not_an_error(lab: &Lab) -> Result<()> {
    let (_mesh, [agent, _]) = Reference::start(lab)?;
    let socket = text(agent.socket())?;
    let directory = text(lab.manifests().directory())?;
    let broken = lab.directory().join("broken.yaml");
    fs::write(&broken, "kind: [")?;
    let made = lab.directory().join("new-ca");
    let mut calls: Vec<(Vec<&str>, i32)> = ASKING
        .iter()
        .map(|verb| (vec![*verb, "--socket", socket], 0))
        .collect();
    calls.push((vec!["certs", "--pem", "--socket", socket], 0));
    calls.push((vec!["check"], 0));
    calls.push((vec!["--help"], 0));
    calls.push((vec!["validate", "-f", directory], 0));
    calls.push((vec!["validate", "-f", text(&broken)?], 2));
    calls.push((vec!["ca", "init", "--dir", text(&made)?], 0));
    for (arguments, status) in calls {
        let outcome = unread(&arguments)?;
        let is_quiet = outcome.status.code() == Some(status) && outcome.stderr.is_empty();
        ensure!(is_quiet, "ambit {arguments:?}: {outcome:?}");
    }
    Ok(())
}

fn a_stopped_agent_is_not_awaited_forever(lab: &Lab) -> Result<()> {
    let (mesh, [agent, _]) = Reference::start(lab)?;
    let socket = text(agent.socket())?;
    agent.signal(Signal::SIGSTOP)?;
    let orders = format!("{}/{}", mesh.orders.namespace(), mesh.orders.name());
    let explain = [
        "explain", "--from", "10.0.0.1", "--to", &orders, "--port", "8080", "--socket", socket,
    ];
    let status = ["status", "--socket", socket];
    for arguments in [&status[..], &explain] {
        let start = Instant::now();
        let outcome = output(Command::new(binary()?).args(arguments))?;
        let took = start.elapsed();
        ensure!(
            !outcome.status.success() && outcome.stderr.contains("did not answer within 5s"),
            "{outcome:?}"
        );
        ensure!(took < Duration::from_secs(8) * slowness(), "{took:?}");
    }
    // Nor does another agent wait for it, or take its place.
    let (status, log) = lab.launch_agent(NodeName::A)?.end()?;
    ensure!(!status.success() && log.contains("another agent"), "{log}");
    agent.signal(Signal::SIGCONT)?;
    agent.ask("status").map(drop)
}

fn files_with_a_byte_order_mark_are_read(lab: &Lab) -> Result<()> {
    let (_mesh, agents) = Reference::start(lab)?;
    let manifests = lab.manifests();
    let spec = PodSpec {
        namespace: "later",
        ..PodSpec::named("later")
    };
    let later = lab.add_pod(NodeName::A, spec)?;
    let namespace = "apiVersion: v1\nkind: Namespace\n\
                     metadata: {name: later, labels: {istio.io/dataplane-mode: ambient}}\n";
    let pod = serde_norway::to_string(&later.manifest())?;
    // As editors write them, one after another.
    let marked = format!("\u{feff}{namespace}\u{feff}---\n{pod}");
    let file = lab.directory().join("marked.yaml");
    fs::write(&file, &marked)?;
    let outcome = ambit(&["validate", "-f", text(&file)?])?;
    let is_right = outcome.stdout.contains("2 objects, 0 errors");
    ensure!(outcome.status.code() == Some(0) && is_right, "{outcome:?}");
    manifests.write("marked.yaml", &marked)?;
    eventually(SOON, "the pod behind the mark", || {
        let status = agents[0].ask("status").ok()?;
        (status["pods"]["served"] == 3 && status["faults"] == json!([])).then_some(())
    })
    .with_context(|| format!("{:?}", agents[0].ask("status")))?;
    for name in ["ca-cert.pem", "ca-key.pem", "root-cert.pem"] {
        let path = lab.directory().join("ca").join(name);
        let plain = fs::read(&path)?;
        fs::write(&path, [b"\xef\xbb\xbf", &plain[..]].concat())?;
    }
    let [agent_a, _agent_b] = agents;
    agent_a.kill()?;
    lab.start_agent(NodeName::A).map(drop)
}
