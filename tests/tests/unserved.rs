//! A pod that is opted in and not served is closed in both directions; a network namespace stays with the pod
//! that it was given to; annotations take no pod out of the mesh.

use std::fs;
use std::path::Path;
use std::process::{Child, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ambit_tests::{
    Agent, CaServer, Capture, Lab, LabServer, Membership, Mode, NodeName, Place, Pod, PodSpec,
    Reference, SOON, eventually, get, get_from, run_tests, tests,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

const PORT: u16 = Reference::PORT;

/// Longer than the agent's pause between two looks at a pod that Istio's ztunnel serves.
const SECOND_LOOK: Duration = Duration::from_secs(30);

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
";

/// The annotation with the path of a pod's network namespace.
const NETNS: &str = "/metadata/annotations/ambit.mesh~1netns";

fn main() -> ExitCode {
    run_tests(tests![
        no_way_out_of_being_served_opens_a_pod,
        a_network_namespace_stays_with_the_pod_that_it_was_given_to,
        of_pods_that_name_one_network_namespace_none_is_served,
        annotations_of_istio_take_no_pod_out_of_the_mesh,
        what_an_earlier_agent_left_open_follows_policy_or_is_closed,
        a_pod_that_ends_leaves_the_kernel_at_once,
    ])
}

/// What happens to the object of a pod that is served.
type Way = (&'static str, fn(&Reference, &mut Value));

/// Ways out of being served, of which none is an opt-out.
const WAYS_OUT: [Way; 10] = [
    ("its path leads nowhere", |_, pod| {
        set(pod, NETNS, "/run/netns/ambit-nowhere".into());
    }),
    ("it names no network namespace", |_, pod| {
        pod["metadata"]["annotations"] = json!({});
    }),
    ("its path is not a network namespace", |_, pod| {
        set(pod, NETNS, "/dev/null".into());
    }),
    ("its path is the node's", |_, pod| {
        set(pod, NETNS, "/proc/1/ns/net".into());
    }),
    ("its path is another pod's", |mesh, pod| {
        set(pod, NETNS, path(&mesh.payments));
    }),
    ("it is on another node", |_, pod| {
        pod["spec"]["nodeName"] = "node-c".into();
    }),
    ("it has ended", |_, pod| {
        pod["status"]["phase"] = "Succeeded".into();
    }),
    ("it uses the node's network", |_, pod| {
        pod["spec"]["hostNetwork"] = true.into();
    }),
    ("it has a sidecar", |_, pod| {
        pod["metadata"]["annotations"]["sidecar.istio.io/status"] = "{}".into();
        pod["spec"]["containers"] = json!([{"name": "frontend"}, {"name": "istio-proxy"}]);
    }),
    ("its runtime has a kernel of its own", |_, pod| {
        pod["spec"]["runtimeClassName"] = "gvisor".into();
    }),
];

fn no_way_out_of_being_served_opens_a_pod(lab: &Lab) -> Result<()> {
    let (mesh, [agent, _other]) = Reference::start(lab)?;
    // Plaintext would be answered.
    lab.manifests().remove(Reference::POLICIES_FILE)?;
    let _orders = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    let _frontend = LabServer::in_pod(lab, &mesh.frontend, Mode::Http, PORT)?;
    served(&agent, &mesh)?;

    let capture = Capture::start(lab)?;
    let is_over = AtomicBool::new(false);
    let secret = format!("http://{}/secret", mesh.orders.at(PORT));
    let hammer = || -> Result<u32> {
        let mut answers = 0;
        while !is_over.load(Ordering::Relaxed) {
            answers += u32::from(get(mesh.frontend.place(), &secret)?.is_answer());
        }
        Ok(answers)
    };
    thread::scope(|scope| {
        let caller = scope.spawn(hammer);
        let walked = walk(lab, &agent, &mesh);
        is_over.store(true, Ordering::Relaxed);
        let answers = caller.join();
        walked?;
        let answers = answers.map_err(|_| anyhow::anyhow!("the caller panicked"))??;
        ensure!(answers > 0, "the caller was never answered");
        Ok(())
    })?;
    ensure!(
        !capture.finish()?.contains(b"GET /secret"),
        "plaintext left the pod"
    );

    lab.manifests()
        .write_namespace("frontend", Membership::None)?;
    eventually_answers(mesh.intruder.place(), &mesh.frontend)?;
    ensure!(kept(&agent)?.is_empty(), "{:?}", kept(&agent)?);
    Ok(())
}

fn walk(lab: &Lab, agent: &Agent, mesh: &Reference) -> Result<()> {
    let file = mesh.frontend.file_name();
    for (way, change) in WAYS_OUT {
        let mut changed = mesh.frontend.manifest();
        change(mesh, &mut changed);
        lab.manifests().write_object(&file, &changed)?;
        closed(agent, mesh).with_context(|| way.to_owned())?;
        lab.manifests().write_pod(&mesh.frontend)?;
        served(agent, mesh).with_context(|| format!("after: {way}"))?;
    }
    lab.manifests().remove(&file)?;
    closed(agent, mesh).context("its object is gone")?;
    lab.manifests().write_pod(&mesh.frontend)?;
    served(agent, mesh).context("its object is back")?;

    lab.manifests().remove("namespace-frontend.yaml")?;
    closed(agent, mesh).context("its Namespace is gone")?;
    lab.manifests()
        .write_namespace("frontend", Membership::Ambient)?;
    served(agent, mesh).context("its Namespace is back")
}

/// Waits until `frontend` is not served, and finds it closed both ways and shown so.
fn closed(agent: &Agent, mesh: &Reference) -> Result<()> {
    eventually(SOON, "the pod is not served", || {
        (state(agent, &mesh.frontend)? != "served").then_some(())
    })?;
    for _ in 0..3 {
        let out = get_from(mesh.frontend.place(), mesh.orders.at(PORT))?;
        ensure!(out.is_refusal(), "it calls: {out:?}");
        let inward = get_from(mesh.intruder.place(), mesh.frontend.at(PORT))?;
        ensure!(inward.is_refusal(), "it is called: {inward:?}");
    }
    eventually(SOON, "what is kept closed in the status", || {
        kept(agent).ok()?.contains(&mesh.frontend).then_some(())
    })?;
    ensure!(state(agent, &mesh.payments).as_deref() == Some("served"));
    Ok(())
}

fn served(agent: &Agent, mesh: &Reference) -> Result<()> {
    eventually(SOON, "the pod is served", || {
        (state(agent, &mesh.frontend)? == "served").then_some(())
    })?;
    eventually_answers(mesh.frontend.place(), &mesh.orders)?;
    eventually_answers(mesh.intruder.place(), &mesh.frontend)
}

fn a_network_namespace_stays_with_the_pod_that_it_was_given_to(lab: &Lab) -> Result<()> {
    let (mesh, [agent, _other]) = Reference::start(lab)?;
    let _orders = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    let keeps = |agent: &Agent| -> Result<()> {
        eventually(SOON, "the newcomer is refused", || {
            let newcomer = row(agent, "aaa/aaa")?;
            let names_owner = newcomer["reason"].as_str()?.contains("frontend/frontend");
            (newcomer["state"] == "closed" && names_owner).then_some(())
        })?;
        eventually(SOON, "the pod is served", || {
            (state(agent, &mesh.frontend)? == "served").then_some(())
        })?;
        // Only the account of `frontend` may.
        eventually_answers(mesh.frontend.place(), &mesh.orders)
    };
    write_newcomer(lab, &mesh.frontend)?;
    keeps(&agent)?;
    agent.kill()?;
    let agent = lab.spawn_agent(NodeName::A)?;
    keeps(&agent)?;

    lab.manifests().remove(&mesh.frontend.file_name())?;
    eventually(SOON, "the pod is not served", || {
        kept(&agent).ok()?.contains(&mesh.frontend).then_some(())
    })?;
    thread::sleep(Duration::from_secs(2));
    let newcomer = row(&agent, "aaa/aaa").context("the newcomer")?;
    ensure!(newcomer["state"] == "closed", "{newcomer}");
    lab.manifests().write_pod(&mesh.frontend)?;
    keeps(&agent)
}

fn of_pods_that_name_one_network_namespace_none_is_served(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    lab.manifests().remove(Reference::POLICIES_FILE)?;
    write_newcomer(lab, &mesh.frontend)?;
    let _orders = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    let _frontend = LabServer::in_pod(lab, &mesh.frontend, Mode::Http, PORT)?;
    let _other = lab.start_agent(NodeName::B)?;
    let agent = lab.spawn_agent(NodeName::A)?;
    for name in ["aaa/aaa", "frontend/frontend"] {
        eventually(SOON, "the reason", || {
            let row = row(&agent, name)?;
            let reason = row["reason"].as_str()?;
            let is_told = reason.contains("closed until only one pod names it");
            (row["state"] == "closed" && is_told).then_some(())
        })?;
    }
    let out = get_from(mesh.frontend.place(), mesh.orders.at(PORT))?;
    ensure!(out.is_refusal(), "it calls: {out:?}");
    let inward = get_from(mesh.intruder.place(), mesh.frontend.at(PORT))?;
    ensure!(inward.is_refusal(), "it is called: {inward:?}");

    lab.manifests().remove("pod-aaa.yaml")?;
    served(&agent, &mesh)
}

/// A pod `aaa/aaa` that names the network namespace of another.
fn write_newcomer(lab: &Lab, victim: &Pod) -> Result<()> {
    lab.manifests()
        .write_namespace("aaa", Membership::Ambient)?;
    let newcomer = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": "aaa",
            "name": "aaa",
            "annotations": {"ambit.mesh/netns": path(victim)},
        },
        "spec": {"nodeName": victim.node().as_str(), "containers": [{"name": "aaa"}]},
    });
    lab.manifests().write_object("pod-aaa.yaml", &newcomer)
}

fn annotations_of_istio_take_no_pod_out_of_the_mesh(lab: &Lab) -> Result<()> {
    let (mesh, [agent, _other]) = Reference::start(lab)?;
    let _orders = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    for (annotation, value) in [
        ("sidecar.istio.io/status", "{}"),
        ("ambient.istio.io/redirection", "enabled"),
    ] {
        let mut claims = mesh.frontend.manifest();
        claims["metadata"]["annotations"][annotation] = value.into();
        lab.manifests()
            .write_object(&mesh.frontend.file_name(), &claims)?;
        eventually(SOON, "the annotation has its effect", || {
            let is_left = state(&agent, &mesh.frontend)? != "served";
            let faults = agent.ask("status").ok()?["faults"].to_string();
            let is_told = faults.contains(&format!("annotation {annotation} is ignored"));
            (is_left || is_told).then_some(())
        })?;
        let state = state(&agent, &mesh.frontend);
        ensure!(
            state.as_deref() == Some("served"),
            "{annotation}: {state:?}"
        );
        eventually_answers(mesh.frontend.place(), &mesh.orders)?;
    }

    let pod = lab.add_pod(NodeName::A, PodSpec::named("istios"))?;
    let _server = LabServer::in_pod(lab, &pod, Mode::Http, PORT)?;
    let ztunnel = ListenersInside::of(&lab.node(NodeName::A)?, &pod)?;
    lab.manifests()
        .write_namespace("istios", Membership::Ambient)?;
    let mut claims = pod.manifest();
    claims["metadata"]["annotations"]["ambient.istio.io/redirection"] = "enabled".into();
    lab.manifests().write_object(&pod.file_name(), &claims)?;
    eventually(SOON, "the pod is left to Istio", || {
        (state(&agent, &pod)? == "left to Istio").then_some(())
    })?;
    ensure!(agent.ask("status")?["ready"] == true);
    ensure!(get_from(mesh.intruder.place(), pod.at(PORT))?.is_answer());
    drop(ztunnel);
    eventually(SECOND_LOOK, "the pod is taken in", || {
        (state(&agent, &pod)? == "served").then_some(())
    })?;
    let plaintext = get_from(mesh.intruder.place(), pod.at(PORT))?;
    ensure!(plaintext.is_refusal(), "{plaintext:?}");
    Ok(())
}

/// An agent that cannot get certificates cannot serve the pods that its predecessor served.
fn what_an_earlier_agent_left_open_follows_policy_or_is_closed(lab: &Lab) -> Result<()> {
    let ca = CaServer::start(lab, Duration::from_secs(3600))?;
    let (mesh, [_other, agent]) = Reference::start(lab)?;
    lab.manifests().remove(Reference::POLICIES_FILE)?;
    let _orders = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    let intruder = mesh.intruder.place();
    eventually_answers(intruder, &mesh.orders)?;
    ca.kill()?;
    agent.kill()?;
    let agent = lab.spawn_agent(NodeName::B)?;
    eventually(SOON, "the pod waits", || {
        (state(&agent, &mesh.orders)? == "closed").then_some(())
    })?;
    lab.manifests().write(Reference::POLICIES_FILE, STRICT)?;
    eventually(SOON, "the pod is closed to plaintext", || {
        let reply = get_from(intruder, mesh.orders.at(PORT)).ok()?;
        reply.is_refusal().then_some(())
    })?;
    ca.restart(lab)?;
    eventually(SECOND_LOOK, "the pod is served", || {
        (state(&agent, &mesh.orders)? == "served").then_some(())
    })?;
    let reply = get_from(intruder, mesh.orders.at(PORT))?;
    ensure!(reply.is_refusal(), "{reply:?}");
    Ok(())
}

/// Connections of the agent in a network namespace without devices, which no peer can end, keep the
/// namespace alive for minutes.
fn a_pod_that_ends_leaves_the_kernel_at_once(lab: &Lab) -> Result<()> {
    let (mesh, [agent, _other]) = Reference::start(lab)?;
    lab.manifests().remove(Reference::POLICIES_FILE)?;
    let _orders = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    let pinned = || pinned_pods(&lab.pins(NodeName::A));
    for is_object_first in [true, false] {
        let spec = PodSpec {
            namespace: "frontend",
            ..PodSpec::named("guest")
        };
        let pod = lab.add_pod(NodeName::A, spec)?;
        let before = pinned()?;
        lab.manifests().write_pod(&pod)?;
        let _server = LabServer::in_pod(lab, &pod, Mode::Http, PORT)?;
        eventually_answers(pod.place(), &mesh.orders)?;
        eventually_answers(mesh.orders.place(), &pod)?;
        ensure!(pinned()? == before + 1, "the pod has no pins");

        if is_object_first {
            lab.manifests().remove(&pod.file_name())?;
            eventually(SOON, "the pod is kept closed", || {
                kept(&agent).ok()?.contains(&pod).then_some(())
            })?;
        }
        lab.remove_pod(&pod)?;
        if !is_object_first {
            lab.manifests().remove(&pod.file_name())?;
        }
        eventually(SOON, "the pod's pins are gone", || {
            (pinned().ok()? == before).then_some(())
        })?;
        ensure!(kept(&agent)?.is_empty(), "{:?}", kept(&agent)?);
    }
    Ok(())
}

/// How many pods have pins.
fn pinned_pods(pins: &Path) -> Result<usize> {
    let mut pods = 0;
    for version in fs::read_dir(pins)? {
        pods += fs::read_dir(version?.path().join("pods"))?.count();
    }
    Ok(pods)
}

/// A process outside a pod that listens in it on ztunnel's ports.
struct ListenersInside(Child);

impl ListenersInside {
    fn of(outside: &Place, pod: &Pod) -> Result<Self> {
        const SCRIPT: &str = "
import ctypes, os, socket, sys, time
libc = ctypes.CDLL(None)
home = os.open('/proc/self/ns/net', os.O_RDONLY)
pod = os.open(sys.argv[1], os.O_RDONLY)
assert libc.setns(pod, 0x40000000) == 0
listeners = [socket.create_server(('::', port), family=socket.AF_INET6, dualstack_ipv6=True)
             for port in (15001, 15006, 15008)]
assert libc.setns(home, 0x40000000) == 0
time.sleep(600)
";
        let mut command = outside.command("python3")?;
        command.args(["-c", SCRIPT]).arg(pod.place().netns().path());
        let process = Self(command.spawn()?);
        eventually(SOON, "listeners inside the pod", || {
            let sockets = pod.command("ss").ok()?.args(["-Hltn"]).output().ok()?;
            String::from_utf8(sockets.stdout)
                .ok()?
                .contains(":15008")
                .then_some(())
        })?;
        Ok(process)
    }
}

impl Drop for ListenersInside {
    fn drop(&mut self) {
        // One that has ended needs neither.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The network namespaces that are kept closed.
struct Kept(Vec<Value>);

impl Kept {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn contains(&self, pod: &Pod) -> bool {
        let name = format!("{}/{}", pod.namespace(), pod.name());
        self.0.iter().any(|one| one["pod"] == name)
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

fn kept(agent: &Agent) -> Result<Kept> {
    let status = agent.ask("status")?;
    let rows = status["kept_closed"].as_array();
    Ok(Kept(rows.context("what is kept closed")?.clone()))
}

fn row(agent: &Agent, name: &str) -> Option<Value> {
    let workloads = agent.ask("workloads").ok()?;
    let mut rows = workloads.as_array()?.iter();
    rows.find(|row| row["pod"] == name).cloned()
}

/// A pod's state; `gone` if the agent does not know it.
fn state(agent: &Agent, pod: &Pod) -> Option<String> {
    let name = format!("{}/{}", pod.namespace(), pod.name());
    match row(agent, &name) {
        Some(row) => Some(row["state"].as_str()?.to_owned()),
        None => Some("gone".to_owned()),
    }
}

fn path(pod: &Pod) -> Value {
    pod.place().netns().path().to_string_lossy().into()
}

fn set(object: &mut Value, pointer: &str, value: Value) {
    if let Some(field) = object.pointer_mut(pointer) {
        *field = value;
    }
}

fn eventually_answers(caller: &Place, server: &Pod) -> Result<()> {
    eventually(SOON, &format!("an answer from {}", server.name()), || {
        get_from(caller, server.at(PORT))
            .ok()?
            .is_answer()
            .then_some(())
    })
}
