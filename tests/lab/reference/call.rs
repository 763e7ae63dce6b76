//! Who calls whom in the reference example, and what must come of it.

use std::fmt;

use anyhow::Result;

use super::{RECEIPT, Reference};
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
    /// Which policy must have decided; `None` where none does.
    pub decider: Option<&'static str>,
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

const ORDERS: Option<&str> = Some("AuthorizationPolicy orders/allow-frontend-to-orders");
const PAYMENTS: Option<&str> = Some("AuthorizationPolicy payments/allow-orders-to-payments");
const STRICT: Option<&str> = Some("PeerAuthentication istio-system/default");

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

        let order = format!("http://{}/order", self.orders_service.at());
        let charge = format!("http://{}/charge", self.payments_service.at());
        let at = |family, port, path: &str| {
            let address = std::net::SocketAddr::new(self.payments.ip(family), port);
            format!("http://{address}/{path}")
        };
        let charge_pod = at(Family::V4, Self::PORT, "charge");
        let charge_pod_v6 = at(Family::V6, Self::PORT, "charge");
        let probe = at(Family::V4, Self::PROBE_PORT, "healthy");
        let outside = NodeName::B.link_addresses().v4;
        let outside = format!("http://{outside}:{}/", Self::PORT);

        let charged = |family| {
            let caller = self.orders.ip(family);
            Ending::Answered(format!("{RECEIPT}, charged to {caller}"))
        };
        let answered = |what: &str| Ending::Answered(what.to_owned());
        let refused = || Ending::Refused;
        let call = |caller, place: &Place, called, url: &str, expected, decider| Call {
            caller,
            called,
            expected,
            decider,
            place: place.clone(),
            url: url.to_owned(),
        };
        Ok(vec![
            call(
                "frontend",
                &frontend,
                "orders (→ payments)",
                &order,
                charged(Family::V4),
                ORDERS,
            ),
            call(
                "orders",
                &orders,
                "payments",
                &charge,
                charged(Family::V4),
                PAYMENTS,
            ),
            call(
                "orders",
                &orders,
                "payments, IPv6",
                &charge_pod_v6,
                charged(Family::V6),
                PAYMENTS,
            ),
            call(
                "frontend",
                &frontend,
                "payments",
                &charge,
                refused(),
                PAYMENTS,
            ),
            call("payments", &payments, "orders", &order, refused(), ORDERS),
            call(
                "intruder",
                &intruder,
                "payments, pod IP",
                &charge_pod,
                refused(),
                STRICT,
            ),
            call(
                "intruder",
                &intruder,
                "payments, IPv6",
                &charge_pod_v6,
                refused(),
                STRICT,
            ),
            call(
                "intruder",
                &intruder,
                "payments, Service IP",
                &charge,
                refused(),
                STRICT,
            ),
            call(
                "node A",
                &node,
                "payments, no probe port",
                &charge_pod,
                refused(),
                STRICT,
            ),
            call(
                "node A",
                &node,
                "payments, probe port",
                &probe,
                answered("healthy"),
                None,
            ),
            call(
                "hostNetwork pod",
                &host_network,
                "payments, probe port",
                &probe,
                refused(),
                STRICT,
            ),
            call(
                "frontend",
                &frontend,
                "outside the mesh",
                &outside,
                answered("outside"),
                None,
            ),
        ])
    }
}

impl Call {
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
