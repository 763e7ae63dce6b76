//! Shares: a source that takes all the places of a pod that it can get does not shut out others.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ambit_tests::{
    Agent, Claim, Credentials, Family, HboneCall, HboneReply, HeldConnection, HostileClient, Lab,
    LabServer, Membership, Mode, Netns, NodeName, Pod, PodSpec, Reference, SOON, Site, eventually,
    get, get_from, is_connected, run_tests, tests,
};
use anyhow::{Result, ensure};

const PORT: u16 = Reference::PORT;
const ECHO_PORT: u16 = 7000;
const HBONE_PORT: u16 = 15008;

/// A caller that the policies of `payments` allow.
const ORDERS: &str = "spiffe://cluster.local/ns/orders/sa/default";

/// A caller that they deny.
const FRONTEND: &str = "spiffe://cluster.local/ns/frontend/sa/default";

/// How often an honest peer tries to get in, and how many of these have to succeed.
const TRIES: usize = 40;
const SUCCESSES: usize = 38;

/// The time for an attacker to take all the places that it can get.
const FILLING: Duration = Duration::from_secs(90);

fn main() -> ExitCode {
    run_tests(tests![
        half_open_handshakes_shut_no_peer_out,
        idle_tunnels_of_a_denied_peer_shut_no_peer_out,
        idle_plaintext_connections_shut_no_caller_out,
        a_tunnel_on_which_nothing_is_allowed_ends_soon,
        a_flood_of_denials_hides_no_denial_of_another_source,
    ])
}

/// `payments`, an attacker, and an honest peer: `orders`, at its own address.
struct Scene {
    mesh: Reference,
    agents: [Agent; 2],
    orders: Credentials,
    honest: Pod,
    _server: LabServer,
}

impl Scene {
    fn start(lab: &Lab) -> Result<Self> {
        let namespace = "elsewhere";
        lab.manifests()
            .write_namespace(namespace, Membership::None)?;
        let spec = PodSpec {
            namespace,
            ..PodSpec::named("honest")
        };
        let honest = lab.add_pod(NodeName::B, spec)?;
        lab.manifests().write_pod(&honest)?;
        let (mesh, agents) = Reference::start(lab)?;
        let scene = Self {
            _server: LabServer::in_pod(lab, &mesh.payments, Mode::Http, PORT)?,
            mesh,
            agents,
            orders: Claim::of(&[ORDERS]).certify(lab)?,
            honest,
        };
        ensure!(scene.gets_in(), "the honest peer does not get in at all");
        Ok(scene)
    }

    fn tunnel(&self) -> SocketAddr {
        SocketAddr::new(self.mesh.payments.ip(Family::V4), HBONE_PORT)
    }

    fn attacker(&self) -> &Netns {
        self.mesh.intruder.place().netns()
    }

    fn gets_in(&self) -> bool {
        let authority = self.mesh.payments.at(PORT).to_string();
        let call = HboneCall::connect(self.tunnel(), &self.orders, &authority);
        let reply = call.make(self.honest.place());
        matches!(reply, Ok(HboneReply::Status(200, _)))
    }

    fn ensure_honest_peers_get_in<T: Send>(&self, attack: &Attack<T>) -> Result<()> {
        attack.ensure_others_get_in(self.attacker(), || self.gets_in())
    }
}

/// Connections that an attacker opens, and reopens when they end.
struct Attack<T> {
    threads: usize,
    /// Of all threads.
    connections: usize,
    /// Between two that one thread opens.
    pause: Duration,
    open: Box<dyn Fn() -> Option<T> + Sync>,
    is_open: fn(&mut T) -> bool,
}

impl<T: Send> Attack<T> {
    /// Holds connections from somewhere while an honest peer tries to get in.
    fn ensure_others_get_in(&self, from: &Netns, gets_in: impl Fn() -> bool) -> Result<()> {
        let (stop, opened) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| from.enter(|| self.hold(&stop, &opened)));
            }
            let filled = eventually(FILLING, "an attacker that is at work", || {
                (opened.load(Ordering::Relaxed) >= self.connections / 10 * 9).then_some(())
            });
            let successes = (0..TRIES).filter(|_| gets_in()).count();
            stop.store(true, Ordering::Relaxed);
            let opened = opened.load(Ordering::Relaxed);
            println!("    {successes} of {TRIES} honest tries; the attacker opened {opened}");
            filled?;
            ensure!(
                successes >= SUCCESSES,
                "{successes} of {TRIES} tries of an honest peer succeeded"
            );
            Ok(())
        })
    }

    fn hold(&self, stop: &AtomicBool, opened: &AtomicUsize) {
        let most = self.connections / self.threads + 1;
        let mut held = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            held.retain_mut(self.is_open);
            for _ in held.len()..most {
                if let Some(connection) = (self.open)() {
                    held.push(connection);
                    opened.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(self.pause);
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn half_open_handshakes_shut_no_peer_out(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    let to = scene.tunnel();
    let open = move || {
        let mut stream = TcpStream::connect_timeout(&to, SOON).ok()?;
        // The type of a TLS record, and no more.
        stream.write_all(&[22]).ok()?;
        Some(stream)
    };
    scene.ensure_honest_peers_get_in(&Attack {
        threads: 1,
        connections: 400,
        pause: Duration::from_micros(200),
        open: Box::new(open),
        is_open: is_connected,
    })
}

fn idle_tunnels_of_a_denied_peer_shut_no_peer_out(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    let frontend = Claim::of(&[FRONTEND]).certify(lab)?;
    let (to, attacker) = (scene.tunnel(), scene.attacker().clone());
    let open = move || HostileClient::connect(&attacker, to, &frontend).ok();
    scene.ensure_honest_peers_get_in(&Attack {
        threads: 4,
        connections: 4400,
        pause: Duration::from_millis(2),
        open: Box::new(open),
        is_open: HostileClient::is_connected,
    })
}

fn idle_plaintext_connections_shut_no_caller_out(lab: &Lab) -> Result<()> {
    let honest = lab.add_pod(NodeName::A, PodSpec::named("honest"))?;
    lab.manifests()
        .write_namespace("honest", Membership::None)?;
    lab.manifests().write_pod(&honest)?;
    let policy = "action: ALLOW\nrules: [{to: [{operation: {paths: [/ok]}}]}]";
    let site = Site::start(lab, &[("web", &[policy])])?;
    let to = site.backend("web")?.pod.at(Site::PORT);
    let gets_in =
        || get(honest.place(), &format!("http://{to}/ok")).is_ok_and(|reply| reply.is_answer());
    ensure!(gets_in(), "the honest caller does not get in at all");
    let attack = Attack {
        threads: 2,
        connections: 4400,
        pause: Duration::from_micros(500),
        open: Box::new(move || TcpStream::connect_timeout(&to, SOON).ok()),
        is_open: is_connected,
    };
    attack.ensure_others_get_in(site.outsider.place().netns(), gets_in)
}

fn a_tunnel_on_which_nothing_is_allowed_ends_soon(lab: &Lab) -> Result<()> {
    const NOTHING_ALLOWED: &str = "nothing-allowed";
    let scene = Scene::start(lab)?;
    let payments = &scene.mesh.payments;
    let _echo = LabServer::in_pod(lab, payments, Mode::Echo, ECHO_PORT)?;
    let orders = scene.mesh.orders.place();
    let mut allowed = HeldConnection::open(lab, orders, payments.at(ECHO_PORT))?;
    allowed.echo("before")?;
    let frontend = Claim::of(&[FRONTEND]).certify(lab)?;
    let mut denied = HostileClient::connect(scene.attacker(), scene.tunnel(), &frontend)?;
    ensure!(denied.is_connected(), "the denied peer has no tunnel");
    eventually(SOON, "the end of a tunnel", || {
        (!denied.is_connected()).then_some(())
    })?;
    let status = scene.agents[0].ask("status")?;
    let ended = status["proxy"]["terminated"][NOTHING_ALLOWED].as_u64();
    ensure!(ended > Some(0), "{status}");
    allowed.echo("after")
}

fn a_flood_of_denials_hides_no_denial_of_another_source(lab: &Lab) -> Result<()> {
    /// Each in another second, because a source may share a counter with the flood within one.
    const DENIED: u64 = 8;
    const SEEN: u64 = 4;
    let scene = Scene::start(lab)?;
    let to = scene.mesh.payments.at(PORT);
    let stop = AtomicBool::new(false);
    let place = scene.honest.place();
    thread::scope(|scope| {
        scope.spawn(|| {
            scene.attacker().enter(|| {
                while !stop.load(Ordering::Relaxed) {
                    // The kernel denies it: it is plaintext.
                    let _ = TcpStream::connect_timeout(&to, SOON);
                }
            })
        });
        let denied = (0..DENIED).map(|_| {
            thread::sleep(Duration::from_millis(1300));
            let reply = get_from(place, to)?;
            ensure!(reply.is_refusal(), "plaintext got in: {reply:?}");
            Ok(())
        });
        let denied = denied.collect::<Result<Vec<_>>>();
        stop.store(true, Ordering::Relaxed);
        denied
    })?;
    let honest = scene.honest.ip(Family::V4).to_string();
    let mut seen = 0;
    let found = eventually(SOON, "the denials of the other source", || {
        let events = scene.agents[0].ask("events").ok()?;
        let events = events.as_array()?.iter();
        let own = events.filter(|event| {
            let source = event["source"].as_str();
            source.is_some_and(|source| source.starts_with(&honest))
        });
        seen = own.filter_map(|event| event["count"].as_u64()).sum();
        (seen >= SEEN).then_some(())
    });
    println!("    {seen} of {DENIED} denials of the other source are shown");
    found
}
