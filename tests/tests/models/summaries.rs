//! The ten published models after optimisation (of vision models the text half), one page each, from their config.json alone: a change of a pass shows here.

use llamac::driver::{self, CompileOptions, Planned};
use llamac::frontend;
use llamac_passes::summary::{summary, totals};
use llamac_runtime::abi::PAGE_TOKENS;
use llamac_tests::repo;

/// Model, parameters, bytes that the bf16 KV cache grows by with each token, bytes of the rings of a sequence; from the published shapes. The
/// text models of 3.2 Vision have eight more rows of the embedding. Scout and Maverick: 12 layers see everything, 36 see 8192 tokens.
const MODELS: [(&str, u64, u64, u64); 10] = [
    ("llama-3.1-8b", 8_030_261_248, 131_072, 0),
    ("llama-3.1-70b", 70_553_706_496, 327_680, 0),
    ("llama-3.1-405b", 405_853_388_800, 516_096, 0),
    ("llama-3.2-1b", 1_235_814_400, 32_768, 0),
    ("llama-3.2-3b", 3_212_749_824, 114_688, 0),
    ("llama-3.2-11b-vision", 8_030_261_248 + 8 * 4096, 131_072, 0),
    ("llama-3.2-90b-vision", 70_553_706_496 + 8 * 8192, 327_680, 0),
    ("llama-3.3-70b", 70_553_706_496, 327_680, 0),
    ("llama-4-scout-17b-16e", 107_769_861_120, 49_152, 36 * 4096 * 8192),
    ("llama-4-maverick-17b-128e", 400_711_848_960, 49_152, 36 * 4096 * 8192),
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
    for (name, parameters, cache, rings) in MODELS {
        let (model, planned) = plan(name);
        let meta = planned.meta(&model, None);
        assert_eq!(meta.model.parameters, parameters, "{name}");
        let (ring, paged): (Vec<_>, Vec<_>) = meta.plan.kv.iter().partition(|k| k.chunk > 0);
        assert_eq!(paged.iter().map(|k| k.page_bytes).sum::<u64>(), cache * PAGE_TOKENS as u64, "{name}");
        let of_sequence: u64 = ring.iter().map(|k| k.page_bytes * (k.chunk / PAGE_TOKENS) as u64).sum();
        assert_eq!(of_sequence, rings, "{name}");
        let totals = totals(&planned.module);
        assert_eq!((totals.kv_bytes, totals.ring_bytes), (cache, rings), "{name}");
        insta::assert_snapshot!(name, summary(&planned.module));
    }
}

#[test]
fn the_largest_model_prints_as_short_and_saturates_as_fast_as_the_smallest() {
    // 3B and 405B are of one kind but for the tied embedding and the depth; so are 8B and 70B.
    let counts = |name: &str| {
        let (_, planned) = plan(name);
        let saturations: Vec<_> = planned
            .report
            .funcs
            .iter()
            .filter_map(|f| Some((f.name.clone(), f.saturation.clone()?)))
            .map(|(f, s)| (f, s.iterations, s.nodes, s.saturated))
            .collect();
        assert!(!saturations.is_empty() && saturations.iter().all(|s| s.3), "{name}: {saturations:?}");
        (saturations, planned.module.to_string().lines().count())
    };
    let (small, large) = (counts("llama-3.1-8b"), counts("llama-3.1-405b"));
    assert_eq!(small, large);
    // A tied head is one weight less in @main; the layers are the same.
    let layers = |name: &str| counts(name).0.into_iter().filter(|s| s.0 != "main").collect::<Vec<_>>();
    assert_eq!(layers("llama-3.2-1b"), layers("llama-3.1-405b"));
}

/// A token of Scout and of Maverick reads what the 17 billion active parameters take, whatever the number of experts (`models.md`, 1.4).
#[test]
fn a_token_reads_the_chosen_experts_and_no_other() {
    for (name, active) in [("llama-4-scout-17b-16e", 16_138_408_960u64), ("llama-4-maverick-17b-128e", 16_150_205_440)] {
        let (model, planned) = plan(name);
        let plan = planned.meta(&model, None).plan;
        let router: u64 = planned.module.funcs.iter().map(|f| calls_of(&planned, &f.name) * router_elements(f)).sum();
        // Two bytes a parameter, the router's two more, and a row of the embedding.
        let expected = 2 * active + 2 * router;
        let found = totals(&planned.module).decode_bytes;
        assert!(found.abs_diff(expected) < 100_000, "{name}: {found}, expected about {expected}");
        assert!(plan.decode_bytes.abs_diff(expected) < 2_000_000, "{name}: {}, expected about {expected}", plan.decode_bytes);
        assert!(plan.decode_macs.abs_diff(active) < 1_000_000, "{name}: {}, expected about {active}", plan.decode_macs);
    }
}

fn calls_of(planned: &Planned, func: &str) -> u64 {
    llamac_passes::cost::calls(&planned.module).into_iter().find(|(name, _)| name == func).map_or(0, |(_, n)| n as u64)
}

fn router_elements(func: &llamac_ir::module::Func) -> u64 {
    let router = func.weights.iter().find(|w| w.name == "wrouter");
    router.and_then(|w| w.ty.sizes()).map_or(0, |s| s.iter().product::<usize>() as u64)
}
