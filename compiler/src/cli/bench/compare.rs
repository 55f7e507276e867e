//! `llamac bench --compare`: figures of this run against those of an earlier one that was kept with `--json`.

use super::model::Figures;
use crate::cli::output::table;
use crate::diag::{Diag, Result};
use serde_json::Value;
use std::path::Path;

/// Smaller changes are not called one.
const LEAST: f64 = 0.02;

/// An earlier figure of a case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Earlier {
    /// Tokens per second: median, least, most.
    rate: [f64; 3],
    /// Share of the roof that was measured beside it.
    share: f64,
}

/// The figures of a file that `--json` wrote, by case.
///
/// # Errors
/// The file cannot be read, or is none of ours.
pub(super) fn read(path: &Path) -> Result<Vec<(String, Earlier)>> {
    let bad = |found: String| {
        Diag::new("bench-compare", "this is no earlier result of `llamac bench`")
            .place(path.display())
            .found(found)
            .help("write one with `llamac bench ARTIFACT --json > FILE`")
    };
    let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
    let file: Value = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
    parse(&file).ok_or_else(|| bad("JSON without the cases of a run".to_owned()))
}

fn parse(file: &Value) -> Option<Vec<(String, Earlier)>> {
    let case = |case: &Value| {
        let rate = &case["tokens_per_second"];
        let rate = [rate["median"].as_f64()?, rate["min"].as_f64()?, rate["max"].as_f64()?];
        let share = case["read_share"].as_f64().or(case["peak_share"].as_f64())?;
        Some((case["case"].as_str()?.to_owned(), Earlier { rate, share }))
    };
    file["cases"].as_array()?.iter().map(case).collect()
}

/// Change of a case, its noise, and what to call it. What changed is the share of the roof, so that a machine that is faster today makes
/// no program faster; noise is half of the spread of the tokens per second, of the run that has more of it.
fn verdict(earlier: &Earlier, rate: [f64; 3], share: f64) -> (f64, f64, &'static str) {
    let change = share / earlier.share - 1.0;
    let noise = |[median, least, most]: [f64; 3]| (most - least) / 2.0 / median;
    let noise = noise(earlier.rate).max(noise(rate));
    let word = match change {
        _ if change.abs() <= noise.max(LEAST) => "same, within noise",
        _ if change > 0.0 => "faster",
        _ => "slower",
    };
    (change, noise, word)
}

/// One line for each case of both runs.
pub(super) fn to_text(earlier: &[(String, Earlier)], measured: &[Figures]) -> String {
    let mut rows = vec![["case", "tok/s then", "now", "share of roof", "noise", "verdict"].map(str::to_owned).to_vec()];
    for figures in measured {
        let Some((_, then)) = earlier.iter().find(|(name, _)| *name == figures.name) else { continue };
        let rate = [figures.rate.median, figures.rate.least, figures.rate.most];
        let (change, noise, word) = verdict(then, rate, figures.read.map_or(figures.peak_share, |r| r.share));
        rows.push(vec![
            figures.name.clone(),
            super::digits(then.rate[0]),
            super::digits(rate[0]),
            format!("{:+.1} %", change * 100.0),
            format!("{:.1} %", noise * 100.0),
            word.to_owned(),
        ]);
    }
    if rows.len() == 1 { "no case of the earlier run was measured\n".to_owned() } else { table(&rows) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_change_within_the_spread_is_no_change_and_the_roof_is_divided_out() {
        let then = Earlier { rate: [100.0, 98.0, 102.0], share: 0.8 };
        assert_eq!(verdict(&then, [110.0, 109.0, 111.0], 0.9).2, "faster");
        assert_eq!(verdict(&then, [110.0, 90.0, 130.0], 0.9).2, "same, within noise");
        assert_eq!(verdict(&then, [200.0, 199.0, 201.0], 0.8).2, "same, within noise");
        assert_eq!(verdict(&then, [100.0, 99.0, 101.0], 0.7).2, "slower");
    }

    #[test]
    fn what_json_wrote_is_read_and_other_json_is_refused() {
        let case = json!({ "case": "prefill 8", "tokens_per_second": { "median": 2.0, "min": 1.0, "max": 3.0 }, "read_share": null, "peak_share": 0.5 });
        let want = Earlier { rate: [2.0, 1.0, 3.0], share: 0.5 };
        assert_eq!(parse(&json!({ "cases": [case] })), Some(vec![("prefill 8".to_owned(), want)]));
        assert_eq!(parse(&json!({ "cases": [{}] })), None);
        assert_eq!(parse(&json!([])), None);
    }
}
