//! Certificates from an authority on two nodes: how they are issued and renewed, and what happens to
//! the mesh if they are not, or if they are not what was requested.

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ambit_tests::{
    Agent, CaFault, CaServer, HeldConnection, Lab, LabServer, Mode, NodeName, Reference, SOON,
    Swarm, SwarmServer, WrongCa, ambit, eventually, get_from, run_tests, tests,
};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

const PORT: u16 = Reference::PORT;

/// The limit for an agent to report that an authority does not answer, and to recover: it asks at half
/// of a certificate's life, and waits 15 s for an answer, also if it asked just before the authority
/// recovered.
const UNANSWERED: Duration = Duration::from_secs(60);

/// The port of the server that answers many calls.
const SWARM_PORT: u16 = 9000;

/// `frontend` may call any port of `orders`.
const MANY_CALLS: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: swarm, namespace: orders}
spec:
  rules: [{from: [{source: {principals: [cluster.local/ns/frontend/sa/default]}}]}]
";

fn main() -> ExitCode {
    run_tests(tests![
        agents_get_the_identities_of_their_pods,
        a_minute_of_renewals_fails_no_call,
        roots_change_without_a_failed_call,
        a_ca_that_is_down_is_missed_when_certificates_expire,
        a_ca_that_does_not_answer_is_reported_and_recovers,
        wrong_answers_are_refused_with_their_reason,
        a_ca_of_another_root_gets_no_token,
    ])
}

fn agents_get_the_identities_of_their_pods(lab: &Lab) -> Result<()> {
    lab.keep_nodes_apart();
    let ca = CaServer::start(lab, Duration::from_secs(3600))?;
    let (mesh, agents) = Reference::start(lab)?;
    let _server = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    let reply = get_from(mesh.frontend.place(), mesh.orders.at(PORT))?;
    ensure!(reply.is_answer(), "{reply:?}");
    let [of_a, of_b] = [
        agents[0].certificates("identity")?,
        agents[1].certificates("identity")?,
    ];
    let expected = ["frontend", "payments"].map(principal);
    ensure!(of_a == expected, "{of_a:?}");
    ensure!(of_b == [principal("orders")], "{of_b:?}");
    let log = ca.log();
    for identity in of_a.iter().chain(&of_b) {
        ensure!(log.contains(identity), "{identity} is not in the CA's log");
    }
    Ok(())
}

fn a_minute_of_renewals_fails_no_call(lab: &Lab) -> Result<()> {
    let _ca = CaServer::start(lab, Duration::from_secs(6))?;
    let calls = Calls::start(lab)?;
    let before = serials(&calls.agents)?;
    let mut swarm = calls.make(lab, Duration::from_secs(60))?;
    let mut renewals = 0;
    let mut known = before;
    let held = calls.hold(lab);
    let mut held = held?;
    let started = SystemTime::now();
    while started.elapsed()? < Duration::from_secs(55) {
        std::thread::sleep(Duration::from_millis(500));
        held.echo("still here")?;
        let now = serials(&calls.agents)?;
        renewals += now.iter().filter(|serial| !known.contains(serial)).count();
        known = now;
    }
    let (answered, refused) = swarm.outcome()?;
    ensure!(renewals >= 30, "only {renewals} renewals were seen");
    ensure!(
        answered > 100 && refused == 0,
        "{answered}, {refused} refused"
    );
    Ok(())
}

fn roots_change_without_a_failed_call(lab: &Lab) -> Result<()> {
    let ca = CaServer::start(lab, Duration::from_secs(6))?;
    let calls = Calls::start(lab)?;
    let old = issuers(&calls.agents)?;
    let mut swarm = calls.make(lab, Duration::from_secs(45))?;
    let mut held = calls.hold(lab)?;
    let successor = ca.files().successor()?;
    let rotations: [&dyn Fn() -> Result<()>; 3] = [
        &|| ca.files().trust_also(&successor),
        &|| ca.files().sign_with(&successor),
        &|| ca.files().trust_only(&successor),
    ];
    for rotate in rotations {
        rotate()?;
        // Each certificate is renewed at least twice: the operator waits until all have the new roots.
        std::thread::sleep(Duration::from_secs(10));
        held.echo("still here")?;
    }
    let (answered, refused) = swarm.outcome()?;
    ensure!(
        answered > 100 && refused == 0,
        "{answered}, {refused} refused"
    );
    let new = issuers(&calls.agents)?;
    ensure!(
        new.iter().all(|issuer| !old.contains(issuer)),
        "{old:?} have become {new:?}"
    );
    Ok(())
}

fn a_ca_that_is_down_is_missed_when_certificates_expire(lab: &Lab) -> Result<()> {
    let ca = CaServer::start(lab, Duration::from_secs(20))?;
    let calls = Calls::start(lab)?;
    calls.become_answered()?;
    ca.kill()?;
    let agent = calls.mesh.frontend.agent(&calls.agents);
    let until = eventually(SOON, "a degraded status", || degraded_until(agent))?;
    ensure!(until > now()?, "it reports that it is degraded too late");
    ensure!(calls.is_answered()?, "the old certificate no longer serves");
    let expiry = expiry_of(agent, "cluster.local/ns/frontend/sa/default")?;
    eventually(SOON, "the end of the old certificate", || {
        (!calls.is_answered().ok()?).then_some(())
    })?;
    ensure!(now()? >= expiry, "refused before the certificate expired");
    ensure!(!is_ready(agent)?, "the agent calls itself ready");
    let log = agent.log();
    ensure!(
        log.contains("is not valid") || log.contains("expired"),
        "the reason is not in the log"
    );
    ca.restart(lab)?;
    calls.become_answered()?;
    eventually(SOON, "a status without a fault", || {
        let is_well = degraded_until(agent).is_none() && is_ready(agent).ok()?;
        is_well.then_some(())
    })
}

fn a_ca_that_does_not_answer_is_reported_and_recovers(lab: &Lab) -> Result<()> {
    let ca = CaServer::start(lab, Duration::from_secs(40))?;
    let calls = Calls::start(lab)?;
    let agent = calls.mesh.frontend.agent(&calls.agents);
    ca.signal(Signal::SIGSTOP)?;
    eventually(UNANSWERED, "a degraded status", || {
        degraded_until(agent).map(drop)
    })?;
    ca.signal(Signal::SIGCONT)?;
    calls.become_answered()?;
    eventually(UNANSWERED, "a status without a fault", || {
        degraded_until(agent).is_none().then_some(())
    })
}

fn wrong_answers_are_refused_with_their_reason(lab: &Lab) -> Result<()> {
    lab.keep_nodes_apart();
    let ca = WrongCa::start(lab)?;
    let mesh = Reference::build(lab)?;
    let server = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    for (fault, reason) in [
        (CaFault::Silence, "did not answer within"),
        (CaFault::Refusal, "CA_TRUSTED_NODE_ACCOUNTS"),
        (
            CaFault::OtherIdentity,
            "is for cluster.local/ns/else/sa/somebody",
        ),
        (CaFault::OtherKey, "for another key"),
        (CaFault::Expired, "expired at"),
        (
            CaFault::OtherRoot,
            "does not verify against the mesh's roots",
        ),
        (CaFault::Garbage, "no certificate"),
    ] {
        ca.set_fault(Some(fault))?;
        let agents = launch_both(lab)?;
        for agent in &agents {
            eventually(UNANSWERED, reason, || lacks_all(agent, reason))?;
        }
        let known = server.connections().len();
        let reply = get_from(mesh.frontend.place(), mesh.orders.at(PORT))?;
        let is_closed = !reply.is_answer() && server.connections().len() == known;
        ensure!(is_closed, "{fault}: {reply:?}");
        ca.set_fault(None)?;
        for agent in &agents {
            eventually(UNANSWERED, "the agent serving its pods", || {
                is_ready(agent).ok()?.then_some(())
            })?;
        }
        let reply = get_from(mesh.frontend.place(), mesh.orders.at(PORT))?;
        ensure!(reply.is_answer(), "after {fault}: {reply:?}");
    }
    Ok(())
}

fn a_ca_of_another_root_gets_no_token(lab: &Lab) -> Result<()> {
    lab.keep_nodes_apart();
    let (ca, stranger) = (WrongCa::start(lab)?, lab.directory().join("stranger"));
    let made = ambit(&["ca", "init", "--dir", &stranger.to_string_lossy()])?;
    ensure!(made.status.success(), "{}", made.stderr);
    let own = fs::read_to_string(ca.root())?;
    fs::copy(stranger.join("root-cert.pem"), ca.root())?;
    let _mesh = Reference::build(lab)?;
    let mut agents = launch_both(lab)?;
    for agent in &agents {
        eventually(SOON, "no trust in the CA", || {
            lacks_all(agent, "no token was sent")
        })?;
    }
    ensure!(
        !ca.log().contains("asked for"),
        "it was asked: {}",
        ca.log()
    );
    fs::write(ca.root(), own)?;
    for agent in &mut agents {
        lab.wait_until_serving(agent)?;
    }
    Ok(())
}

fn launch_both(lab: &Lab) -> Result<[Agent; 2]> {
    let [a, b] = NodeName::ALL;
    Ok([lab.launch_agent(a)?, lab.launch_agent(b)?])
}

fn lacks_all(agent: &Agent, reason: &str) -> Option<()> {
    agent.lacks_all_certificates(reason).ok()?.then_some(())
}

/// `frontend` on one node and `orders` on the other, which answers many calls.
struct Calls {
    mesh: Reference,
    agents: [Agent; 2],
    _swarm: SwarmServer,
    _server: LabServer,
    _echo: LabServer,
}

impl Calls {
    const ECHO_PORT: u16 = 9001;

    fn start(lab: &Lab) -> Result<Self> {
        let mesh = Reference::build(lab)?;
        lab.manifests().write("swarm.yaml", MANY_CALLS)?;
        let agents = lab.start_agents()?;
        let place = mesh.orders.place();
        Ok(Self {
            _swarm: SwarmServer::start(lab, place, mesh.orders.at(SWARM_PORT))?,
            _server: LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?,
            _echo: LabServer::in_pod(lab, &mesh.orders, Mode::Echo, Self::ECHO_PORT)?,
            mesh,
            agents,
        })
    }

    /// New connections, one after another on sixteen lanes.
    fn make(&self, lab: &Lab, time: Duration) -> Result<Swarm> {
        let to = self.mesh.orders.at(SWARM_PORT);
        Swarm::churn(lab, self.mesh.frontend.place(), to, time)
    }

    fn hold(&self, lab: &Lab) -> Result<HeldConnection> {
        let to = self.mesh.orders.at(Self::ECHO_PORT);
        HeldConnection::open(lab, self.mesh.frontend.place(), to)
    }

    fn is_answered(&self) -> Result<bool> {
        let reply = get_from(self.mesh.frontend.place(), self.mesh.orders.at(PORT))?;
        Ok(reply.is_answer())
    }

    fn become_answered(&self) -> Result<()> {
        eventually(SOON, "an answer", || self.is_answered().ok()?.then_some(()))
    }
}

fn principal(namespace: &str) -> String {
    format!("cluster.local/ns/{namespace}/sa/default")
}

fn serials(agents: &[Agent]) -> Result<Vec<String>> {
    let each = agents.iter().map(|agent| agent.certificates("serial"));
    Ok(each.collect::<Result<Vec<_>>>()?.concat())
}

fn issuers(agents: &[Agent]) -> Result<Vec<String>> {
    let each = agents.iter().map(|agent| agent.certificates("issuer"));
    Ok(each.collect::<Result<Vec<_>>>()?.concat())
}

fn is_ready(agent: &Agent) -> Result<bool> {
    Ok(agent.ask("status")?["ready"] == true)
}

/// Until when the certificates are valid if they are not renewed, in seconds since 1970.
fn degraded_until(agent: &Agent) -> Option<u64> {
    agent.ask("status").ok()?["certificates"]["degraded_until"].as_u64()
}

/// When an identity's certificate expires; seconds since 1970.
fn expiry_of(agent: &Agent, identity: &str) -> Result<u64> {
    let certificates = agent.ask("certs")?;
    let mut certificates = certificates.as_array().context("no list")?.iter();
    let own = certificates.find(|one| one["identity"] == identity);
    own.and_then(|own| own["not_after"].as_u64())
        .with_context(|| format!("no certificate of {identity}"))
}

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}
