//! Medians and ratios.

use std::collections::BTreeMap;

use super::calls::Calls;
use super::stretch::{Path, Span};
use super::tools::Measure;

/// The measurements, by span, measure and path.
#[derive(Default)]
pub(super) struct Results {
    samples: BTreeMap<(Span, Measure, Path), Vec<Sample>>,
    calls: BTreeMap<(Span, Measure, Path), Calls>,
}

/// One round of a measure on a path.
#[derive(Clone, Copy)]
pub(super) struct Sample {
    /// In the measure's unit.
    pub(super) value: f64,
    /// Processor seconds of the proxies per unit of work.
    pub(super) processor: f64,
    /// Bytes of memory of the proxies, at the end.
    pub(super) resident: f64,
}

/// A measure on one path.
pub(super) struct Row {
    pub(super) span: Span,
    pub(super) measure: Measure,
    pub(super) path: Path,
    /// Medians of the rounds.
    pub(super) middle: Sample,
    /// To each other path that was measured in the same rounds.
    pub(super) ratios: BTreeMap<Path, Ratios>,
    /// For each piece of work.
    pub(super) calls: Option<Calls>,
}

/// The ratios of the rounds, sorted.
pub(super) struct Ratios(pub(super) Vec<f64>);

impl Results {
    pub(super) fn add(&mut self, span: Span, measure: Measure, path: Path, sample: Sample) {
        let samples = self.samples.entry((span, measure, path)).or_default();
        samples.push(sample);
    }

    /// Adds the calls and bytes for each piece of work.
    pub(super) fn add_calls(&mut self, span: Span, measure: Measure, path: Path, calls: Calls) {
        self.calls.insert((span, measure, path), calls);
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = Row> {
        self.samples.iter().map(|(&key, own)| {
            let (span, measure, path) = key;
            let others = self
                .samples
                .iter()
                .filter(|((at, what, other), _)| *at == span && *what == measure && *other != path);
            let ratios = others.map(|((_, _, other), samples)| (*other, Ratios::of(own, samples)));
            Row {
                span,
                measure,
                path,
                middle: Sample {
                    value: middle(own, |sample| sample.value),
                    processor: middle(own, |sample| sample.processor),
                    resident: middle(own, |sample| sample.resident),
                },
                ratios: ratios.collect(),
                calls: self.calls.get(&key).copied(),
            }
        })
    }
}

impl Ratios {
    fn of(own: &[Sample], others: &[Sample]) -> Self {
        let rounds = own.iter().zip(others);
        Self(sorted(rounds.map(|(own, other)| own.value / other.value)))
    }

    pub(super) fn middle(&self) -> f64 {
        median(&self.0)
    }
}

/// The median of a figure.
fn middle(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    median(&sorted(samples.iter().map(figure)))
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The middle of sorted values; the mean of the two middle ones if their number is even.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

/// What bytes are in MiB.
pub(super) fn mebibytes(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::super::tools::MEASURES;
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&sorted([3.0, 1.0, 2.0].into_iter())), 2.0);
        assert_eq!(median(&sorted([4.0, 1.0, 2.0, 3.0].into_iter())), 2.5);
    }

    #[test]
    fn a_row_has_the_median_of_its_rounds_ratios_to_each_other_path() {
        let mut results = Results::default();
        let [measure, ..] = MEASURES;
        let values = [
            (Path::Direct, [10.0, 20.0, 40.0]),
            (Path::Relays, [5.0, 16.0, 20.0]),
            (Path::Ambit, [4.0, 4.0, 16.0]),
        ];
        for (path, rounds) in values {
            for value in rounds {
                let sample = Sample {
                    value,
                    processor: 1.0,
                    resident: 1.0,
                };
                results.add(Span::OneNode, measure, path, sample);
            }
        }
        let rows: Vec<Row> = results.rows().collect();
        let paths = rows.iter().map(|row| row.path).collect::<Vec<_>>();
        assert_eq!(paths, [Path::Direct, Path::Relays, Path::Ambit]);
        let ambit = &rows[2];
        assert_eq!(ambit.middle.value, 4.0);
        assert_eq!(ambit.ratios[&Path::Direct].0, [0.2, 0.4, 0.4]);
        assert_eq!(ambit.ratios[&Path::Relays].middle(), 0.8);
        assert!(!ambit.ratios.contains_key(&Path::Peer));
    }
}
