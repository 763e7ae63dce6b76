//! Pinned maps and links of an agent, as others see them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bpf_call;
use crate::lab::Lab;
use crate::plan::NodeName;
use crate::process::output;

/// The last byte of foreign keys, which is that of no key of an agent.
const FOREIGN: u8 = 0xEE;

/// The beginning of a longer key: what the key belongs to, for example a policy set.
const OWNER: usize = 4;

/// A pinned map.
pub struct PinnedMap {
    path: PathBuf,
    key_size: usize,
    value_size: usize,
    capacity: u32,
    /// Foreign entries have the same beginning as the first one, so that no agent sweeps them.
    owner: Vec<u8>,
}

impl PinnedMap {
    /// The maps of this name among a node's pins: one, or one for each pod.
    ///
    /// # Errors
    ///
    /// If there is none, or bpftool cannot describe it.
    pub fn named(lab: &Lab, node: NodeName, name: &str) -> Result<Vec<Self>> {
        let mut paths = Vec::new();
        find(&lab.pins(node), name, &mut paths)?;
        ensure!(!paths.is_empty(), "no pinned map {name}");
        paths.into_iter().map(Self::open).collect()
    }

    fn open(path: PathBuf) -> Result<Self> {
        let info = describe("map", &path)?;
        let number = |name: &str| info[name].as_u64().with_context(|| format!("no {name}"));
        let key_size: usize = number("bytes_key")?.try_into()?;
        Ok(Self {
            owner: match key_size {
                0..=OWNER => Vec::new(),
                _ => newest_owner(&path)?,
            },
            key_size,
            value_size: number("bytes_value")?.try_into()?,
            capacity: number("max_entries")?.try_into()?,
            path,
        })
    }

    /// Adds foreign entries until the map is full.
    ///
    /// # Errors
    ///
    /// If the map is not full.
    pub fn fill(&self) -> Result<()> {
        let map = bpf_call::open(&self.path)?;
        let filled = bpf_call::update(&map, &self.keys(), &vec![0; self.value_size]);
        let obstacle = filled.obstacle.as_ref().and_then(io::Error::raw_os_error);
        // A full hash returns the first, a full trie the second.
        let is_full = matches!(obstacle, Some(libc::E2BIG | libc::ENOSPC));
        ensure!(is_full, "it is not full: {filled:?}");
        Ok(())
    }

    /// How many entries it has.
    ///
    /// # Errors
    ///
    /// If bpftool cannot list them.
    pub fn entries(&self) -> Result<usize> {
        let mut command = Command::new("bpftool");
        let outcome = output(
            command
                .args(["--json", "map", "dump", "pinned"])
                .arg(&self.path),
        )?;
        ensure!(outcome.status.success(), "bpftool: {}", outcome.stderr);
        let entries: Vec<Value> = serde_json::from_str(&outcome.stdout)?;
        Ok(entries.len())
    }

    /// Removes all foreign entries.
    ///
    /// # Errors
    ///
    /// If one cannot be removed.
    pub fn empty(&self) -> Result<()> {
        let map = bpf_call::open(&self.path)?;
        let keys = self.keys();
        let mut left = &keys[..];
        while !left.is_empty() {
            let removed = bpf_call::delete(&map, left);
            let Some(obstacle) = removed.obstacle else {
                break;
            };
            let is_missing = obstacle.raw_os_error() == Some(libc::ENOENT);
            ensure!(is_missing, "it cannot be emptied: {obstacle}");
            left = left.get(removed.done + 1..).unwrap_or_default();
        }
        Ok(())
    }

    /// One foreign key more than fits.
    fn keys(&self) -> Vec<Vec<u8>> {
        let key = |number: u32| {
            let mut key = vec![FOREIGN; self.key_size];
            let start = self.owner.len();
            key[..start].copy_from_slice(&self.owner);
            key[start..start + 3].copy_from_slice(&number.to_le_bytes()[..3]);
            key
        };
        (0..=self.capacity).map(key).collect()
    }
}

/// The kernel's numbers of a node's pinned links, each with that of the program that it runs.
///
/// # Errors
///
/// If bpftool cannot describe one.
pub fn pinned_links(lab: &Lab, node: NodeName) -> Result<Vec<[u64; 2]>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(lab.pins(node))? {
        links(&entry?.path().join("links"), &mut paths)?;
    }
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let info = describe("link", path)?;
            let number = |name: &str| {
                info[name]
                    .as_u64()
                    .with_context(|| format!("no {name}: {info}"))
            };
            Ok([number("id")?, number("prog_id")?])
        })
        .collect()
}

fn links(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        paths.push(entry?.path());
    }
    Ok(())
}

fn find(folder: &Path, name: &str, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find(&entry.path(), name, found)?;
        } else if entry.file_name() == name {
            found.push(entry.path());
        }
    }
    Ok(())
}

fn describe(kind: &str, path: &Path) -> Result<Value> {
    let mut command = Command::new("bpftool");
    let outcome = output(command.args(["--json", kind, "show", "pinned"]).arg(path))?;
    ensure!(
        outcome.status.success(),
        "bpftool: {}{}",
        outcome.stdout,
        outcome.stderr
    );
    Ok(serde_json::from_str(&outcome.stdout)?)
}

/// The beginning of the latest keys, for example the policy set in force; empty if the map is empty.
fn newest_owner(path: &Path) -> Result<Vec<u8>> {
    let mut command = Command::new("bpftool");
    let outcome = output(command.args(["--json", "map", "dump", "pinned"]).arg(path))?;
    let said: Value = serde_json::from_str(&outcome.stdout)?;
    let keys = said.as_array().into_iter().flatten();
    let owners: Vec<[u8; OWNER]> = keys
        .map(|entry| owner(&entry["key"]))
        .collect::<Result<_>>()?;
    let newest = owners
        .into_iter()
        .max_by_key(|owner| u32::from_ne_bytes(*owner));
    Ok(newest.map(Vec::from).unwrap_or_default())
}

fn owner(key: &Value) -> Result<[u8; OWNER]> {
    let mut owner = [0; OWNER];
    for (index, byte) in owner.iter_mut().enumerate() {
        let digits = key[index].as_str().context("no byte")?;
        *byte = u8::from_str_radix(digits.trim_start_matches("0x"), 16)?;
    }
    Ok(owner)
}
