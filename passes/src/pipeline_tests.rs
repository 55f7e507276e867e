//! Tests of the whole pipeline on Llama-shaped modules.

use super::*;
use crate::check::{Seeded, bound};
use crate::registry::Exactness;
use crate::testing::llama::Llama;
use crate::testing::{near, steps};
use llamac_ir::dtype::DType;

fn optimised(llama: Llama, precision: Precision) -> (Module, Report) {
    let mut module = llama.module();
    let report = run(&mut module, &Options { precision, ..Options::default() }).unwrap_or_else(|e| panic!("{e}"));
    (module, report)
}

/// Shapes that differ in what passes look at.
fn family() -> Vec<Llama> {
    let odd = Llama { hidden: 20, heads: 3, kv_heads: 1, head_dim: 10, inner: 37, vocab: 11, ..Llama::default() };
    vec![
        Llama::default(),
        Llama { tied: false, ..Llama::default() },
        Llama { biases: true, layers: 1, ..Llama::default() },
        Llama { tied: false, biases: true, stored: DType::F32, ..odd },
        Llama { stored: DType::F16, ..odd },
    ]
}

fn one_b(layers: usize) -> Llama {
    Llama { hidden: 2048, heads: 32, kv_heads: 8, head_dim: 64, inner: 8192, vocab: 128_256, layers, ..Llama::default() }
}

#[test]
fn f32_logits_do_not_change() {
    for llama in family() {
        let (before, (after, _)) = (llama.module(), optimised(llama, Precision::F32));
        let source = Seeded::new(&before, 0);
        near(&steps(&before, &source), &steps(&after, &source), bound(Exactness::Reassociated, &after), &format!("{llama:?}"));
    }
}

#[test]
fn bf16_logits_are_those_of_the_rounded_module() {
    for llama in family() {
        let options = Options { precision: Precision::BF16, ..Options::default() };
        let mut rounded = llama.module();
        run_named(&mut rounded, &["choose-precision"], &options, &mut |_, _| {}).unwrap();
        let (after, _) = optimised(llama, Precision::BF16);
        let source = Seeded::new(&rounded, 0);
        let (exact, x, y) = (steps(&llama.module(), &source), steps(&rounded, &source), steps(&after, &source));
        near(&exact, &x, bound(Exactness::Approximate, &rounded), "bf16 against f32");
        near(&x, &y, bound(Exactness::Reassociated, &after), "optimised bf16 against bf16");
        assert_ne!(exact, x, "nothing was rounded");
    }
}

#[test]
fn each_prefix_of_the_fuel_means_the_same() {
    let llama = Llama { tied: false, layers: 2, ..Llama::default() };
    let before = llama.module();
    let source = Seeded::new(&before, 0);
    let expected = steps(&before, &source);
    let spent = |fuel: usize| {
        let mut module = before.clone();
        let report = run(&mut module, &Options { fuel: Some(fuel), ..Options::default() }).unwrap_or_else(|e| panic!("fuel {fuel}: {e}"));
        near(&expected, &steps(&module, &source), bound(Exactness::Reassociated, &module), &format!("fuel {fuel}"));
        report.funcs.iter().flat_map(|f| f.fired.values()).sum::<usize>()
    };
    let all = spent(1000);
    assert!((20..200).contains(&all), "{all} applications");
    for fuel in (0..all).step_by(5) {
        assert_eq!(spent(fuel), fuel);
    }
}

#[test]
fn depth_changes_nothing_but_the_calls() {
    let (a, few) = optimised(one_b(16), Precision::BF16);
    let (b, many) = optimised(one_b(126), Precision::BF16);
    assert_eq!(few, many);
    let mut deeper = a;
    let calls = deeper.func_mut("main").unwrap().body.iter_mut().flat_map(|inst| &mut inst.calls);
    calls.for_each(|run| (run.first, run.count) = if run.count == 1 { (125, 1) } else { (0, 125) });
    assert_eq!(deeper.to_string(), b.to_string());
    for func in &few.funcs {
        let s = func.saturation.as_ref().unwrap();
        assert!(s.saturated && s.iterations <= 4 && s.nodes < 150, "@{}: {s:?}", func.name);
    }
}

#[test]
fn the_same_module_comes_out_every_time() {
    let (a, report) = optimised(Llama::default(), Precision::F32);
    let (b, again) = optimised(Llama::default(), Precision::F32);
    assert_eq!((a.to_string(), report.to_string()), (b.to_string(), again.to_string()));
}

#[test]
fn an_optimised_module_stays_as_it_is() {
    for precision in [Precision::F32, Precision::BF16] {
        let (once, _) = optimised(Llama::default(), precision);
        let mut twice = once.clone();
        run(&mut twice, &Options { precision, ..Options::default() }).unwrap();
        assert_eq!(once.to_string(), twice.to_string());
    }
}

#[test]
fn only_the_passes_asked_for_run() {
    let mut module = Llama::default().module();
    let mut seen = Vec::new();
    let passes = Some(vec!["choose-precision".to_owned(), "merge-qkv".to_owned()]);
    let options = Options { passes, ..Options::default() };
    let report = run_observed(&mut module, &options, &mut |name, _| seen.push(name.to_owned())).unwrap();
    assert_eq!(seen, ["choose-precision", "rewrite"]);
    let rules: Vec<&String> = report.funcs.iter().flat_map(|f| f.fired.keys()).collect();
    assert!(rules.iter().all(|r| r.starts_with("choose-precision/") || r.starts_with("merge-qkv/")), "{rules:?}");
}

#[test]
fn an_unknown_pass_is_named() {
    let mut module = Llama::default().module();
    let error = run_named(&mut module, &["fold-nrom"], &Options::default(), &mut |_, _| {}).unwrap_err();
    assert_eq!(error.to_string(), "there is no pass `fold-nrom`; did you mean `fold-norm`?");
    let options = Options { passes: Some(vec!["all".to_owned()]), ..Options::default() };
    assert!(matches!(run(&mut module, &options), Err(PipelineError::Unknown(name)) if name == "all"));
}

#[test]
fn a_module_that_is_not_in_order_is_refused() {
    let mut module = Llama::default().module();
    module.funcs[0].body.remove(0);
    let error = run(&mut module, &Options::default()).unwrap_err();
    assert!(error.to_string().starts_with("the module is not in order before any pass: @layer"), "{error}");
}

#[test]
fn one_b_on_a_page() {
    let (module, report) = optimised(one_b(16), Precision::BF16);
    insta::assert_snapshot!("one_b_module", module);
    insta::assert_snapshot!("one_b_report", report);
    insta::assert_snapshot!("one_b_summary", crate::summary::summary(&module));
}

#[test]
fn small_in_f32_with_biases() {
    let (module, report) = optimised(Llama { biases: true, tied: false, ..Llama::default() }, Precision::F32);
    insta::assert_snapshot!("small_module", module);
    insta::assert_snapshot!("small_report", report);
}
