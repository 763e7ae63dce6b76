//! What an attacker with their own HBONE client, and perhaps with a certificate, gets from a pod of the
//! mesh. `payments` allows only `orders`.

use std::net::SocketAddr;
use std::process::ExitCode;

use ambit_tests::{
    Agent, Claim, Credentials, Family, HboneCall, HboneReply, Lab, LabServer, Mode, Reference,
    Signer, TunnelData, Validity, run_tests, tests,
};
use anyhow::{Context, Result, ensure};

const PORT: u16 = Reference::PORT;
const HBONE_PORT: u16 = 15008;
const ORDERS: &str = "spiffe://cluster.local/ns/orders/sa/default";
const FRONTEND: &str = "spiffe://cluster.local/ns/frontend/sa/default";

fn main() -> ExitCode {
    run_tests(tests![
        an_identity_that_policy_allows_is_answered,
        an_identity_that_policy_does_not_allow_is_denied,
        a_certificate_that_proves_no_identity_opens_no_tunnel,
        an_authority_that_is_not_this_pod_is_a_bad_request,
        the_agents_ports_are_no_authority,
        only_connect_is_a_tunnel,
        headers_give_no_identity,
        headers_give_no_address_but_the_port,
    ])
}

/// `payments` with a server that may be reached only by `orders`, and the attacker's place: a pod
/// outside the mesh, whose connections no agent touches.
struct Target {
    mesh: Reference,
    agents: [Agent; 2],
    server: LabServer,
}

impl Target {
    fn start(lab: &Lab) -> Result<Self> {
        let (mesh, agents) = Reference::start(lab)?;
        let server = LabServer::in_pod(lab, &mesh.payments, Mode::Http, PORT)?;
        Ok(Self {
            mesh,
            agents,
            server,
        })
    }

    fn make(&self, call: &HboneCall) -> Result<HboneReply> {
        call.make(self.mesh.intruder.place())
    }

    fn tunnel(&self, family: Family) -> SocketAddr {
        SocketAddr::new(self.mesh.payments.ip(family), HBONE_PORT)
    }

    fn authority(&self, family: Family) -> String {
        SocketAddr::new(self.mesh.payments.ip(family), PORT).to_string()
    }

    /// Calls the server with these credentials and headers.
    fn call(&self, credentials: &Credentials, headers: &[(&str, &str)]) -> Result<HboneReply> {
        let authority = self.authority(Family::V4);
        self.make(&HboneCall {
            headers,
            ..HboneCall::connect(self.tunnel(Family::V4), credentials, &authority)
        })
    }

    fn ensure_unreached(&self) -> Result<()> {
        ensure!(
            self.server.connections().is_empty(),
            "the server was reached"
        );
        Ok(())
    }
}

fn an_identity_that_policy_allows_is_answered(lab: &Lab) -> Result<()> {
    let target = Target::start(lab)?;
    let orders = Claim::of(&[ORDERS]).certify(lab)?;
    for family in Family::ALL {
        let authority = target.authority(family);
        let reply = target.make(&HboneCall::connect(
            target.tunnel(family),
            &orders,
            &authority,
        ))?;
        ensure!(
            matches!(&reply, HboneReply::Status(200, answer) if answer["local"] == authority),
            "{family:?}: {reply:?}"
        );
    }
    Ok(())
}

fn an_identity_that_policy_does_not_allow_is_denied(lab: &Lab) -> Result<()> {
    let target = Target::start(lab)?;
    let frontend = Claim::of(&[FRONTEND]).certify(lab)?;
    let reply = target.call(&frontend, &[])?;
    ensure!(is_status(&reply, 401), "{reply:?}");
    target.ensure_unreached()
}

fn a_certificate_that_proves_no_identity_opens_no_tunnel(lab: &Lab) -> Result<()> {
    let target = Target::start(lab)?;
    let orders = Claim::of(&[ORDERS]);
    let claims = [
        Claim {
            signer: Signer::Stranger,
            ..orders
        },
        Claim {
            validity: Validity::Expired,
            ..orders
        },
        Claim {
            validity: Validity::Future,
            ..orders
        },
        Claim::of(&["spiffe://elsewhere/ns/orders/sa/default"]),
        Claim::of(&[ORDERS, FRONTEND]),
        Claim::of(&["spiffe://cluster.local/ns/orders/sa/default/extra"]),
        Claim::of(&["spiffe://cluster.local/ns/orders"]),
        Claim::of(&["https://cluster.local/ns/orders/sa/default"]),
        Claim {
            names: &["orders.orders.svc.cluster.local"],
            ..Claim::of(&[])
        },
    ];
    let authority = target.authority(Family::V4);
    for claim in claims {
        let credentials = claim.certify(lab)?;
        let reply = target.call(&credentials, &[])?;
        ensure!(
            matches!(reply, HboneReply::NoTunnel(_)),
            "{claim:?}: {reply:?}"
        );
    }
    let without = HboneCall {
        to: target.tunnel(Family::V4),
        credentials: None,
        method: "CONNECT",
        authority: &authority,
        headers: &[],
        data: TunnelData::Request,
    };
    let reply = target.make(&without)?;
    ensure!(matches!(reply, HboneReply::NoTunnel(_)), "{reply:?}");
    target.ensure_unreached()
}

fn an_authority_that_is_not_this_pod_is_a_bad_request(lab: &Lab) -> Result<()> {
    let target = Target::start(lab)?;
    let orders = Claim::of(&[ORDERS]).certify(lab)?;
    let own = target.mesh.payments.ip(Family::V4);
    let authorities = [
        target.mesh.frontend.at(PORT).to_string(),
        target.mesh.payments_service.at().to_string(),
        target.authority(Family::V6),
        format!("127.0.0.1:{PORT}"),
        format!("[::1]:{PORT}"),
        format!("0.0.0.0:{PORT}"),
        format!("[::ffff:127.0.0.1]:{PORT}"),
        format!("localhost:{PORT}"),
        format!("payments.payments.svc.cluster.local:{PORT}"),
        format!("{own}:{HBONE_PORT}"),
        format!("{own}:0"),
        format!("{own}:65536"),
        format!("{own}"),
        format!("user@{own}:{PORT}"),
    ];
    for authority in authorities {
        let call = HboneCall::connect(target.tunnel(Family::V4), &orders, &authority);
        let reply = target.make(&call)?;
        ensure!(is_refused(&reply), "{authority}: {reply:?}");
    }
    target.ensure_unreached()
}

fn the_agents_ports_are_no_authority(lab: &Lab) -> Result<()> {
    let target = Target::start(lab)?;
    let orders = Claim::of(&[ORDERS]).certify(lab)?;
    for port in target.agents[0].listener_ports("payments/payments")? {
        let authority = format!("{}:{port}", target.mesh.payments.ip(Family::V4));
        let call = HboneCall::connect(target.tunnel(Family::V4), &orders, &authority);
        let reply = target.make(&call)?;
        ensure!(is_status(&reply, 400), "{authority}: {reply:?}");
    }
    Ok(())
}

fn only_connect_is_a_tunnel(lab: &Lab) -> Result<()> {
    let target = Target::start(lab)?;
    let orders = Claim::of(&[ORDERS]).certify(lab)?;
    let authority = target.authority(Family::V4);
    for method in ["GET", "POST", "OPTIONS"] {
        let reply = target.make(&HboneCall {
            method,
            ..HboneCall::connect(target.tunnel(Family::V4), &orders, &authority)
        })?;
        ensure!(is_status(&reply, 400), "{method}: {reply:?}");
    }
    target.ensure_unreached()
}

fn headers_give_no_identity(lab: &Lab) -> Result<()> {
    let target = Target::start(lab)?;
    let frontend = Claim::of(&[FRONTEND]).certify(lab)?;
    let orders_at = format!("for=\"{}\"", target.mesh.orders.at(40_000));
    let client_certificate = format!("By={FRONTEND};URI={ORDERS}");
    for header in [
        ("forwarded", orders_at.as_str()),
        ("x-forwarded-for", "10.78.2.11"),
        ("x-forwarded-client-cert", client_certificate.as_str()),
        ("baggage", "k8s.namespace.name=orders"),
        ("x-istio-source", ORDERS),
    ] {
        let reply = target.call(&frontend, &[header])?;
        ensure!(is_status(&reply, 401), "{header:?}: {reply:?}");
    }
    target.ensure_unreached()
}

fn headers_give_no_address_but_the_port(lab: &Lab) -> Result<()> {
    let target = Target::start(lab)?;
    let orders = Claim::of(&[ORDERS]).certify(lab)?;
    let attacker = target.mesh.intruder.at(40_000);
    let own = format!("for=\"{attacker}\"");
    let reply = target.call(&orders, &[("forwarded", &own)])?;
    ensure!(caller(&reply)? == attacker, "{reply:?}");
    let other = format!("for=\"{}\"", target.mesh.orders.at(40_000));
    for forged in [other.as_str(), "for=127.0.0.1", "for=\"[::1]:1\"", "\"", ""] {
        let reply = target.call(&orders, &[("forwarded", forged)])?;
        let caller = caller(&reply)?;
        ensure!(
            caller.ip() == attacker.ip() && caller != attacker,
            "{forged}: {reply:?}"
        );
    }
    Ok(())
}

fn is_status(reply: &HboneReply, expected: u16) -> bool {
    matches!(reply, HboneReply::Status(status, _) if *status == expected)
}

/// A client that follows the rules cannot even send some authorities.
fn is_refused(reply: &HboneReply) -> bool {
    is_status(reply, 400)
        || matches!(reply, HboneReply::NoTunnel(failure) if failure.contains("invalid authority"))
}

/// The caller that the server saw.
fn caller(reply: &HboneReply) -> Result<SocketAddr> {
    let HboneReply::Status(200, answer) = reply else {
        anyhow::bail!("no answer: {reply:?}");
    };
    Ok(answer["accepted"].as_str().context("no caller")?.parse()?)
}
