//! The calls of the reference example, and their expected results.

use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::Reference;
use super::application::{CARD, RECEIPT};
use crate::client::{Reply, request};
use crate::lab::Lab;
use crate::place::Place;
use crate::plan::{Family, NodeName};
use crate::pod::Pod;

/// The expected result of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expected {
    /// The application answers, and its answer contains this.
    Answer(String),
    /// The connection is refused, or reset before an answer.
    Refusal,
    /// The request is answered with 403.
    Denial,
}

impl Expected {
    /// Whether the result is the expected one.
    pub fn is_met_by(&self, reply: &Reply) -> bool {
        match (self, reply) {
            (Self::Answer(part), Reply::Answer(whole)) => whole.contains(part),
            (Self::Refusal, Reply::Refusal(_)) => true,
            (Self::Denial, reply) => reply.is_denial(),
            (Self::Answer(_) | Self::Refusal, _) => false,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answer(_) => "answer",
            Self::Refusal => "refusal",
            Self::Denial => "403",
        })
    }
}

/// One call with curl.
#[derive(Clone)]
pub struct Call {
    /// The caller.
    pub caller: &'static str,
    /// The destination, for readers.
    pub called: &'static str,
    /// The expected result.
    pub expected: Expected,
    /// The expected decision; `None` if nothing decides.
    pub decider: Option<Decider>,
    place: Place,
    method: &'static str,
    url: String,
}

/// What decides about a call.
#[derive(Clone, Copy, Debug)]
pub struct Decider {
    /// `kernel` or `proxy`.
    pub layer: &'static str,
    /// The policy object, and its rule if a single rule decides.
    pub policy: &'static str,
    /// The address of a pod that the connection is for.
    pub pod: SocketAddr,
}

const ORDERS: &str = "AuthorizationPolicy orders/allow-frontend-to-order";
const PAYMENTS: &str = "AuthorizationPolicy payments/allow-orders-to-payments";
const CHARGES: &str = "AuthorizationPolicy payments/deny-all-but-charges rule 0";
const STRICT: &str = "PeerAuthentication istio-system/default";

impl Reference {
    /// The calls of the example under [`Policies::PerRequest`](super::Policies::PerRequest): the
    /// intended ones, those that policy forbids, and the attacks.
    ///
    /// # Errors
    ///
    /// If a control group for one of the callers cannot be made.
    pub fn calls(&self, lab: &Lab) -> Result<Vec<Call>> {
        Ok([
            self.calls_of_members(),
            self.calls_for_something_else(),
            self.calls_without_identity(lab)?,
            vec![self.call_outside()],
        ]
        .concat())
    }

    fn calls_of_members(&self) -> Vec<Call> {
        let [frontend, orders, payments, _] = self.pods().map(Pod::place);
        let orders_pod = self.orders.at(Self::PORT);
        let pod = self.payments.at(Self::PORT);
        let pod_v6 = SocketAddr::new(self.payments.ip(Family::V6), Self::PORT);
        let order = self.order("/order");
        let charge = self.charge("/charge");
        vec![
            call("frontend", frontend, "orders /order (→ payments)", &order)
                .gets(&self.receipt(Family::V4))
                .in_proxy(ORDERS, orders_pod),
            call("orders", orders, "payments /charge", &charge)
                .gets(&self.receipt(Family::V4))
                .in_proxy(PAYMENTS, pod),
            call(
                "orders",
                orders,
                "payments /charge, IPv6",
                &charge_at(pod_v6),
            )
            .gets(&self.receipt(Family::V6))
            .in_proxy(PAYMENTS, pod_v6),
            call("frontend", frontend, "payments /charge", &charge).in_kernel(PAYMENTS, pod),
            call("payments", payments, "orders /order", &order).in_kernel(ORDERS, orders_pod),
        ]
    }

    fn calls_for_something_else(&self) -> Vec<Call> {
        let [frontend, orders, _, _] = self.pods().map(Pod::place);
        let orders_pod = self.orders.at(Self::PORT);
        let pod = self.payments.at(Self::PORT);
        let of_orders = |path| call("frontend", frontend, path, &self.order(path));
        let of_payments = |path| call("orders", orders, path, &self.charge(path));
        let denied = |call: Call, called, policy, pod| Call {
            called,
            ..call.denied().in_proxy(policy, pod)
        };
        vec![
            denied(of_orders("/admin"), "orders /admin", ORDERS, orders_pod),
            denied(
                of_orders("/order/../admin"),
                "orders /order/../admin",
                ORDERS,
                orders_pod,
            ),
            denied(
                of_orders("/order").with_method("DELETE"),
                "orders DELETE /order",
                ORDERS,
                orders_pod,
            ),
            denied(of_payments("/refund"), "payments /refund", CHARGES, pod),
            denied(
                of_payments("/charge/%2e%2e/refund"),
                "payments /charge/%2e%2e/refund",
                CHARGES,
                pod,
            ),
        ]
    }

    fn calls_without_identity(&self, lab: &Lab) -> Result<Vec<Call>> {
        let intruder = self.intruder.place();
        let of_payments = self.payments.node();
        let node = &lab.node(of_payments)?;
        let host_network = &lab.host_network_pod(of_payments, "host-network")?;
        let pod = self.payments.at(Self::PORT);
        let pod_v6 = SocketAddr::new(self.payments.ip(Family::V6), Self::PORT);
        let probe = self.payments.at(Self::PROBE_PORT);
        let charge = self.charge("/charge");
        let healthy = format!("http://{probe}/healthy");
        Ok(vec![
            call("intruder", intruder, "payments", &charge_at(pod)).in_kernel(STRICT, pod),
            call("intruder", intruder, "payments, IPv6", &charge_at(pod_v6))
                .in_kernel(STRICT, pod_v6),
            call("intruder", intruder, "payments, Service IP", &charge).in_kernel(STRICT, pod),
            call("node A", node, "payments", &charge_at(pod)).in_kernel(STRICT, pod),
            call("node A", node, "payments, probe port", &healthy).gets("healthy"),
            call(
                "hostNetwork pod",
                host_network,
                "payments, probe port",
                &healthy,
            )
            .in_kernel(STRICT, probe),
        ])
    }

    fn call_outside(&self) -> Call {
        let outside = SocketAddr::new(NodeName::B.link_addresses().of(Family::V4), Self::PORT);
        let url = format!("http://{outside}/");
        call("frontend", self.frontend.place(), "outside the mesh", &url).gets("outside")
    }

    fn order(&self, path: &str) -> String {
        format!("http://{}{path}?{CARD}", self.orders_service.at())
    }

    fn charge(&self, path: &str) -> String {
        format!("http://{}{path}?{CARD}", self.payments_service.at())
    }

    /// The answer of `payments` to `orders`, whose own address it must have seen.
    fn receipt(&self, family: Family) -> String {
        format!("{RECEIPT}, charged to {}", self.orders.ip(family))
    }
}

fn charge_at(address: SocketAddr) -> String {
    format!("http://{address}/charge?{CARD}")
}

/// A call that must be refused, unless its other methods say otherwise.
fn call(caller: &'static str, place: &Place, called: &'static str, url: &str) -> Call {
    Call {
        caller,
        called,
        expected: Expected::Refusal,
        decider: None,
        place: place.clone(),
        method: "GET",
        url: url.to_owned(),
    }
}

impl Call {
    fn gets(mut self, answer: &str) -> Self {
        self.expected = Expected::Answer(answer.to_owned());
        self
    }

    fn denied(mut self) -> Self {
        self.expected = Expected::Denial;
        self
    }

    fn with_method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    fn in_kernel(self, policy: &'static str, pod: SocketAddr) -> Self {
        self.decided("kernel", policy, pod)
    }

    fn in_proxy(self, policy: &'static str, pod: SocketAddr) -> Self {
        self.decided("proxy", policy, pod)
    }

    fn decided(mut self, layer: &'static str, policy: &'static str, pod: SocketAddr) -> Self {
        self.decider = Some(Decider { layer, policy, pod });
        self
    }

    /// The same, as a question to `ambit explain`.
    ///
    /// # Errors
    ///
    /// If its URL is invalid.
    pub fn question(&self) -> Result<Vec<String>> {
        let rest = self.url.strip_prefix("http://").context("no URL of http")?;
        let (address, path) = rest.split_at(rest.find('/').context("no path")?);
        let to: SocketAddr = address.parse()?;
        let (to, port) = (to.ip().to_string(), to.port().to_string());
        let from = match self.caller {
            "node A" | "hostNetwork pod" => NodeName::A.link_addresses().v4.to_string(),
            pod => format!("pod:{pod}/{pod}"),
        };
        let words = ["--from", &from, "--to", &to, "--port", &port];
        let request = ["--method", self.method, "--path", path];
        Ok(words
            .into_iter()
            .chain(request)
            .map(str::to_owned)
            .collect())
    }

    /// Makes the call.
    ///
    /// # Errors
    ///
    /// If curl cannot be run.
    pub fn make(&self) -> Result<Reply> {
        request(&self.place, &["--request", self.method, &self.url])
    }
}
