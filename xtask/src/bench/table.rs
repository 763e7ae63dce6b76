//! How the figures are shown.

use comfy_table::{Table, presets};
use serde_json::{Map, Value, json};

use super::figures::{Results, Row, mebibytes};
use super::stretch::Path;

/// The paths that others are compared with.
const BASES: [Path; 3] = [Path::Direct, Path::Relays, Path::Peer];

/// What a cell without a figure shows.
const NONE: &str = "–";

impl Results {
    /// For people: a line for each path of a measure.
    pub(super) fn table(&self) -> String {
        let rows: Vec<Row> = self.rows().collect();
        let is_measured = |base: &Path| rows.iter().any(|row| row.path == *base);
        let bases: Vec<Path> = BASES.into_iter().filter(is_measured).collect();
        let mut table = Table::new();
        let header = ["", "measure", "path", "median"].map(str::to_owned);
        let ratios = bases
            .iter()
            .map(|base| format!("to {base} (lowest–highest)"));
        let spending = ["CPU", "memory", "system calls", "copied"].map(str::to_owned);
        table.load_preset(presets::NOTHING);
        table.set_header(header.into_iter().chain(ratios).chain(spending));
        for row in &rows {
            let measured = [
                row.span.to_string(),
                row.measure.name().to_owned(),
                row.path.to_string(),
                format!("{:.1} {}", row.middle.value, row.measure.unit()),
            ];
            let ratios = bases.iter().map(|base| ratio(row, *base));
            table.add_row(measured.into_iter().chain(ratios).chain(spent(row)));
        }
        table.to_string()
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        self.rows().map(|row| object(&row)).collect()
    }
}

fn ratio(row: &Row, base: Path) -> String {
    let Some(ratios) = row.ratios.get(&base) else {
        return NONE.to_owned();
    };
    match ratios.0.as_slice() {
        [only] => format!("{only:.2}"),
        [first, .., last] => format!("{:.2} ({first:.2}–{last:.2})", ratios.middle()),
        [] => NONE.to_owned(),
    }
}

/// What the proxies of a path spent.
fn spent(row: &Row) -> [String; 4] {
    if row.path == Path::Direct {
        return [NONE; 4].map(str::to_owned);
    }
    let piece = row.measure.piece();
    let calls = row
        .calls
        .map(|calls| format!("{:.1} /{piece}", calls.calls));
    let copied = row
        .calls
        .map(|calls| format!("{} /{piece}", size(calls.copied)));
    [
        format!(
            "{:.2} s/{}",
            row.middle.processor,
            row.measure.unit_of_work()
        ),
        format!("{:.0} MiB", mebibytes(row.middle.resident)),
        calls.unwrap_or_else(|| NONE.to_owned()),
        copied.unwrap_or_else(|| NONE.to_owned()),
    ]
}

fn size(bytes: f64) -> String {
    match bytes {
        many if many >= 1e6 => format!("{:.2} MB", many / 1e6),
        few => format!("{few:.0} B"),
    }
}

fn object(row: &Row) -> Value {
    let ratios = row.ratios.iter().map(|(base, ratios)| {
        let median = ratios.middle();
        let rounds = json!({"median": median, "rounds": ratios.0});
        (base.to_string(), rounds)
    });
    let calls = row.calls.map(|calls| {
        json!({
            "per": row.measure.piece(),
            "system_calls": calls.calls,
            "bytes_copied": calls.copied,
        })
    });
    json!({
        "span": row.span.to_string(),
        "measure": row.measure.name(),
        "path": row.path.to_string(),
        "unit": row.measure.unit(),
        "median": row.middle.value,
        "ratio_to": ratios.collect::<Map<_, _>>(),
        "proxies_processor_seconds": row.middle.processor,
        "unit_of_work": row.measure.unit_of_work(),
        "proxies_resident_bytes": row.middle.resident,
        "calls": calls,
    })
}

#[cfg(test)]
mod tests {
    use super::super::calls::Calls;
    use super::super::figures::Sample;
    use super::super::stretch::Span;
    use super::super::tools::MEASURES;
    use super::*;

    #[test]
    fn every_path_has_its_ratios_and_what_it_spent() {
        let mut results = Results::default();
        let [measure, ..] = MEASURES;
        for (path, value) in [(Path::Direct, 20.0), (Path::Peer, 8.0), (Path::Ambit, 12.0)] {
            let sample = Sample {
                value,
                processor: 1.5,
                resident: 2e6,
            };
            results.add(Span::TwoNodes, measure, path, sample);
        }
        let calls = Calls {
            calls: 40.25,
            copied: 4e6,
        };
        results.add_calls(Span::TwoNodes, measure, Path::Ambit, calls);
        let table = results.table();
        let line = |path: &str| {
            let mut lines = table.lines();
            let found = lines.find(|line| line.contains(path) && line.contains("Gbit/s"));
            let words = found.unwrap_or_default().split_whitespace();
            words.collect::<Vec<_>>().join(" ")
        };
        let start = "two nodes 1 stream, to the server";
        assert_eq!(
            line(" direct "),
            format!("{start} direct 20.0 Gbit/s – 2.50 – – – –")
        );
        assert_eq!(
            line(" peer "),
            format!("{start} peer 8.0 Gbit/s 0.40 – 1.50 s/GB 2 MiB – –")
        );
        assert_eq!(
            line(" Ambit "),
            format!("{start} Ambit 12.0 Gbit/s 0.60 1.50 1.50 s/GB 2 MiB 40.2 /MB 4.00 MB /MB")
        );
        assert!(!table.contains("to relays"), "{table}");
        let json = results.json();
        assert_eq!(json[2]["ratio_to"]["peer"]["median"], 1.5);
        assert_eq!(json[2]["calls"]["system_calls"], 40.25);
        assert_eq!(json[0]["calls"], Value::Null);
    }
}
