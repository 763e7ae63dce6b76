//! Floods: they harm only the pod that floods or is flooded; a bystander on the same nodes is not affected,
//! and the agents' memory stays within [`MEMORY`].

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use ambit_tests::{
    Agent, Claim, Credentials, Family, Frame, HboneCall, HboneReply, HostileClient, Lab, LabServer,
    Membership, Mode, NodeName, Place, Pod, PodSpec, Policies, Reference, SOON, Swarm, SwarmServer,
    eventually, get_from, run_tests, tests,
};
use anyhow::{Result, ensure};

const PORT: u16 = Reference::PORT;
const HBONE_PORT: u16 = 15008;
const ORDERS: &str = "spiffe://cluster.local/ns/orders/sa/default";

/// The memory that an agent may take under any flood of one pod, in bytes.
const MEMORY: u64 = 512 << 20;

/// How much longer the median of a bystander's calls may take while another pod floods, compared with
/// the same machine without the flood.
const SLOWER: u32 = 30;

/// How long a bystander's calls are measured.
const MEASURED: Duration = Duration::from_secs(4);

/// How long the flood lasts during which a bystander is measured: longer, because it starts before.
const FLOODED: Duration = Duration::from_secs(10);

/// The port of a bystander's server, whose answers are measured.
const MEASURED_PORT: u16 = 7000;

/// How long a flood of frames lasts, unless it is stopped.
const FLOOD: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    run_tests(tests![
        half_open_handshakes_are_capped_and_run_out,
        opening_and_resetting_streams_in_a_loop_does_no_harm,
        pings_and_settings_in_a_loop_do_no_harm,
        streams_over_the_limit_of_a_connection_do_no_harm,
        ten_thousand_connections_are_carried_and_those_over_the_cap_refused,
        connections_that_come_and_go_are_all_answered,
        calls_that_never_complete_do_no_harm,
        opening_and_closing_connections_takes_no_time_of_others,
        small_messages_take_no_time_of_others,
        long_heads_take_no_time_of_others,
    ])
}

/// The reference example with a server in `payments`, and two pods that are not involved.
struct Scene {
    mesh: Reference,
    agents: [Agent; 2],
    near: Pod,
    far: Pod,
    _servers: [LabServer; 2],
}

impl Scene {
    fn start(lab: &Lab) -> Result<Self> {
        Self::start_with(lab, Policies::PerConnection)
    }

    fn start_with(lab: &Lab, policies: Policies) -> Result<Self> {
        lab.manifests()
            .write_namespace("bystanders", Membership::Ambient)?;
        let pod = |node, name| -> Result<Pod> {
            let pod = lab.add_pod(
                node,
                PodSpec {
                    namespace: "bystanders",
                    ..PodSpec::named(name)
                },
            )?;
            lab.manifests().write_pod(&pod)?;
            Ok(pod)
        };
        let (near, far) = (pod(NodeName::A, "near")?, pod(NodeName::B, "far")?);
        let (mesh, agents) = Reference::start_with(lab, policies)?;
        let servers = [
            LabServer::in_pod(lab, &far, Mode::Http, PORT)?,
            LabServer::in_pod(lab, &mesh.payments, Mode::Http, PORT)?,
        ];
        let scene = Self {
            mesh,
            agents,
            near,
            far,
            _servers: servers,
        };
        scene.ensure_bystanders_are_served()?;
        Ok(scene)
    }

    fn ensure_bystanders_are_served(&self) -> Result<()> {
        for _ in 0..10 {
            let reply = get_from(self.near.place(), self.far.at(PORT))?;
            ensure!(reply.is_answer(), "a bystander's call: {reply:?}");
        }
        Ok(())
    }

    /// Measures a bystander's calls without and with a flood of `orders` by `frontend`.
    fn ensure_bystanders_keep_their_time(
        &self,
        lab: &Lab,
        flood: fn(&Lab, &Place, SocketAddr, Duration) -> Result<Swarm>,
    ) -> Result<()> {
        let server = self.far.at(MEASURED_PORT);
        let _server = SwarmServer::start(lab, self.far.place(), server)?;
        let median = || Swarm::watch(lab, self.near.place(), server, MEASURED)?.median();
        let quiet = median()?;
        let (frontend, orders) = (self.mesh.frontend.place(), self.mesh.orders.at(PORT));
        let mut flooding = flood(lab, frontend, orders, FLOODED)?;
        let flooded = median()?;
        let (done, failed) = flooding.outcome()?;
        println!(
            "    quiet {quiet:?}, flooded {flooded:?}; the flood: {done} done, {failed} failed"
        );
        ensure!(done > 0, "the flood did nothing");
        ensure!(
            flooded < quiet * SLOWER,
            "half of a bystander's calls took {flooded:?}, and {quiet:?} without the flood"
        );
        self.ensure_memory_is_bounded()
    }

    fn ensure_memory_is_bounded(&self) -> Result<()> {
        for agent in &self.agents {
            let resident = agent.resident()?;
            ensure!(resident < MEMORY, "an agent takes {} MiB", resident >> 20);
        }
        Ok(())
    }

    /// `payments`, from outside.
    fn tunnel(&self) -> SocketAddr {
        SocketAddr::new(self.mesh.payments.ip(Family::V4), HBONE_PORT)
    }

    /// Floods `payments` with what `next` makes, with a certificate that its policy allows.
    fn flood(&self, lab: &Lab, next: impl Fn(u32) -> Vec<Frame> + Send + Sync) -> Result<()> {
        let orders = Claim::of(&[ORDERS]).certify(lab)?;
        let outsider = self.mesh.intruder.place().netns();
        let client = HostileClient::connect(outsider, self.tunnel(), &orders)?;
        thread::scope(|scope| {
            let flooding = scope.spawn(|| client.flood(FLOOD, next));
            while !flooding.is_finished() {
                self.ensure_bystanders_are_served()?;
                self.ensure_memory_is_bounded()?;
            }
            anyhow::Ok(())
        })?;
        self.ensure_payments_serves(&orders)
    }

    /// Waits until `payments` answers its allowed callers.
    fn ensure_payments_serves(&self, orders: &Credentials) -> Result<()> {
        let authority = self.mesh.payments.at(PORT).to_string();
        let call = HboneCall::connect(self.tunnel(), orders, &authority);
        eventually(SOON, "an answer of payments", || {
            let reply = call.make(self.mesh.intruder.place()).ok()?;
            matches!(reply, HboneReply::Status(200, _)).then_some(())
        })
    }
}

fn half_open_handshakes_are_capped_and_run_out(lab: &Lab) -> Result<()> {
    const HALF_OPEN: usize = 10_000;
    let scene = Scene::start(lab)?;
    let orders = Claim::of(&[ORDERS]).certify(lab)?;
    let outsider = scene.mesh.intruder.place().netns();
    let held = outsider.enter(|| {
        let open = |_| {
            let mut stream = TcpStream::connect_timeout(&scene.tunnel(), SOON).ok()?;
            // The type of a TLS record, and nothing else. For each connection over the cap the oldest
            // one is reset.
            let _ = stream.write_all(&[22]);
            Some(stream)
        };
        (0..HALF_OPEN).filter_map(open).collect::<Vec<_>>()
    })?;
    ensure!(!held.is_empty(), "no connection came to stand");
    scene.ensure_bystanders_are_served()?;
    scene.ensure_memory_is_bounded()?;
    let payments_agent = &scene.agents[0];
    ensure!(
        payments_agent.refused("displaced")? > 0,
        "no handshake gave way to a later one"
    );
    eventually(SOON, "handshakes timing out", || {
        let count = payments_agent.refused("tls-handshake-timed-out").ok()?;
        (count > 0).then_some(())
    })?;
    scene.ensure_payments_serves(&orders)
}

fn opening_and_resetting_streams_in_a_loop_does_no_harm(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    let authority = scene.mesh.payments.at(PORT).to_string();
    scene.flood(lab, |number| {
        let ids = (0..100).map(|index| (number * 100 + index) * 2 + 1);
        ids.flat_map(|id| [Frame::connect(id, &authority), Frame::reset(id)])
            .collect()
    })?;
    eventually(SOON, "the end of every reset stream", || {
        let status = scene.agents[0].ask("status").ok()?;
        (status["proxy"]["live"] == 0).then_some(())
    })
}

fn pings_and_settings_in_a_loop_do_no_harm(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    // It does not read the acknowledgements, which must not pile up.
    scene.flood(lab, |_| {
        vec![[Frame::ping(), Frame::settings()]; 500].concat()
    })
}

fn streams_over_the_limit_of_a_connection_do_no_harm(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    let authority = scene.mesh.payments.at(PORT).to_string();
    scene.flood(lab, |number| {
        let ids = (0..100).map(|index| (number * 100 + index) * 2 + 1);
        ids.map(|id| Frame::connect(id, &authority)).collect()
    })
}

fn ten_thousand_connections_are_carried_and_those_over_the_cap_refused(lab: &Lab) -> Result<()> {
    const CARRIED: u64 = 10_000;
    const DIALLED: usize = 18_000;
    let scene = Scene::start(lab)?;
    let orders = scene.mesh.orders.at(PORT);
    let _server = SwarmServer::start(lab, scene.mesh.orders.place(), orders)?;
    let frontend = scene.mesh.frontend.place();
    let mut swarm = Swarm::hold(lab, frontend, orders, DIALLED)?;
    let (answered, refused) = swarm.outcome()?;
    ensure!(
        answered >= CARRIED,
        "{answered} answered, {refused} refused"
    );
    ensure!(refused > 0, "nothing was capped: {answered} answered");
    let capped = scene.agents[0].refused("over-cap")? + scene.agents[1].refused("over-cap")?;
    ensure!(capped > 0, "{refused} were refused, and none by a cap");
    scene.ensure_bystanders_are_served()?;
    scene.ensure_memory_is_bounded()?;
    drop(swarm);
    eventually(SOON, "a call after the flood", || {
        let mut call = Swarm::hold(lab, frontend, orders, 1).ok()?;
        (call.outcome().ok()? == (1, 0)).then_some(())
    })
}

fn connections_that_come_and_go_are_all_answered(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    let orders = scene.mesh.orders.at(PORT);
    let _server = SwarmServer::start(lab, scene.mesh.orders.place(), orders)?;
    let frontend = scene.mesh.frontend.place();
    let mut swarm = Swarm::churn(lab, frontend, orders, Duration::from_secs(20))?;
    scene.ensure_bystanders_are_served()?;
    let (answered, refused) = swarm.outcome()?;
    ensure!(
        refused == 0 && answered > 0,
        "{answered}, {refused} refused"
    );
    scene.ensure_memory_is_bounded()
}

fn calls_that_never_complete_do_no_harm(lab: &Lab) -> Result<()> {
    const CALLS: usize = 500;
    let scene = Scene::start(lab)?;
    let gone = lab.add_pod(
        NodeName::B,
        PodSpec {
            namespace: "bystanders",
            ..PodSpec::named("gone")
        },
    )?;
    lab.manifests().write_pod(&gone)?;
    // From now on its packets are silently dropped.
    gone.place().netns().ip("link set eth0 down\n")?;
    let frontend = scene.mesh.frontend.place();
    let mut swarm = Swarm::hold(lab, frontend, gone.at(PORT), CALLS)?;
    scene.ensure_bystanders_are_served()?;
    scene.ensure_memory_is_bounded()?;
    let (answered, refused) = swarm.outcome()?;
    ensure!(answered == 0, "{answered} answered, {refused} refused");
    Ok(())
}

fn opening_and_closing_connections_takes_no_time_of_others(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    let orders = scene.mesh.orders.at(PORT);
    let _server = SwarmServer::start(lab, scene.mesh.orders.place(), orders)?;
    scene.ensure_bystanders_keep_their_time(lab, Swarm::knock)
}

fn small_messages_take_no_time_of_others(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    let orders = scene.mesh.orders.at(PORT);
    let _server = SwarmServer::start(lab, scene.mesh.orders.place(), orders)?;
    scene.ensure_bystanders_keep_their_time(lab, Swarm::chatter)
}

fn long_heads_take_no_time_of_others(lab: &Lab) -> Result<()> {
    let scene = Scene::start_with(lab, Policies::PerRequest)?;
    let orders = &scene.mesh.orders;
    let _server = LabServer::in_pod(lab, orders, Mode::Http, PORT)?;
    scene.ensure_bystanders_keep_their_time(lab, Swarm::heads)
}
