//! Who calls whom in the reference example, and what must come of it.

use std::fmt;
use std::net::SocketAddr;

use anyhow::Result;

use super::Reference;
use super::application::{CARD, RECEIPT};
use crate::client::curl;
use crate::lab::Lab;
use crate::place::Place;
use crate::plan::{Family, NodeName};
use crate::process::Outcome;

/// How a call ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The application answered, and its answer has this in it.
    Answered(String),
    /// The connection was refused, or reset before an answer.
    Refused,
    /// Anything else, such as a time-out; never expected.
    Other(String),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(_) => f.write_str("answered"),
            Self::Refused => f.write_str("refused"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

/// One call with curl.
pub struct Call {
    /// Who calls.
    pub caller: &'static str,
    /// Whom, as a reader understands it.
    pub called: &'static str,
    /// What must come of it.
    pub expected: Ending,
    /// Which policy must have decided, and about a connection to which address of a pod; `None`
    /// where none does.
    pub decider: Option<(&'static str, SocketAddr)>,
    place: Place,
    url: String,
}

/// What came of a call.
pub struct Observed {
    /// How it ended.
    pub ending: Ending,
    /// The answer, or how curl puts its absence.
    pub detail: String,
}

const ORDERS: &str = "AuthorizationPolicy orders/allow-frontend-to-orders";
const PAYMENTS: &str = "AuthorizationPolicy payments/allow-orders-to-payments";
const STRICT: &str = "PeerAuthentication istio-system/default";

impl Reference {
    /// The calls of the example: those that are meant, those that policy forbids, and the attacks.
    ///
    /// # Errors
    ///
    /// Where a control group for one of the callers cannot be made.
    pub fn calls(&self, lab: &Lab) -> Result<Vec<Call>> {
        let [frontend, orders, payments, intruder] = self.pods().map(|pod| pod.place().clone());
        let node = lab.node(NodeName::A)?;
        let host_network = lab.host_network_pod(NodeName::A, "host-network")?;

        let orders_pod = self.orders.at(Self::PORT);
        let pod = self.payments.at(Self::PORT);
        let pod_v6 = SocketAddr::new(self.payments.ip(Family::V6), Self::PORT);
        let probe = self.payments.at(Self::PROBE_PORT);
        let outside = SocketAddr::new(NodeName::B.link_addresses().of(Family::V4), Self::PORT);
        let order_service = format!("http://{}/order?{CARD}", self.orders_service.at());
        let charge_service = format!("http://{}/charge?{CARD}", self.payments_service.at());
        let charge = |at: SocketAddr| format!("http://{at}/charge?{CARD}");
        let healthy = format!("http://{probe}/healthy");

        Ok(vec![
            call("frontend", &frontend, "orders (→ payments)", &order_service)
                .gets(&self.receipt(Family::V4))
                .decided_by(ORDERS, orders_pod),
            call("orders", &orders, "payments", &charge_service)
                .gets(&self.receipt(Family::V4))
                .decided_by(PAYMENTS, pod),
            call("orders", &orders, "payments, IPv6", &charge(pod_v6))
                .gets(&self.receipt(Family::V6))
                .decided_by(PAYMENTS, pod_v6),
            call("frontend", &frontend, "payments", &charge_service).decided_by(PAYMENTS, pod),
            call("payments", &payments, "orders", &order_service).decided_by(ORDERS, orders_pod),
            call("intruder", &intruder, "payments", &charge(pod)).decided_by(STRICT, pod),
            call("intruder", &intruder, "payments, IPv6", &charge(pod_v6))
                .decided_by(STRICT, pod_v6),
            call(
                "intruder",
                &intruder,
                "payments, Service IP",
                &charge_service,
            )
            .decided_by(STRICT, pod),
            call("node A", &node, "payments", &charge(pod)).decided_by(STRICT, pod),
            call("node A", &node, "payments, probe port", &healthy).gets("healthy"),
            call(
                "hostNetwork pod",
                &host_network,
                "payments, probe port",
                &healthy,
            )
            .decided_by(STRICT, probe),
            call(
                "frontend",
                &frontend,
                "outside the mesh",
                &format!("http://{outside}/"),
            )
            .gets("outside"),
        ])
    }

    /// The answer of `payments` to `orders`, whose own address it must have seen.
    fn receipt(&self, family: Family) -> String {
        format!("{RECEIPT}, charged to {}", self.orders.ip(family))
    }
}

/// A call that must be refused, unless its other methods say otherwise.
fn call(caller: &'static str, place: &Place, called: &'static str, url: &str) -> Call {
    Call {
        caller,
        called,
        expected: Ending::Refused,
        decider: None,
        place: place.clone(),
        url: url.to_owned(),
    }
}

impl Call {
    fn gets(mut self, answer: &str) -> Self {
        self.expected = Ending::Answered(answer.to_owned());
        self
    }

    fn decided_by(mut self, policy: &'static str, pod: SocketAddr) -> Self {
        self.decider = Some((policy, pod));
        self
    }

    /// Makes the call.
    ///
    /// # Errors
    ///
    /// Where curl cannot be run.
    pub fn make(&self) -> Result<Observed> {
        let outcome = curl(&self.place, &["--fail", "--verbose", &self.url])?;
        let ending = self.judge(&outcome);
        let detail = if outcome.status.success() {
            outcome.stdout.trim().to_owned()
        } else {
            last_complaint(&outcome.stderr).to_owned()
        };
        Ok(Observed { ending, detail })
    }

    fn judge(&self, outcome: &Outcome) -> Ending {
        let refused = ["Connection refused", "Connection reset by peer"];
        if outcome.status.success() {
            let awaited = match &self.expected {
                Ending::Answered(part) => part.as_str(),
                Ending::Refused | Ending::Other(_) => "",
            };
            if outcome.stdout.contains(awaited) {
                Ending::Answered(awaited.to_owned())
            } else {
                Ending::Other(format!("another answer: {}", outcome.stdout.trim()))
            }
        } else if refused.iter().any(|words| outcome.stderr.contains(words)) {
            Ending::Refused
        } else {
            Ending::Other(last_complaint(&outcome.stderr).to_owned())
        }
    }
}

fn last_complaint(stderr: &str) -> &str {
    let complaint = stderr.lines().rfind(|line| line.starts_with("curl: "));
    complaint.unwrap_or(stderr)
}
