//! A mesh on one machine: two nodes in their own network namespaces, joined by a link, with pods,
//! Services and an agent on each. Everything is real: kernel, processes, addresses, certificates.
//!
//! [`Lab::new`] builds the nodes; dropping the [`Lab`] removes every trace of it, and the next lab
//! on this machine removes what a killed one left behind.

mod agent;
mod authority;
mod authorizer;
mod bpf;
mod bpf_call;
mod capture;
mod cgroup;
mod client;
mod cluster;
mod crash;
mod decision;
mod descriptors;
mod dialer;
mod envoy;
mod escape;
mod footprint;
mod hbone;
mod hoard;
mod hostile;
mod http2;
mod impostor;
mod lab;
mod link;
mod manifest;
mod netns;
mod nginx;
mod peers;
mod place;
mod plan;
mod pod;
mod process;
mod pulse;
mod raw;
mod reader;
mod reference;
mod relay;
mod run;
mod runner;
mod same_node;
mod server;
mod service;
mod site;
mod swarm;
mod tls;
mod token;
mod wait;
mod web;
mod ztunnel;

pub use agent::{Agent, ambit, binary};
pub use authority::protocol as ca_protocol;
pub use authority::{
    CaAnswer, CaCall, CaEndpoint, CaFault, CaFiles, CaServer, CallerLimits, CallerToken, WrongCa,
    certificate_names, signing_request,
};
pub use authorizer::{GrpcAuthorizer, PythonAuthorizer};
pub use bpf::{PinnedMap, pinned_links};
pub use capture::{Capture, Captured};
pub use client::{HeldConnection, Reply, get, get_from, request};
pub use cluster::{
    Account, Api, ApiServer, Bearer, CaRights, Cluster, ClusterCa, Istiod, NodeAccounts, Sidecar,
};
pub use crash::Crash;
pub use decision::{Decision, LogMark};
pub use dialer::{Dialer, Dialled};
pub use envoy::Envoy;
pub use escape::{ForgedSyns, Way, accept_by_ring, meddle};
pub use footprint::Footprint;
pub use hbone::{HboneCall, HboneReply, TunnelData};
pub use hoard::{Hoard, Hoarded, Http, Unhelpful, UnhelpfulServer};
pub use hostile::{Frame, HostileClient, is_connected};
pub use http2::{FramesCall, Http2Call, Http2Request};
pub use impostor::{Claim, Credentials, Signer, Validity};
pub use lab::Lab;
pub use link::{CongestionControl, Link, Rate, SlowLink};
pub use manifest::Manifests;
pub use netns::Netns;
pub use nginx::Nginx;
pub use peers::{envoy_binary, peer};
pub use place::Place;
pub use plan::{Addresses, Family, NodeName};
pub use pod::{Membership, Pod, PodSpec};
pub use process::{Outcome, Process, output, output_within};
pub use pulse::{Connections, Pulse};
pub use raw::{RawAnswer, RawCall, RawEnd, RawReply, Until};
pub use reader::{ReadAnswer, ReaderOrder, Readers, Reading, Source, Timing, pattern};
pub use reference::{
    Application, Call, Decider, Expected, PAYLOADS, Policies, Reference, TRUST_DOMAIN,
};
pub use relay::{Relay, relay_binary};
pub use run::{remove_kept, tear_down_on_signals};
pub use runner::{Test, run_tests, run_tests_of, skip};
pub use same_node::SameNode;
pub use server::{LabServer, Mode};
pub use service::Service;
pub use site::{Backend, Site};
pub use swarm::{Swarm, SwarmServer};
pub use tls::tls_client;
pub use token::{TokenIssuer, unsigned};
pub use wait::{SOON, eventually, slowness};
pub use web::WebServer;
pub use ztunnel::{Ztunnel, proxy_binary};
