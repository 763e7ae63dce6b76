//! What a verdict costs, by the number of rules: `cargo bench -p ambit --bench policy`.
//!
//! Every rule allows one client, and the caller is the last one's: nothing is decided early. The
//! kernel's verdicts are measured as root only, after `cargo xtask build`.

mod kernel;
mod mesh;

use std::hint::black_box;

use ambit_common::KernelVerdict;
use ambit_policy::{Approvals, ConnectionVerdict};
use anyhow::{Result, ensure};
use criterion::{BenchmarkId, Criterion};

use kernel::Kernel;
use mesh::{Rules, connection, policies, request};

const SIZES: [usize; 3] = [10, 1_000, 10_000];

fn main() -> Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    judge_connection(&mut criterion)?;
    judge_request(&mut criterion)?;
    compile(&mut criterion)?;
    match nix::unistd::geteuid().is_root() {
        true => judge_in_kernel(&mut criterion)?,
        false => eprintln!("kernel: skipped: not root"),
    }
    criterion.final_summary();
    Ok(())
}

fn judge_connection(criterion: &mut Criterion) -> Result<()> {
    let mut group = criterion.benchmark_group("judge_connection");
    for size in SIZES {
        let policies = policies(Rules::Connections, size)?;
        let connection = connection(size - 1)?;
        let verdict = policies.judge_connection(&connection);
        ensure!(
            matches!(verdict, ConnectionVerdict::Allow(_)),
            "{verdict:?}"
        );
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| policies.judge_connection(black_box(&connection)));
        });
    }
    Ok(())
}

fn judge_request(criterion: &mut Criterion) -> Result<()> {
    let mut group = criterion.benchmark_group("judge_request");
    let nobody = Approvals::default();
    for size in SIZES {
        let policies = policies(Rules::Requests, size)?;
        let (connection, request) = (connection(size - 1)?, request(size - 1));
        let judged = policies.judge_request(&connection, &request, &nobody);
        ensure!(judged.is_ok(), "{judged:?}");
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| policies.judge_request(black_box(&connection), &request, &nobody));
        });
    }
    Ok(())
}

fn compile(criterion: &mut Criterion) -> Result<()> {
    let mut group = criterion.benchmark_group("compile");
    for size in SIZES {
        let policies = policies(Rules::Connections, size)?;
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| black_box(&policies).compile());
        });
    }
    Ok(())
}

/// The largest set does not fit the kernel's tables: its verdict is to ask userspace.
fn judge_in_kernel(criterion: &mut Criterion) -> Result<()> {
    let kernel = Kernel::load()?;
    let mut group = criterion.benchmark_group("kernel");
    for (size, expected) in SIZES.into_iter().zip([
        KernelVerdict::Allow,
        KernelVerdict::Allow,
        KernelVerdict::Ask,
    ]) {
        let policies = policies(Rules::Connections, size)?;
        let question = kernel.question(&policies, &connection(size - 1)?)?;
        let (verdict, _) = kernel.ask(&question, 1)?;
        ensure!(verdict == expected, "{size} rules: {verdict:?}");
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter_custom(|iterations| {
                let times = u32::try_from(iterations).unwrap_or(u32::MAX);
                match kernel.ask(&question, times) {
                    Ok((_, each)) => each * times,
                    Err(error) => panic!("{error:#}"),
                }
            });
        });
    }
    Ok(())
}
