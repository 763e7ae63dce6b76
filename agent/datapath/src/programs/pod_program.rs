//! A pod's `sk_lookup` program. It is attached to the pod's network namespace, and pinned with its maps.

use std::net::TcpListener;
use std::path::Path;

use ambit_common::{FourTuple, NetnsCookie, PodProgramConstants, SocketRecord, listener_slot};
use aya::maps::{HashMap, HashOfMaps, Map, MapData, MapError, SockMap};
use aya::programs::{ProgramError, SkLookup};
use aya::{Ebpf, EbpfLoader};

use crate::KernelLog;
use crate::error::removed;
use crate::kernel::link::{LinkTarget, PinnedLink};
use crate::kernel::netns::NetnsHandle;
use crate::pins::{self, POD_MAPS, SHARED_MAPS};
use crate::pod::owner;
use crate::sockets::listeners::PodListenerSet;
use crate::sockets::marks;
use crate::{DatapathError, Pins, programs};

const PROGRAM: &str = "ambit_sk_lookup";
const HANDSHAKES: &str = "HANDSHAKES";
const HANDSHAKES_OF: &str = "HANDSHAKES_OF";

/// The pin of the program's link.
const LINK: &str = "link";

/// The program of one pod. Dropping it leaves everything in place. [`detach`] takes the program away.
pub(crate) struct PodProgram {
    listeners: SockMap<MapData>,
}

impl PodProgram {
    /// Attaches the program with empty slots, which refuse everything that is for the agent; or puts it in
    /// the link that an earlier agent left pinned.
    ///
    /// # Errors
    /// [`DatapathError`] for what the kernel refused.
    pub(crate) fn attach(
        pins: &Pins,
        netns: &NetnsHandle,
        cookie: NetnsCookie,
        log: KernelLog,
    ) -> Result<Self, DatapathError> {
        let folder = pins.pod(cookie);
        pins::create(&folder)?;
        let mut ebpf = load(pins, &folder, cookie, log)?;
        // This comes before the maps are taken out of the object, which closes them.
        load_program(&mut ebpf)?;
        let listeners = take(&mut ebpf, "LISTENERS")?
            .try_into()
            .map_err(DatapathError::map("LISTENERS", "opened"))?;
        // This comes before anything that can fail for lack of room: the program refuses what it has no maps
        // for.
        install(&mut ebpf, netns, &folder.join(LINK))?;
        enter_handshakes(pins, &mut ebpf, cookie)?;
        Ok(Self { listeners })
    }

    /// Marks the listeners as the agent's, and fills the slots.
    ///
    /// # Errors
    /// [`DatapathError::Map`] if the kernel refused a socket.
    pub(crate) fn serve(
        &mut self,
        pins: &Pins,
        listeners: &PodListenerSet,
    ) -> Result<(), DatapathError> {
        marks::mark(pins, listeners.iter().map(|(_, _, _, listener)| listener))?;
        for (kind, family, shard, listener) in listeners.iter() {
            self.fill(listener_slot(kind, family, shard), listener)?;
        }
        Ok(())
    }

    fn fill(&mut self, slot: u32, listener: &TcpListener) -> Result<(), DatapathError> {
        self.listeners
            .set(slot, listener, 0)
            .map_err(DatapathError::map("LISTENERS", "written"))
    }
}

/// Detaches a pod's program from its network namespace. From here on, new connections to the pod pass.
///
/// # Errors
/// [`DatapathError`] if the pin could not be removed.
pub(crate) fn detach(pins: &Pins, netns: NetnsCookie) -> Result<(), DatapathError> {
    pins::remove(&pins.pod(netns).join(LINK))
}

/// Removes what is left of a pod that no longer has a program or an entry. The folder goes last, so that the
/// next agent finds it if this one is killed meanwhile.
///
/// # Errors
/// [`DatapathError`] if a pin could not be removed.
pub(crate) fn remove_pins(pins: &Pins, netns: NetnsCookie) -> Result<(), DatapathError> {
    let folder = pins.pod(netns);
    let mut handshakes = handshakes_of(pins)?;
    removed(handshakes.remove(&netns), HANDSHAKES_OF)?;
    for map in POD_MAPS {
        pins::remove(&folder.join(map))?;
    }
    owner::remove(&folder)?;
    pins::remove(&folder)
}

/// Returns what the link of a pod's program is attached to; `None` if there is no link.
///
/// # Errors
/// [`DatapathError::Link`] if the link cannot be read.
pub(crate) fn link_target(
    pins: &Pins,
    netns: NetnsCookie,
) -> Result<Option<LinkTarget>, DatapathError> {
    match PinnedLink::open(&pins.pod(netns).join(LINK)) {
        Ok(link) => Ok(Some(link.info()?.target)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn load(
    pins: &Pins,
    folder: &Path,
    netns: NetnsCookie,
    log: KernelLog,
) -> Result<Ebpf, DatapathError> {
    let mut loader = EbpfLoader::new();
    let constants = PodProgramConstants { netns };
    let level = log.level();
    loader.override_global("POD", &constants, true);
    loader.override_global("AYA_LOG_LEVEL", &level, false);
    for map in SHARED_MAPS {
        loader.map_pin_path(map, pins.map(map));
    }
    for map in POD_MAPS {
        loader.map_pin_path(map, folder.join(map));
    }
    loader
        .load(programs::POD_OBJECT)
        .map_err(|source| DatapathError::Load {
            object: "pod",
            source: Box::new(source),
        })
}

/// Makes the pod's handshakes known to the node's `sock_ops` program. An entry that is already right is left
/// alone: while it is replaced, a look-up can miss it, and a connection would be refused.
fn enter_handshakes(pins: &Pins, ebpf: &mut Ebpf, netns: NetnsCookie) -> Result<(), DatapathError> {
    let Map::HashMap(own) = take(ebpf, HANDSHAKES)? else {
        return Err(DatapathError::NoMap(HANDSHAKES));
    };
    let id = own
        .info()
        .map_err(DatapathError::map(HANDSHAKES, "read"))?
        .id();
    let own: Handshakes = Map::HashMap(own)
        .try_into()
        .map_err(DatapathError::map(HANDSHAKES, "opened"))?;
    match known_handshakes(pins, netns)? {
        Some(known) if known == id => Ok(()),
        Some(_) | None => handshakes_of(pins)?
            .insert(netns, &own, 0)
            .map_err(DatapathError::map(HANDSHAKES_OF, "written")),
    }
}

/// Returns the kernel's id of the map that is known for a pod. That is what a look-up from userspace returns
/// for a map within a map.
fn known_handshakes(pins: &Pins, netns: NetnsCookie) -> Result<Option<u32>, DatapathError> {
    let known: HashMap<_, NetnsCookie, u32> = pins.hash(HANDSHAKES_OF)?;
    match known.get(&netns, 0) {
        Ok(id) => Ok(Some(id)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(DatapathError::map(HANDSHAKES_OF, "read")(error)),
    }
}

type Handshakes = HashMap<MapData, FourTuple, SocketRecord>;

fn handshakes_of(
    pins: &Pins,
) -> Result<HashOfMaps<MapData, NetnsCookie, Handshakes>, DatapathError> {
    pins.hash_of_maps(HANDSHAKES_OF)
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, DatapathError> {
    ebpf.take_map(name).ok_or(DatapathError::NoMap(name))
}

fn program(ebpf: &mut Ebpf) -> Result<&mut SkLookup, DatapathError> {
    let program = ebpf.program_mut(PROGRAM);
    program
        .ok_or(DatapathError::NoProgram(PROGRAM))?
        .try_into()
        .map_err(refused)
}

fn refused(source: ProgramError) -> DatapathError {
    DatapathError::Program {
        program: PROGRAM,
        source: Box::new(source),
    }
}

fn load_program(ebpf: &mut Ebpf) -> Result<(), DatapathError> {
    program(ebpf)?.load().map_err(refused)
}

fn install(ebpf: &mut Ebpf, netns: &NetnsHandle, path: &Path) -> Result<(), DatapathError> {
    let program = program(ebpf)?;
    let target = LinkTarget::Netns(Some(netns.inode()?));
    if programs::replace(path, program.fd().map_err(refused)?, target)? {
        return Ok(());
    }
    let id = program.attach(netns).map_err(refused)?;
    programs::pin(program.take_link(id).map_err(refused)?, path)
}
