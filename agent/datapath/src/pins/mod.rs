//! The pins of an agent: the files in the pin directory by which links and maps outlive the agent.

pub(crate) mod directory;

use std::path::{Path, PathBuf};

use ambit_common::NetnsCookie;
use aya::Pod;
use aya::maps::{
    Array, HashMap, HashOfMaps, InnerMap, LpmTrie, Map, MapData, PerCpuArray, RingBuf, SkStorage,
};

use crate::DatapathError;
use crate::pins::directory::PinDirectory;
use crate::sockets::marks;

/// Maps that the node's programs and every pod's program share, as the kernel objects name them.
pub(crate) const SHARED_MAPS: [&str; 16] = [
    "AYA_LOGS",
    "COUNTS",
    "DESTINATION_BITS",
    "EVENTS",
    "EVENT_SHARES",
    "IDENTITY_BITS",
    "NODE_CONNECTIONS",
    "PODS",
    "POD_ADDRESSES",
    "POD_ENTRIES",
    "POD_TURNS",
    "POLICY_SETS",
    "PORT_BITS",
    "PROBE_PORTS",
    "SOURCE_BITS",
    "SOCKETS",
];

/// Maps that only the node's programs use, as the kernel objects name them.
pub(crate) const NODE_MAPS: [&str; 6] = [
    marks::MAP,
    "FAILED",
    "HANDSHAKES_OF",
    "MESH",
    "NODE",
    "TICKETS",
];

/// Maps that each pod has of its own, as the kernel objects name them.
pub(crate) const POD_MAPS: [&str; 3] = ["HANDSHAKES", "LISTENERS", "REFUSED"];

/// The pins of one agent, in one layout version.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// Opens the pins of a prepared directory.
    ///
    /// # Errors
    /// [`DatapathError::Directory`] if its folders cannot be made.
    pub fn open(directory: &PinDirectory) -> Result<Self, DatapathError> {
        for folder in ["maps", "links", "pods"] {
            directory.subdirectory(folder)?;
        }
        Ok(Self {
            root: directory.path().to_owned(),
        })
    }

    /// Returns the pin of a map that is shared or belongs to the node.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    /// Returns the pin of the link of a node's program.
    pub(crate) fn link(&self, program: &str) -> PathBuf {
        self.root.join("links").join(program)
    }

    /// Returns the folder of a pod's pins.
    pub(crate) fn pod(&self, netns: NetnsCookie) -> PathBuf {
        self.root.join("pods").join(netns.0.to_string())
    }

    /// Returns the pods that have pins.
    pub(crate) fn pods(&self) -> Result<Vec<NetnsCookie>, DatapathError> {
        let folder = self.root.join("pods");
        let entries =
            std::fs::read_dir(&folder).map_err(DatapathError::pin(folder.clone(), "read"))?;
        let cookies = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .map(NetnsCookie)
            .collect();
        Ok(cookies)
    }

    pub(crate) fn hash<K: Pod, V: Pod>(
        &self,
        name: &'static str,
    ) -> Result<HashMap<MapData, K, V>, DatapathError> {
        self.typed(name, Map::HashMap)
    }

    pub(crate) fn trie<K: Pod, V: Pod>(
        &self,
        name: &'static str,
    ) -> Result<LpmTrie<MapData, K, V>, DatapathError> {
        self.typed(name, Map::LpmTrie)
    }

    pub(crate) fn array<V: Pod>(
        &self,
        name: &'static str,
    ) -> Result<Array<MapData, V>, DatapathError> {
        self.typed(name, Map::Array)
    }

    pub(crate) fn per_cpu_array<V: Pod>(
        &self,
        name: &'static str,
    ) -> Result<PerCpuArray<MapData, V>, DatapathError> {
        self.typed(name, Map::PerCpuArray)
    }

    pub(crate) fn socket_storage<V: Pod>(
        &self,
        name: &'static str,
    ) -> Result<SkStorage<MapData, V>, DatapathError> {
        self.typed(name, Map::SkStorage)
    }

    pub(crate) fn ring_buffer(
        &self,
        name: &'static str,
    ) -> Result<RingBuf<MapData>, DatapathError> {
        self.typed(name, Map::RingBuf)
    }

    pub(crate) fn hash_of_maps<K: Pod, V: InnerMap>(
        &self,
        name: &'static str,
    ) -> Result<HashOfMaps<MapData, K, V>, DatapathError> {
        self.typed(name, Map::HashOfMaps)
    }

    fn typed<T>(
        &self,
        name: &'static str,
        kind: impl FnOnce(MapData) -> Map,
    ) -> Result<T, DatapathError>
    where
        T: TryFrom<Map, Error = aya::maps::MapError>,
    {
        let data = MapData::from_pin(self.map(name)).map_err(DatapathError::map(name, "opened"))?;
        kind(data)
            .try_into()
            .map_err(DatapathError::map(name, "opened"))
    }
}

/// Makes a folder of pins, if it does not exist.
pub(crate) fn create(folder: &Path) -> Result<(), DatapathError> {
    std::fs::create_dir_all(folder).map_err(DatapathError::pin(folder.to_owned(), "created"))
}

/// Removes a file or empty folder of pins, if it exists.
pub(crate) fn remove(path: &Path) -> Result<(), DatapathError> {
    let removed = if path.is_dir() {
        std::fs::remove_dir(path)
    } else {
        std::fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DatapathError::pin(path.to_owned(), "removed")(error))
        }
        _ => Ok(()),
    }
}
