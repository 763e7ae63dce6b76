//! What `ambit check` reports: the features that Ambit needs and that this kernel has or lacks.

pub mod foreign;
mod probe;

use std::fmt;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::BpfHelper;
use serde::Serialize;

use self::probe::ProbeResult;
use crate::kernel::bpf::AttachPoint;
use crate::kernel::capabilities::Capability;

/// Whether Ambit needs a feature.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Need {
    /// Ambit does not run without it.
    Required,
    /// Ambit runs without it, with reduced function.
    Optional,
}

/// Whether a feature is present.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub enum FeatureState {
    /// It is present.
    Present,
    /// It is absent, for this reason.
    Absent(String),
}

/// Something that Ambit needs of the kernel or of its environment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// What Ambit needs it for.
    pub needed_for: &'static str,
    /// The first Linux release that has it; empty if the release does not matter.
    pub since: &'static str,
    /// Whether Ambit runs without it.
    pub need: Need,
    /// Whether it is present.
    pub state: FeatureState,
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            FeatureState::Present => write!(f, "{}: present", self.name),
            FeatureState::Absent(reason) => {
                write!(
                    f,
                    "{}, needed for {}: absent: {reason}",
                    self.name, self.needed_for
                )
            }
        }
    }
}

/// What this kernel has and lacks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CheckReport {
    /// The kernel's release.
    pub kernel: String,
    /// Every feature, in the order in which an operator should fix them.
    pub features: Vec<Feature>,
}

impl CheckReport {
    /// Tries every feature. Makes programs, maps and a connection over loopback, and removes them again.
    pub fn gather() -> Self {
        let kernel = probe::kernel_release().unwrap_or_else(|error| format!("unknown ({error})"));
        Self {
            kernel,
            features: PROBES.iter().map(Probe::run).collect(),
        }
    }

    /// Returns the required features that are absent. If there are none, Ambit runs here.
    pub fn missing(&self) -> impl Iterator<Item = &Feature> {
        self.features.iter().filter(|feature| {
            feature.need == Need::Required && feature.state != FeatureState::Present
        })
    }
}

struct Probe {
    name: &'static str,
    needed_for: &'static str,
    since: &'static str,
    need: Need,
    attempt: fn() -> ProbeResult,
}

impl Probe {
    /// A feature that Ambit cannot run without.
    const fn new(
        name: &'static str,
        since: &'static str,
        needed_for: &'static str,
        attempt: fn() -> ProbeResult,
    ) -> Self {
        Self {
            name,
            needed_for,
            since,
            need: Need::Required,
            attempt,
        }
    }

    /// The same feature, but Ambit also runs without it.
    const fn optional(self) -> Self {
        Self {
            need: Need::Optional,
            ..self
        }
    }

    fn run(&self) -> Feature {
        let state = match (self.attempt)() {
            Ok(()) => FeatureState::Present,
            Err(reason) => FeatureState::Absent(reason),
        };
        let Self {
            name,
            needed_for,
            since,
            need,
            ..
        } = *self;
        Feature {
            name,
            needed_for,
            since,
            need,
            state,
        }
    }
}

/// In the order in which an operator should fix what is missing.
const PROBES: &[Probe] = &[
    Probe::new(
        "Linux 6.1",
        "6.1",
        "everything: older ones are not tested",
        probe::kernel_floor,
    ),
    Probe::new("CAP_BPF", "5.8", "loading the kernel programs", || {
        probe::capability(Capability::Bpf)
    }),
    Probe::new("CAP_NET_ADMIN", "", "attaching the kernel programs", || {
        probe::capability(Capability::NetAdmin)
    }),
    Probe::new(
        "CAP_SYS_ADMIN",
        "",
        "entering pods' network namespaces",
        || probe::capability(Capability::SysAdmin),
    ),
    Probe::new(
        "CAP_SYS_PTRACE",
        "",
        "finding the processes of a pod",
        || probe::capability(Capability::SysPtrace),
    ),
    Probe::new(
        "cgroup2",
        "4.5",
        "attaching programs to pods' processes",
        probe::cgroup2,
    ),
    Probe::new(
        "BPF file system",
        "4.4",
        "keeping pods closed without an agent",
        probe::bpffs,
    ),
    Probe::new(
        "cgroup/connect programs",
        "4.17",
        "redirecting outbound connections",
        || probe::hooks(&[AttachPoint::Connect4, AttachPoint::Connect6]),
    ),
    Probe::new(
        "cgroup/getpeername and getsockname programs",
        "5.8",
        "showing applications the addresses of their real peers",
        || {
            probe::hooks(&[
                AttachPoint::Getpeername4,
                AttachPoint::Getpeername6,
                AttachPoint::Getsockname4,
                AttachPoint::Getsockname6,
            ])
        },
    ),
    Probe::new(
        "sock_ops programs",
        "4.13",
        "following a connection's handshake",
        || probe::hooks(&[AttachPoint::SockOps]),
    ),
    Probe::new(
        "sk_lookup programs",
        "5.9",
        "steering inbound connections",
        || probe::hooks(&[AttachPoint::SkLookup]),
    ),
    Probe::new(
        "functions of connect programs",
        "6.1",
        "knowing pods and their sockets",
        || {
            probe::functions(
                ProgramType::CgroupSockAddr,
                &[
                    BpfHelper::BPF_FUNC_get_netns_cookie,
                    BpfHelper::BPF_FUNC_get_socket_cookie,
                    BpfHelper::BPF_FUNC_sk_storage_get,
                    BpfHelper::BPF_FUNC_get_current_ancestor_cgroup_id,
                    BpfHelper::BPF_FUNC_ringbuf_output,
                    BpfHelper::BPF_FUNC_skc_lookup_tcp,
                    BpfHelper::BPF_FUNC_set_retval,
                ],
            )
        },
    ),
    Probe::new(
        "functions of sock_ops programs",
        "5.15",
        "marking accepted sockets",
        || {
            probe::functions(
                ProgramType::SockOps,
                &[
                    BpfHelper::BPF_FUNC_get_netns_cookie,
                    BpfHelper::BPF_FUNC_sk_storage_get,
                    BpfHelper::BPF_FUNC_sock_ops_cb_flags_set,
                ],
            )
        },
    ),
    Probe::new(
        "functions of sk_lookup programs",
        "5.9",
        "choosing a listener",
        || {
            let functions = [
                BpfHelper::BPF_FUNC_sk_assign,
                BpfHelper::BPF_FUNC_ringbuf_output,
            ];
            probe::functions(ProgramType::SkLookup, &functions)
        },
    ),
    Probe::new(
        "socket storage",
        "5.2",
        "remembering what a socket dialled",
        || probe::maps(&[MapType::SkStorage]),
    ),
    Probe::new("socket maps", "5.6", "naming the agent's listeners", || {
        probe::maps(&[MapType::SockMap])
    }),
    Probe::new(
        "maps of maps",
        "4.12",
        "giving each pod a share of its own",
        || probe::maps(&[MapType::HashOfMaps]),
    ),
    Probe::new(
        "longest-prefix maps",
        "4.11",
        "knowing the mesh's addresses",
        || probe::maps(&[MapType::LpmTrie]),
    ),
    Probe::new("ring buffer", "5.8", "reporting denials", || {
        probe::maps(&[MapType::RingBuf])
    }),
    Probe::new(
        "bpf_link",
        "5.9",
        "replacing programs without a gap",
        probe::links,
    ),
    Probe::new(
        "SO_NETNS_COOKIE",
        "5.14",
        "telling pods apart",
        probe::namespace_cookies,
    ),
    Probe::new(
        "INET_DIAG_DESTROY",
        "4.5",
        "closing connections that policy no longer allows",
        probe::closing_connections,
    ),
    Probe::new(
        "kernel BTF",
        "5.2",
        "readable answers of the verifier",
        probe::kernel_types,
    )
    .optional(),
    Probe::new("IPv6", "", "IPv6 traffic of the mesh", probe::ipv6).optional(),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bare_netns, is_root};

    #[test]
    fn a_supported_kernel_lacks_nothing() {
        if !is_root() {
            return;
        }
        let report = CheckReport::gather();
        let missing = report.missing().map(Feature::to_string).collect::<Vec<_>>();
        assert!(missing.is_empty(), "on {}: {missing:#?}", report.kernel);
    }

    #[test]
    fn what_is_absent_is_named_with_its_use_and_reason() {
        if !is_root() {
            return;
        }
        // Without a loopback interface two features cannot work.
        let report = bare_netns().enter(CheckReport::gather).expect("enter");
        let absent = report
            .features
            .iter()
            .filter(|f| f.state != FeatureState::Present);
        let names = absent.map(|feature| feature.name).collect::<Vec<_>>();
        assert_eq!(names, ["INET_DIAG_DESTROY", "IPv6"]);
        let missing = report.missing().collect::<Vec<_>>();
        assert_eq!(missing.len(), 1, "IPv6 is optional");
        let sentence = missing[0].to_string();
        assert!(sentence.contains("closing connections"), "{sentence}");
        assert!(sentence.contains("over loopback failed"), "{sentence}");
    }
}
