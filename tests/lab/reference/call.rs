//! Who calls whom in the reference example, and what must come of it.

use std::fmt;
use std::net::SocketAddr;

use anyhow::Result;

use super::Reference;
use super::application::{CARD, RECEIPT};
use crate::client::{Reply, get};
use crate::lab::Lab;
use crate::place::Place;
use crate::plan::{Family, NodeName};

/// What must come of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expected {
    /// The application answers, and its answer has this in it.
    Answer(String),
    /// The connection is refused, or reset before an answer.
    Refusal,
}

impl Expected {
    /// Whether it came so.
    pub fn is_met_by(&self, reply: &Reply) -> bool {
        match (self, reply) {
            (Self::Answer(part), Reply::Answer(whole)) => whole.contains(part),
            (Self::Refusal, Reply::Refusal(_)) => true,
            (Self::Answer(_) | Self::Refusal, _) => false,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answer(_) => "answer",
            Self::Refusal => "refusal",
        })
    }
}

/// One call with curl.
pub struct Call {
    /// Who calls.
    pub caller: &'static str,
    /// Whom, as a reader understands it.
    pub called: &'static str,
    /// What must come of it.
    pub expected: Expected,
    /// Which policy must have decided, and about a connection to which address of a pod; `None`
    /// where none does.
    pub decider: Option<(&'static str, SocketAddr)>,
    place: Place,
    url: String,
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
        expected: Expected::Refusal,
        decider: None,
        place: place.clone(),
        url: url.to_owned(),
    }
}

impl Call {
    fn gets(mut self, answer: &str) -> Self {
        self.expected = Expected::Answer(answer.to_owned());
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
    pub fn make(&self) -> Result<Reply> {
        get(&self.place, &self.url)
    }
}
