//! The six published Llama 3 text models after optimisation, one page each, from their config.json alone: a change of a pass shows here.

use llamac::driver::{self, CompileOptions, Planned};
use llamac::frontend;
use llamac_passes::summary::summary;
use llamac_runtime::abi::PAGE_TOKENS;
use llamac_tests::repo;

/// Model, parameters, bytes of the bf16 KV cache per token; from the published shapes.
const MODELS: [(&str, u64, u64); 6] = [
    ("llama-3.1-8b", 8_030_261_248, 131_072),
    ("llama-3.1-70b", 70_553_706_496, 327_680),
    ("llama-3.1-405b", 405_853_388_800, 516_096),
    ("llama-3.2-1b", 1_235_814_400, 32_768),
    ("llama-3.2-3b", 3_212_749_824, 114_688),
    ("llama-3.3-70b", 70_553_706_496, 327_680),
];

/// The same target everywhere, so that the page does not depend on the machine.
fn plan(name: &str) -> (frontend::Model, Planned) {
    let config = repo::root().join("tests/fixtures/configs").join(name).join("config.json");
    let model = frontend::load_config(&config).unwrap_or_else(|e| panic!("{name}: {e}"));
    let options = CompileOptions { quant: Some("bf16".into()), target: "x86_64-v4".into(), ..CompileOptions::default() };
    let planned = driver::plan(&model, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
    (model, planned)
}

#[test]
fn every_named_model_has_its_published_parameters_and_cache_and_its_page() {
    for (name, parameters, cache) in MODELS {
        let (model, planned) = plan(name);
        let meta = planned.meta(&model, None);
        assert_eq!(meta.model.parameters, parameters, "{name}");
        let pages: u64 = meta.plan.kv.iter().map(|k| k.page_bytes).sum();
        assert_eq!(pages, cache * PAGE_TOKENS as u64, "{name}");
        insta::assert_snapshot!(name, summary(&planned.module));
    }
}

#[test]
fn the_largest_model_prints_as_short_and_saturates_as_fast_as_the_smallest() {
    // 3B and 405B are of one kind but for the tied embedding and the depth; so are 8B and 70B.
    let counts = |name: &str| {
        let (_, planned) = plan(name);
        let saturations: Vec<_> =
            planned.report.funcs.iter().filter_map(|f| f.saturation.as_ref()).map(|s| (s.iterations, s.nodes, s.saturated)).collect();
        assert!(!saturations.is_empty() && saturations.iter().all(|s| s.2), "{name}: {saturations:?}");
        (saturations, planned.module.to_string().lines().count())
    };
    let (small, large) = (counts("llama-3.1-8b"), counts("llama-3.1-405b"));
    assert_eq!(small, large);
    let tied = counts("llama-3.2-1b");
    assert_eq!(tied.0, large.0);
}
