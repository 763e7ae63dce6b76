//! Both verdicts on each request of each case.

use std::fmt;
use std::num::NonZero;
use std::thread;

use anyhow::{Result, anyhow};

use crate::case::Case;
use crate::evaluator::{Evaluator, Outcome};
use crate::listener::address;
use crate::proxy::{Binary, Envoy};
use crate::request::Request;

/// Both verdicts on a request.
pub(crate) struct Comparison<'a> {
    case: &'a Case,
    request: &'a Request,
    pub(crate) ambit: Outcome,
    pub(crate) envoy: Outcome,
}

impl fmt::Display for Comparison<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            case,
            request,
            ambit,
            envoy,
        } = self;
        writeln!(f, "Ambit: {ambit:?}, Envoy: {envoy:?}, of {request:?}")?;
        writeln!(f, "over {:?} under {:?} and", case.protocol, case.mode)?;
        case.policies
            .iter()
            .try_for_each(|policy| writeln!(f, "{policy}"))
    }
}

/// Lets both judge every request.
pub(crate) fn compare<'a>(binary: &Binary, cases: &'a [Case]) -> Result<Vec<Comparison<'a>>> {
    let envoy = Envoy::start(binary, cases)?;
    let numbered: Vec<_> = cases.iter().enumerate().collect();
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let share = numbered.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let workers: Vec<_> = numbered
            .chunks(share)
            .map(|own| scope.spawn(|| compare_some(&envoy, own)))
            .collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.join().map_err(|_| anyhow!("a thread panicked"))??);
        }
        Ok(all)
    })
}

fn compare_some<'a>(envoy: &Envoy, cases: &[(usize, &'a Case)]) -> Result<Vec<Comparison<'a>>> {
    let mut all = Vec::new();
    for &(number, case) in cases {
        let evaluator = Evaluator::new(case, address(number).into())?;
        let mut clients = envoy.clients(number, case.protocol);
        for request in &case.requests {
            all.push(Comparison {
                case,
                request,
                ambit: evaluator.judge(request)?,
                envoy: clients.judge(request)?,
            });
        }
    }
    Ok(all)
}
