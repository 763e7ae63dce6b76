//! The node's programs. They are attached once, to the cgroup above all pods.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ambit_common::{NetnsCookie, NodeSettings, Ticket, TicketKind, TicketVerdict};
use aya::maps::{Array, MapData};
use aya::programs::{CgroupAttachMode, Program};
use aya::{Ebpf, EbpfLoader};
use socket2::Domain;

use crate::kernel::grace::Grace;
use crate::kernel::link::LinkTarget;
use crate::pins::{NODE_MAPS, SHARED_MAPS};
use crate::sockets::failed::FailedTable;
use crate::sockets::stock::tcp_socket;
use crate::sockets::ticket::Tickets;
use crate::{DatapathError, KernelLog, Pins, programs};

/// The names of the programs.
const PROGRAMS: [&str; 7] = [
    "ambit_connect4",
    "ambit_connect6",
    "ambit_getpeername4",
    "ambit_getpeername6",
    "ambit_getsockname4",
    "ambit_getsockname6",
    "ambit_sock_ops",
];

/// The installed programs of a node.
#[derive(Debug)]
pub struct NodePrograms {
    ebpf: Ebpf,
}

impl NodePrograms {
    /// Loads the programs and attaches them to `cgroup`, or puts them in the links that an earlier agent left
    /// pinned. Then proves that the connect hook sees this process.
    ///
    /// # Errors
    /// [`DatapathError`] for what the kernel refused; [`DatapathError::HookDoesNotSeeAgent`] if
    /// this process is not in a cgroup below `cgroup`.
    pub fn install(
        pins: &Pins,
        cgroup: &Path,
        settings: NodeSettings,
        log: KernelLog,
    ) -> Result<Self, DatapathError> {
        let ebpf = attach_all(pins, cgroup, settings, log)?;
        let tickets = Tickets::open(pins)?;
        tickets.clear()?;
        FailedTable::open(pins)?.clear()?;
        prove_hook_sees_agent(&tickets, settings.host_netns)?;
        let known: Array<MapData, NodeSettings> = pins.array("NODE")?;
        let told = known
            .get(&0, 0)
            .map_err(DatapathError::map("NODE", "read"))?;
        if told.agent == 0 {
            return Err(DatapathError::HookDoesNotSeeAgent(
                "it did not note the agent's process",
            ));
        }
        Ok(Self { ebpf })
    }

    /// Returns the loaded object, for the kernel programs' log.
    pub fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}

fn load(pins: &Pins, log: KernelLog) -> Result<Ebpf, DatapathError> {
    let mut loader = EbpfLoader::new();
    let level = log.level();
    loader.override_global("AYA_LOG_LEVEL", &level, false);
    for map in SHARED_MAPS.iter().chain(&NODE_MAPS) {
        loader.map_pin_path(map, pins.map(map));
    }
    loader
        .load(programs::NODE_OBJECT)
        .map_err(|source| DatapathError::Load {
            object: "node",
            source: Box::new(source),
        })
}

/// Loads the programs and attaches them to `cgroup`.
pub(crate) fn attach_all(
    pins: &Pins,
    cgroup: &Path,
    settings: NodeSettings,
    log: KernelLog,
) -> Result<Ebpf, DatapathError> {
    let cgroup = File::open(cgroup).map_err(DatapathError::pin(cgroup.to_owned(), "opened"))?;
    let mut ebpf = load(pins, log)?;
    write_settings(pins, settings)?;
    for name in PROGRAMS {
        let program = ebpf
            .program_mut(name)
            .ok_or(DatapathError::NoProgram(name))?;
        attach(pins, name, program, &cgroup)?;
    }
    Ok(ebpf)
}

/// Writes the settings. Programs of an earlier agent may read them meanwhile, and might see parts of the old
/// and of the new ones. So they are written while no network namespace counts as the node's, which is
/// stricter.
fn write_settings(pins: &Pins, settings: NodeSettings) -> Result<(), DatapathError> {
    const NOT_THE_NODE: NetnsCookie = NetnsCookie(0);
    let mut map: Array<_, NodeSettings> = pins.array("NODE")?;
    let known = map.get(&0, 0).map_err(DatapathError::map("NODE", "read"))?;
    if known == settings {
        return Ok(());
    }
    let mut grace = Grace::new()?;
    let without_node = |of: NodeSettings| NodeSettings {
        host_netns: NOT_THE_NODE,
        ..of
    };
    for step in [without_node(known), without_node(settings), settings] {
        map.set(0, step, 0)
            .map_err(DatapathError::map("NODE", "written"))?;
        let now = grace.note();
        grace.wait(now)?;
    }
    Ok(())
}

/// Attaches a program, or puts it in the pinned link.
fn attach(
    pins: &Pins,
    name: &'static str,
    program: &mut Program,
    cgroup: &File,
) -> Result<(), DatapathError> {
    let refused = |source| DatapathError::Program {
        program: name,
        source: Box::new(source),
    };
    let path = pins.link(name);
    let target = LinkTarget::Cgroup(Some(cgroup_id(cgroup)?));
    match program {
        Program::CgroupSockAddr(program) => {
            program.load().map_err(refused)?;
            if programs::replace(&path, program.fd().map_err(refused)?, target)? {
                return Ok(());
            }
            let id = program
                .attach(cgroup, CgroupAttachMode::Single)
                .map_err(refused)?;
            programs::pin(program.take_link(id).map_err(refused)?, &path)
        }
        Program::SockOps(program) => {
            program.load().map_err(refused)?;
            if programs::replace(&path, program.fd().map_err(refused)?, target)? {
                return Ok(());
            }
            let id = program
                .attach(cgroup, CgroupAttachMode::Single)
                .map_err(refused)?;
            programs::pin(program.take_link(id).map_err(refused)?, &path)
        }
        _ => Err(DatapathError::NoProgram(name)),
    }
}

/// Returns a cgroup's id, which on 64-bit systems is the inode of its directory (kernfs, Linux 5.5).
fn cgroup_id(cgroup: &File) -> Result<u64, DatapathError> {
    Ok(cgroup.metadata().map_err(DatapathError::Socket)?.ino())
}

/// Dials with a ticket that is always denied. If the connect is not denied, the hook does not see this
/// process, and its verdicts cannot be relied on.
fn prove_hook_sees_agent(tickets: &Tickets, own: NetnsCookie) -> Result<(), DatapathError> {
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let socket = tcp_socket(Domain::IPV4).map_err(DatapathError::Socket)?;
    let ticket = Ticket::new(TicketKind::Canary, own, nowhere.into());
    let answered = tickets
        .connect(&socket, nowhere, ticket)
        .map_err(DatapathError::Socket)?;
    match (
        TicketVerdict::from_u8(answered.ticket.verdict),
        answered.connect,
    ) {
        (TicketVerdict::Deny, Err(_)) => Ok(()),
        (TicketVerdict::Pending, _) => Err(DatapathError::HookDoesNotSeeAgent(
            "a connection that must be denied was not seen",
        )),
        _ => Err(DatapathError::HookDoesNotSeeAgent(
            "a connection that must be denied went on",
        )),
    }
}
