//! The lab: two nodes and the link between them.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::agent::{Agent, ca_directory};
use crate::authority::CaAccess;
use crate::cgroup;
use crate::crash::STOPPED;
use crate::descriptors;
use crate::manifest::Manifests;
use crate::netns::Netns;
use crate::place::Place;
use crate::plan::{Addresses, Family, GATEWAY, NodeName};
use crate::pod::{Pod, PodSpec};
use crate::process::output;
use crate::run::Run;
use crate::same_node::{Placement, SameNode};
use crate::service::Service;

/// The first host part that a pod or Service gets.
const FIRST_HOST: u8 = 10;

/// Two nodes, joined by a link, with their pods and Services. Dropping it removes all of it.
pub struct Lab {
    run: Run,
    cgroup: PathBuf,
    manifests: Manifests,
    next_host: Cell<u8>,
    certificate_lifetime: Cell<Option<u32>>,
    certificate_authority: RefCell<Option<CaAccess>>,
    same_node: Cell<SameNode>,
    placement: Cell<Placement>,
}

impl Lab {
    /// Builds the nodes and the link, without pods and without agents.
    ///
    /// # Errors
    ///
    /// If this kernel or user cannot do it: it takes root, network namespaces and cgroup2.
    pub fn new() -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "a lab needs root, for network namespaces and control groups"
        );
        descriptors::raise()?;
        let same_node = SameNode::of_environment()?;
        let run = Run::start()?;
        let manifests = Manifests::create(run.directory().join("config"))?;
        fs::create_dir(run.directory().join("logs"))?;
        let lab = Self {
            cgroup: cgroup::mount_point()?.join(run.name()),
            manifests,
            next_host: Cell::new(FIRST_HOST),
            certificate_lifetime: Cell::new(None),
            certificate_authority: RefCell::default(),
            same_node: Cell::new(same_node),
            placement: Cell::new(same_node.placement()),
            run,
        };
        for node in NodeName::ALL {
            let netns = Netns::create(lab.netns_name(node.as_str()))?;
            netns.sysctl(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
        }
        lab.link()?;
        Ok(lab)
    }

    /// The prefix of all names that this lab gives to kernel objects.
    pub fn name(&self) -> String {
        self.run.name()
    }

    /// The lab's files.
    pub fn directory(&self) -> PathBuf {
        self.run.directory()
    }

    /// A new file for the output of a process.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub fn new_log(&self, program: &str) -> Result<PathBuf> {
        let log = tempfile::Builder::new()
            .prefix(&format!("{program}-"))
            .suffix(".log")
            .tempfile_in(self.directory().join("logs"))?;
        Ok(log.into_temp_path().keep()?)
    }

    /// The ends of all logs, for the analysis of failures.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    pub fn logs(&self) -> Result<String> {
        let mut all = String::new();
        for entry in fs::read_dir(self.directory().join("logs"))? {
            let path = entry?.path();
            let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let end = lines[lines.len().saturating_sub(40)..].join("\n");
            all.push_str(&format!("--- {}\n{end}\n", path.display()));
        }
        Ok(all)
    }

    /// The configuration that both agents read.
    pub fn manifests(&self) -> &Manifests {
        &self.manifests
    }

    /// The node itself: in its network namespace and, as its system services are, in a control group
    /// outside that of its pods.
    ///
    /// # Errors
    ///
    /// If its control group cannot be made.
    pub fn node(&self, node: NodeName) -> Result<Place> {
        self.place_on(node, "system")
    }

    /// A pod with `hostNetwork`: in the node's network namespace, in a control group of a pod.
    ///
    /// # Errors
    ///
    /// If its control group cannot be made.
    pub fn host_network_pod(&self, node: NodeName, name: &str) -> Result<Place> {
        self.place_on(node, &format!("kubepods/{name}"))
    }

    /// Outside both nodes' control groups, where no agent's programs run; in a node's network.
    ///
    /// # Errors
    ///
    /// If its control group cannot be made.
    pub(crate) fn observer(&self, node: NodeName) -> Result<Place> {
        Place::create(self.node_netns(node), self.cgroup.join("observer"))
    }

    /// Adds a pod to a node: its network namespace, addresses, routes and control group.
    /// Its configuration is not written: see [`Pod::manifest`].
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn add_pod(&self, node: NodeName, spec: PodSpec) -> Result<Pod> {
        let host = self.take_host()?;
        let node = self.placement.get().of(node);
        let addresses = node.pod_addresses(host);
        self.add_pod_at(node, spec, addresses)
    }

    /// Adds a pod with these addresses, for example those of a pod that was removed.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn add_pod_at(&self, node: NodeName, spec: PodSpec, addresses: Addresses) -> Result<Pod> {
        let netns = Netns::create(self.netns_name(spec.name))?;
        self.connect_pod(node, &netns, addresses)?;
        let cgroup = self.node_cgroup(node).join("kubepods").join(spec.name);
        Ok(Pod::new(
            spec,
            node,
            addresses,
            Place::create(netns, cgroup)?,
        ))
    }

    /// A network namespace that a pod has made, whose packets it forwards as its own: a process in
    /// it is in the pod's control group, and not in its network.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn nest(&self, pod: &Pod) -> Result<Place> {
        let outer = pod.place().netns();
        let inner = Netns::create(self.netns_name(&format!("{}-nested", pod.name())))?;
        outer.sysctl(&[("ipv4/ip_forward", "1")])?;
        outer.ip(&format!(
            "link add nested type veth peer name eth0 netns {}\n\
             address add 192.0.2.1/30 dev nested\nlink set nested up\n",
            inner.name()
        ))?;
        inner.ip("address add 192.0.2.2/30 dev eth0\nlink set eth0 up\n\
             route add default via 192.0.2.1\n")?;
        let masquerade = "add table ip nested; \
            add chain ip nested out { type nat hook postrouting priority srcnat; }; \
            add rule ip nested out ip saddr 192.0.2.0/30 masquerade";
        let outcome = output(pod.command("nft")?.arg(masquerade))?;
        ensure!(outcome.status.success(), "nft: {}", outcome.stderr);
        Place::create(inner, pod.place().cgroup().to_owned())
    }

    /// Removes a pod and what runs in it.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn remove_pod(&self, pod: &Pod) -> Result<()> {
        cgroup::remove(
            &self
                .node_cgroup(pod.node())
                .join("kubepods")
                .join(pod.name()),
        )?;
        // Like a network plugin: the namespace itself lives as long as a socket in it.
        let device = format!("pod{}", pod.addresses().v4.octets()[3]);
        self.node_netns(pod.node())
            .ip(&format!("link del {device}\n"))?;
        crate::netns::remove(pod.place().netns().name())
    }

    /// Adds a Service in front of a pod, and makes both nodes translate its addresses for callers
    /// outside the mesh, as kube-proxy does.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn add_service(&self, pod: &Pod, port: u16, target_port: u16) -> Result<Service> {
        let addresses = Addresses::of_service(self.take_host()?);
        let service = Service::new(pod, addresses, port, target_port);
        for node in NodeName::ALL {
            service.translate_on(&self.observer(node)?, pod)?;
        }
        Ok(service)
    }

    /// Starts a node's agent and waits until it serves all of its pods.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn start_agent(&self, node: NodeName) -> Result<Agent> {
        let mut agent = self.spawn_agent(node)?;
        agent.wait_until_serving()?;
        Ok(agent)
    }

    /// Starts a node's agent and waits only until it answers.
    ///
    /// # Errors
    ///
    /// If it cannot be asked in time.
    pub fn spawn_agent(&self, node: NodeName) -> Result<Agent> {
        let mut agent = self.launch_agent(node)?;
        agent.wait_until_answering()?;
        Ok(agent)
    }

    /// Starts a node's agent and does not wait.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn launch_agent(&self, node: NodeName) -> Result<Agent> {
        self.launch_agent_by(node, &[])
    }

    /// Starts a node's agent by a command that ends by becoming the agent, for example `env
    /// NAME=VALUE`, and does not wait.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn launch_agent_by(&self, node: NodeName, wrapper: &[&str]) -> Result<Agent> {
        let place = self.place_on(node, "agent")?;
        cgroup::create(&self.node_cgroup(node).join("kubepods"))?;
        Agent::launch(self, node, &place, wrapper)
    }

    /// Starts a node's agent, which is stopped before its first instruction: SIGCONT lets it continue.
    ///
    /// # Errors
    ///
    /// If it cannot be started, or is not stopped.
    pub fn launch_stopped_agent(&self, node: NodeName) -> Result<Agent> {
        let agent = self.launch_agent_by(node, &STOPPED)?;
        agent.wait_until_stopped()?;
        Ok(agent)
    }

    /// Waits until an agent that was launched serves all of its pods.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn wait_until_serving(&self, agent: &mut Agent) -> Result<()> {
        agent.wait_until_serving()
    }

    /// Sets how connections between two pods of one node travel, whatever the environment says, and leaves
    /// each pod on the node that the test names. Before the first pod is added.
    pub fn set_same_node(&self, same_node: SameNode) {
        self.same_node.set(same_node);
        self.keep_nodes_apart();
    }

    /// Leaves each pod on the node that the test names, because it is about two nodes. Before the first pod
    /// is added.
    pub fn keep_nodes_apart(&self) {
        self.placement.set(Placement::AsNamed);
    }

    /// On which nodes pods are.
    pub(crate) fn placement(&self) -> Placement {
        self.placement.get()
    }

    /// How connections between two pods of one node travel.
    pub fn same_node(&self) -> SameNode {
        self.same_node.get()
    }

    /// Sets how long certificates of agents that are started from now on are valid, in seconds.
    pub fn set_certificate_lifetime(&self, seconds: u32) {
        self.certificate_lifetime.set(Some(seconds));
    }

    /// Makes agents that are started from now on get their certificates from a server.
    pub(crate) fn set_certificates_from(&self, authority: CaAccess) {
        *self.certificate_authority.borrow_mut() = Some(authority);
    }

    /// The options of a node's agent that choose its certificate authority.
    pub(crate) fn certificate_options(&self, node: NodeName) -> Vec<String> {
        let authority = self.certificate_authority.borrow();
        let mut options = match &*authority {
            Some(authority) => authority.options(node),
            None => vec![
                "--ca-dir".to_owned(),
                ca_directory(self).display().to_string(),
            ],
        };
        if let Some(seconds) = self.certificate_lifetime.get() {
            options.extend(["--certificate-lifetime".to_owned(), seconds.to_string()]);
        }
        options
    }

    /// Starts both agents.
    ///
    /// # Errors
    ///
    /// If one does not begin to serve.
    pub fn start_agents(&self) -> Result<[Agent; 2]> {
        let [a, b] = NodeName::ALL;
        Ok([self.start_agent(a)?, self.start_agent(b)?])
    }

    /// Leaves the lab up when this is dropped; [`crate::remove_kept`] removes it.
    ///
    /// # Errors
    ///
    /// If the mark for that cannot be written.
    pub fn keep(&self) -> Result<()> {
        self.run.keep()
    }

    /// A node's root control group, to which its agent attaches its programs.
    pub(crate) fn node_cgroup(&self, node: NodeName) -> PathBuf {
        self.cgroup.join(node.as_str())
    }

    /// The pin directory of a node's agent.
    pub fn pins(&self, node: NodeName) -> PathBuf {
        Path::new("/sys/fs/bpf")
            .join(self.name())
            .join(node.as_str())
    }

    fn place_on(&self, node: NodeName, group: &str) -> Result<Place> {
        Place::create(self.node_netns(node), self.node_cgroup(node).join(group))
    }

    fn netns_name(&self, of: &str) -> String {
        format!("{}-{of}", self.name())
    }

    fn node_netns(&self, node: NodeName) -> Netns {
        Netns::existing(self.netns_name(node.as_str()))
    }

    fn take_host(&self) -> Result<u8> {
        let host = self.next_host.get();
        let next = host.checked_add(1).context("the lab is out of addresses")?;
        self.next_host.set(next);
        Ok(host)
    }

    fn link(&self) -> Result<()> {
        let [a, b] = NodeName::ALL.map(|node| self.node_netns(node));
        a.ip(&format!(
            "link add link0 type veth peer name link0 netns {}",
            b.name()
        ))?;
        for node in NodeName::ALL {
            let [v4, v6] = node.link_addresses().texts();
            self.node_netns(node).ip(&format!(
                "address add {v4}/24 dev link0\naddress add {v6}/64 dev link0 nodad\n\
                 link set link0 up\n"
            ))?;
        }
        for node in NodeName::ALL {
            let other = node.other();
            let route = |family: Family| {
                let range = other.pod_range(family);
                let via = other.link_addresses().of(family);
                let everything = family.everything();
                format!("route add {range} via {via}\nroute add {everything} dev link0\n")
            };
            self.node_netns(node).ip(&Family::ALL.map(route).concat())?;
        }
        Ok(())
    }

    fn connect_pod(&self, node: NodeName, pod: &Netns, addresses: Addresses) -> Result<()> {
        let gateway = node.pod_addresses(GATEWAY);
        let device = format!("pod{}", addresses.v4.octets()[3]);
        let node = self.node_netns(node);
        node.ip(&format!(
            "link add {device} type veth peer name eth0 netns {}\nlink set {device} up\n",
            pod.name()
        ))?;
        pod.ip("link set eth0 up")?;
        for family in Family::ALL {
            let (inside, outside) = (addresses.of(family), gateway.of(family));
            let (prefix, nodad) = match family {
                Family::V4 => (32, ""),
                Family::V6 => (128, " nodad"),
            };
            node.ip(&format!(
                "address add {outside}/{prefix} dev {device}{nodad}\n\
                 route add {inside} dev {device}\n"
            ))?;
            pod.ip(&format!(
                "address add {inside}/{prefix} dev eth0{nodad}\n\
                 route add {outside} dev eth0\nroute add default via {outside}\n"
            ))?;
        }
        Ok(())
    }
}
