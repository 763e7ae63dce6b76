//! Over a thin link between the nodes, no download is broken off, and a small request beside one does not wait much
//! longer than without a mesh.

use std::process::ExitCode;
use std::time::Duration;

use ambit_tests::{
    CongestionControl, Connections, Lab, Link, Pulse, Rate, ReaderOrder, Readers, Site, Source,
    run_tests, skip, tests,
};
use anyhow::{Result, ensure};

const PORT: u16 = 8090;

/// 4 Mbit/s.
const THIN: Link = Link {
    delay: Duration::from_millis(10),
    rate: Rate::Kilobits(4000),
    queue: 64 << 10,
};

/// The same with the buffer that a network device has if it is not told otherwise: a thousand packets.
const BUFFERED: Link = Link {
    queue: 1_500_000,
    ..THIN
};

/// How many times longer a small request may wait than without a mesh: one and a half.
const LONGER: u32 = 3;
const LONGER_IN: u32 = 2;

fn main() -> ExitCode {
    run_tests(tests![
        downloads_over_a_thin_link_are_not_broken_off,
        a_small_request_beside_a_download_does_not_wait_long_with_cubic,
        a_small_request_beside_a_download_does_not_wait_long_with_bbr,
    ])
}

fn downloads_over_a_thin_link_are_not_broken_off(lab: &Lab) -> Result<()> {
    const DOWNLOADS: usize = 12;
    const BYTES: u64 = 1_400_000;
    let _link = lab.slow_link(BUFFERED)?;
    let site = Site::start(lab, &[("plain", &[])])?;
    let pod = &site.backend("plain")?.pod;
    let _source = Source::in_pod(lab, pod, PORT)?;
    CongestionControl::Cubic.use_in(&[pod, &site.caller])?;
    // Together they take at least 34 s, longer than a peer may be silent.
    let order = ReaderOrder::get(DOWNLOADS, pod.at(PORT), "/whole/1400000");
    let mut readers = Readers::start(lab, site.caller.place(), &[order])?;
    let answers = readers.answers(Duration::from_secs(120))?;
    let whole = answers.iter().filter(|answer| answer.is(200, BYTES));
    let whole = whole.count();
    ensure!(
        whole == DOWNLOADS,
        "{whole} of {DOWNLOADS} are whole: {answers:?}"
    );
    Ok(())
}

fn a_small_request_beside_a_download_does_not_wait_long_with_cubic(lab: &Lab) -> Result<()> {
    ensure_small_requests_are_quick(lab, CongestionControl::Cubic)
}

fn a_small_request_beside_a_download_does_not_wait_long_with_bbr(lab: &Lab) -> Result<()> {
    if !CongestionControl::Bbr.is_available()? {
        return skip("this kernel has no bbr");
    }
    ensure_small_requests_are_quick(lab, CongestionControl::Bbr)
}

fn ensure_small_requests_are_quick(lab: &Lab, control: CongestionControl) -> Result<()> {
    const REQUESTS: usize = 25;
    // So that one of them shares the download's tunnel.
    const LANES: usize = 6;
    let _link = lab.slow_link(THIN)?;
    let site = Site::start(lab, &[("plain", &[])])?;
    let pod = &site.backend("plain")?.pod;
    let _source = Source::in_pod(lab, pod, PORT)?;
    control.use_in(&[pod, &site.caller, &site.outsider])?;
    let to = pod.at(PORT);
    let pulse = Pulse {
        connections: Connections::Kept,
        to,
        lanes: LANES,
        count: REQUESTS,
    };
    let waited = |from| -> Result<Duration> {
        let _download = Readers::start(lab, from, &[ReaderOrder::get(1, to, "/endless")])?;
        // Until it has the link's whole rate.
        std::thread::sleep(Duration::from_secs(3));
        pulse.longest_median(from)
    };
    let direct = waited(site.outsider.place())?;
    let meshed = waited(site.caller.place())?;
    println!(
        "{}: {direct:?} without a mesh, {meshed:?} with one",
        control.name()
    );
    // Without a mesh the link's queue may be full or empty at that moment, as the download's losses come.
    let usual = direct.max(THIN.queueing());
    ensure!(
        meshed * LONGER_IN <= usual * LONGER,
        "{meshed:?}, and without a mesh {direct:?}"
    );
    Ok(())
}
