//! Slow readers wait alone: connections whose bytes are not read hold up no other of the same two pods, in either
//! direction, and however many they are.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use ambit_tests::{
    Lab, NodeName, Place, ReadAnswer, ReaderOrder, Readers, Reading, Site, Source, eventually,
    run_tests, tests,
};
use anyhow::{Context, Result, ensure};

const PORT: u16 = 8090;

/// Connections that are read.
const READ: usize = 20;

/// The limit for those: what they carry takes a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at what the link has carried.
const QUIET: Duration = Duration::from_millis(500);

/// More than fits between two applications.
const MUCH: u64 = 1 << 40;

/// The least that unread connections put on the link before they stand still.
const MUCH_ENOUGH: u64 = 1 << 20;

/// What crosses it while nothing moves: an idle tunnel's packets, and probes of closed windows.
const IDLE: u64 = 64 << 10;

/// `SO_RCVBUF` of those that are not read.
const RECEIVE_BUFFER: usize = 64 << 10;

/// Bytes of the others.
const BYTES: u64 = 1 << 20;

fn main() -> ExitCode {
    run_tests(tests![
        downloads_that_no_one_reads_hold_up_no_others,
        uploads_that_no_one_reads_hold_up_no_others,
        a_thousand_unread_downloads_hold_up_no_others,
    ])
}

/// A source, with a caller in the mesh and one outside.
struct Scene {
    site: Site,
    to: SocketAddr,
    _source: Source,
}

impl Scene {
    fn start(lab: &Lab) -> Result<Self> {
        let site = Site::start(lab, &[("plain", &[])])?;
        let pod = &site.backend("plain")?.pod;
        let (source, to) = (Source::in_pod(lab, pod, PORT)?, pod.at(PORT));
        Ok(Self {
            site,
            to,
            _source: source,
        })
    }

    /// Runs those that no one reads until nothing moves any more, and then the others: without a mesh first, which
    /// shows that the server and the network can do it.
    fn ensure_others_finish(
        &self,
        lab: &Lab,
        unread: &ReaderOrder<'_>,
        others: &ReaderOrder<'_>,
        bytes: u64,
    ) -> Result<()> {
        let outsider = self.site.outsider.place();
        Self::ensure_others_finish_from(outsider, lab, unread, others, bytes)
            .context("without a mesh")?;
        self.ensure_others_finish_in_the_mesh(lab, unread, others, bytes)
    }

    fn ensure_others_finish_in_the_mesh(
        &self,
        lab: &Lab,
        unread: &ReaderOrder<'_>,
        others: &ReaderOrder<'_>,
        bytes: u64,
    ) -> Result<()> {
        let caller = self.site.caller.place();
        Self::ensure_others_finish_from(caller, lab, unread, others, bytes)
            .context("through a tunnel")
    }

    fn ensure_others_finish_from(
        place: &Place,
        lab: &Lab,
        unread: &ReaderOrder<'_>,
        others: &ReaderOrder<'_>,
        bytes: u64,
    ) -> Result<()> {
        let before = carried(lab)?;
        let unread = Readers::start(lab, place, std::slice::from_ref(unread))?;
        wait_for_standstill(lab, before)?;
        let mut others = Readers::start(lab, place, std::slice::from_ref(others))?;
        let answers = others.answers(PATIENCE)?;
        let is_whole = |answer: &&ReadAnswer| answer.status == Some(200) && answer.bytes == bytes;
        let whole = answers.iter().filter(is_whole).count();
        ensure!(whole == READ, "{whole} of {READ} finished");
        let broken = unread.so_far()?;
        ensure!(broken.is_empty(), "unread ones ended: {broken:?}");
        Ok(())
    }
}

/// The bytes that have crossed the link.
fn carried(lab: &Lab) -> Result<u64> {
    let node = lab.node(NodeName::A)?;
    let read = || std::fs::read_to_string("/proc/thread-self/net/dev");
    let text = node.netns().enter(read)??;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("link0:"));
    let numbers = line.context("no link")?.split_whitespace();
    let numbers: Vec<u64> = numbers.map(str::parse).collect::<Result<_, _>>()?;
    let received_and_sent = [0, 8].map(|column| numbers.get(column));
    Ok(received_and_sent.into_iter().flatten().sum())
}

/// Waits until the link has carried next to nothing for a while, after it had carried `before` and a good deal more.
fn wait_for_standstill(lab: &Lab, before: u64) -> Result<()> {
    let mut last = before;
    eventually(Duration::from_secs(60), "a standstill", || {
        std::thread::sleep(QUIET);
        let now = carried(lab).ok()?;
        let is_still = last + IDLE > now && before + MUCH_ENOUGH < now;
        last = now;
        is_still.then_some(())
    })
}

fn unread(count: usize, to: SocketAddr, path: &str) -> ReaderOrder<'_> {
    ReaderOrder {
        reading: Reading::Never,
        receive_buffer: Some(RECEIVE_BUFFER),
        ..ReaderOrder::get(count, to, path)
    }
}

fn downloads_that_no_one_reads_hold_up_no_others(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    let unread = unread(40, scene.to, "/endless");
    let others = ReaderOrder::get(READ, scene.to, "/whole/1048576");
    scene.ensure_others_finish(lab, &unread, &others, BYTES)
}

fn uploads_that_no_one_reads_hold_up_no_others(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    let unread = ReaderOrder {
        upload: MUCH,
        ..unread(40, scene.to, "/ignored")
    };
    let others = ReaderOrder {
        upload: BYTES,
        ..ReaderOrder::get(READ, scene.to, "/taken")
    };
    // The answer is the number of bytes.
    let answer = BYTES.to_string().len() as u64;
    scene.ensure_others_finish(lab, &unread, &others, answer)
}

fn a_thousand_unread_downloads_hold_up_no_others(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    let unread = unread(1000, scene.to, "/endless");
    let others = ReaderOrder::get(READ, scene.to, "/whole/1048576");
    scene.ensure_others_finish_in_the_mesh(lab, &unread, &others, BYTES)
}
