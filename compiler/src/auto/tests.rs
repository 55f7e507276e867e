//! The choice on a fixture, and on made-up sites.

use super::*;
use crate::frontend;
use std::path::PathBuf;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name).join("model")
}

fn site(layer: usize, loss: f64) -> Site {
    let choices = FORMATS.iter().zip([100, 110, 120, 165, 200]).zip([1.0, 0.9, 0.8, 0.1, 0.0]);
    let choices = choices.map(|((_, bytes), part)| Choice { bytes, loss: loss * part }).collect();
    let bits = vec![800.0, 880.0, 960.0, 1320.0, 1600.0];
    Site { func: "layer".into(), layer: Some(layer), weights: vec!["w".into()], elements: 200, choices, bits }
}

#[test]
fn layers_have_a_bounded_number_of_different_choices() {
    // Two sites in each of 40 layers, with losses that ask for every combination of formats.
    let sites: Vec<Site> = (0..40).flat_map(|l| [site(l, 1.0 + (l * 7 % 40) as f64), site(l, 1.0 + (l * 11 % 40) as f64)]).collect();
    let items: Vec<Vec<Choice>> = sites.iter().map(|s| s.choices.clone()).collect();
    let limit = Limit::Bytes(80 * 125);
    let found = solved(&sites, &items, limit, Budget::Bytes(80 * 125)).unwrap();
    let mut patterns: Vec<&[usize]> = found.chosen.chunks(2).collect();
    patterns.sort_unstable();
    patterns.dedup();
    let free = solve(&items, limit).unwrap();
    assert!(patterns.len() <= VARIANTS && found.bytes <= 80 * 125, "{} patterns, {} bytes", patterns.len(), found.bytes);
    assert!(found.loss >= free.loss && found.loss < 1.2 * free.bound, "{} of {}, bound {}", found.loss, free.loss, free.bound);
}

#[test]
fn a_budget_is_kept_and_the_artifact_computes_what_was_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("auto.llx");
    let budget = Some(Budget::BitsPerWeight(6.0));
    let options = CompileOptions { quant: Some("auto".into()), budget, ..CompileOptions::default() };
    let summary = driver::compile(&fixture("llama3-onnx"), &out, &options, &driver::Silent).unwrap();
    let auto = summary.auto.unwrap();
    assert!(auto.bits_per_weight() <= 6.0 && auto.bits_per_weight() > 5.0, "{}", auto.bits_per_weight());
    assert!(auto.measured < 1.5 * auto.predicted && auto.predicted < 1.5 * auto.measured, "{} {}", auto.predicted, auto.measured);
    assert!(auto.to_string().contains("@main"), "{auto}");
    assert!(summary.meta.model.quant == "auto" && summary.file_bytes > auto.bytes());
}

#[test]
fn the_cache_is_part_of_the_budget_where_it_is_to_be_chosen() {
    let budget = |budget| {
        let (quant, kv) = (Some("auto".into()), Some(KV_AUTO.into()));
        driver::choose(&fixture("llama3-onnx"), &CompileOptions { quant, kv, budget: Some(budget), ..CompileOptions::default() })
    };
    // Bits leave the cache out: bf16 loses less.
    let bits = budget(Budget::BitsPerWeight(6.0)).unwrap();
    assert_eq!(bits.cache.name.as_deref(), Some("bf16"));
    let int8 = &bits.others[0];
    assert!(int8.bytes * 3 < bits.cache.bytes * 2 && int8.base > 0.0, "{int8:?}");
    assert!(bits.to_string().contains("KV cache int8: ") && bits.to_string().contains("(not chosen)"), "{bits}");
    // In so many bytes the weights fit beside an int8 cache only.
    let small = budget(Budget::Bytes(bits.bytes() + int8.bytes)).unwrap();
    assert_eq!(small.cache.name.as_deref(), Some("int8"));
    assert!(small.bytes() + small.cache.bytes <= bits.bytes() + int8.bytes);
    assert_eq!(small.apply(&CompileOptions::default()).kv.as_deref(), Some("int8"));
    // Half the cache for a loss that the budget has room for.
    let loss = budget(Budget::Divergence(0.05)).unwrap();
    assert_eq!(loss.cache.name.as_deref(), Some("int8"));
    assert!(loss.measured <= 0.05, "{loss}");
    let other = CompileOptions { quant: Some("int8".into()), kv: Some(KV_AUTO.into()), ..CompileOptions::default() };
    let said = driver::plan(&frontend::load_config(&fixture("llama3-onnx")).unwrap(), &other).unwrap_err().to_string();
    assert!(said.contains("--quant auto") && said.contains("help:"), "{said}");
}

#[test]
fn a_budget_that_cannot_be_kept_and_no_budget_are_explained() {
    let said = |budget: Option<Budget>| {
        let options = CompileOptions { quant: Some("auto".into()), budget, ..CompileOptions::default() };
        driver::choose(&fixture("llama3-onnx"), &options).unwrap_err().to_string()
    };
    let cases = [(said(Some(Budget::BitsPerWeight(2.0))), "2bpw"), (said(None), "--size 4.5bpw")];
    cases.iter().for_each(|(said, word)| assert!(said.contains(word) && said.contains("help:"), "`{word}` not in: {said}"));
    let model = frontend::load_config(&fixture("llama3-onnx")).unwrap();
    assert!(driver::plan(&model, &CompileOptions { quant: Some("auto".into()), ..CompileOptions::default() }).is_err());
}
