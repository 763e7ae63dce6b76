//! Medians, ratios, and how they are shown.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::spending::Spending;
use super::stretch::{Path, Span};
use super::tools::{Measure, Taken};

/// The measurements, by span, measure and path.
#[derive(Default)]
pub(super) struct Results(BTreeMap<(Span, Measure, Path), Vec<Sample>>);

#[derive(Clone, Copy)]
struct Sample {
    taken: Taken,
    spent: Spending,
}

/// A measure on both paths.
struct Row {
    span: Span,
    measure: Measure,
    direct: f64,
    ambit: f64,
    /// Of each round.
    ratios: Vec<f64>,
    /// Processor seconds of the agents per unit of work.
    processor: f64,
    /// Bytes of memory of the agents, at the end.
    resident: f64,
}

impl Results {
    pub(super) fn add(
        &mut self,
        span: Span,
        measure: Measure,
        path: Path,
        taken: Taken,
        spent: Spending,
    ) {
        let samples = self.0.entry((span, measure, path)).or_default();
        samples.push(Sample { taken, spent });
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header([
            "",
            "measure",
            "direct",
            "Ambit",
            "ratio",
            "lowest",
            "highest",
            "agents' CPU",
            "memory",
        ]);
        for row in self.rows() {
            table.add_row([
                row.span.to_string(),
                row.measure.name().to_owned(),
                format!("{:.1} {}", row.direct, row.measure.unit()),
                format!("{:.1} {}", row.ambit, row.measure.unit()),
                format!("{:.2}", row.ratio()),
                format!("{:.2}", row.ratios[0]),
                format!("{:.2}", row.ratios[row.ratios.len() - 1]),
                format!("{:.2} s/{}", row.processor, row.measure.unit_of_work()),
                format!("{:.0} MiB", mebibytes(row.resident)),
            ]);
        }
        table.to_string()
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let rows = self.rows().map(|row| {
            json!({
                "span": row.span.to_string(),
                "measure": row.measure.name(),
                "unit": row.measure.unit(),
                "direct": row.direct,
                "ambit": row.ambit,
                "ratio": row.ratio(),
                "ratios": row.ratios,
                "agents_processor_seconds": row.processor,
                "unit_of_work": row.measure.unit_of_work(),
                "agents_resident_bytes": row.resident,
            })
        });
        rows.collect()
    }

    fn rows(&self) -> impl Iterator<Item = Row> {
        let of_ambit = self
            .0
            .iter()
            .filter(|((_, _, path), _)| *path == Path::Ambit);
        of_ambit.map(|(&(span, measure, _), ambit)| {
            let direct = &self.0[&(span, measure, Path::Direct)];
            let rounds = ambit.iter().zip(direct);
            let ratios = rounds.map(|(ambit, direct)| ambit.taken.value / direct.taken.value);
            Row {
                span,
                measure,
                direct: middle(direct, |sample| sample.taken.value),
                ambit: middle(ambit, |sample| sample.taken.value),
                ratios: sorted(ratios.collect()),
                processor: middle(ambit, |sample| sample.spent.processor / sample.taken.work),
                resident: middle(ambit, |sample| sample.spent.resident),
            }
        })
    }
}

impl Row {
    /// The median of the rounds' ratios.
    fn ratio(&self) -> f64 {
        median(&self.ratios)
    }
}

/// The median of a figure.
fn middle(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    median(&sorted(samples.iter().map(figure).collect()))
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
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
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&sorted(vec![3.0, 1.0, 2.0])), 2.0);
        assert_eq!(median(&sorted(vec![4.0, 1.0, 2.0, 3.0])), 2.5);
    }
}
