//! A short run of the differential fuzzer of the passes (`fuzz-passes` is the long one), and its own parts: the cases of a seed are always the
//! same, text reads back, and what is wrong is found and made small.

use llamac_ir::module::{Func, Operand};
use llamac_ir::op::OpKind;
use llamac_passes::context::Fired;
use llamac_passes::registry::PASSES;
use llamac_tests::fuzz::{self, Case, Outcome, Shape};
use std::collections::BTreeMap;

#[test]
fn random_modules_mean_the_same_before_and_after_the_passes() {
    let (mut fired, mut counts) = (Fired::new(), BTreeMap::new());
    for seed in 1..=300 {
        let shape = match seed % 4 {
            0 => Shape::Decoder,
            2 | 3 => Shape::Graph,
            _ => Shape::Any,
        };
        let case = fuzz::case(seed, shape, false);
        let outcome = fuzz::observed(&case, &mut fired);
        if let Outcome::Wrong(kind, details) = &outcome {
            panic!("seed {seed}: {kind:?}: {details}\n{}", fuzz::write(&case, details, "case.lir"));
        }
        *counts.entry(format!("{outcome:?}")).or_insert(0) += 1;
    }
    assert!(counts["Same"] >= 280, "{counts:?}");
    // A fuzzer whose modules no rule fits finds nothing.
    for pass in PASSES {
        assert!(fired.keys().any(|rule| rule.starts_with(&format!("{}/", pass.name))), "`{}` never fired: {fired:?}", pass.name);
    }
}

#[test]
fn the_engine_computes_what_random_modules_mean() {
    let outcomes: Vec<(u64, Outcome)> = (1..=25).map(|seed| (seed, fuzz::run(&fuzz::case(seed, Shape::Decoder, true)))).collect();
    let wrong: Vec<_> = outcomes.iter().filter(|(_, o)| matches!(o, Outcome::Wrong(..))).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(outcomes.iter().filter(|(_, o)| *o == Outcome::Same).count() >= 12, "{outcomes:?}");
}

#[test]
fn a_seed_always_gives_the_same_case_and_its_text_reads_back() {
    for seed in 1..80 {
        let shape = if seed % 2 == 0 { Shape::Any } else { Shape::Graph };
        let case = fuzz::case(seed, shape, false);
        assert_eq!(case, fuzz::case(seed, shape, false));
        let text = fuzz::write(&case, "Numbers: something", "case.lir");
        assert_eq!(fuzz::read(&text).unwrap(), case, "{text}");
    }
    assert!(fuzz::read("//! quant=f99\nmodule m stage=imported\n").is_err());
}

#[test]
fn a_failing_case_is_made_small() {
    // No pass is wrong, so something else is called a failure: a product of something that was activated, in a layer.
    let fails = |case: &Case| {
        let called = |name: &str| case.module.funcs.iter().flat_map(|f| &f.body).flat_map(|i| &i.calls).any(|run| run.func == name);
        let product = |f: &Func| {
            let silu = |o: &Operand| f.body.iter().any(|i| i.op == OpKind::Silu && i.results.iter().any(|v| *o == Operand::Value(*v)));
            called(&f.name) && f.body.iter().any(|i| i.op == OpKind::Mul && i.operands.iter().any(silu))
        };
        case.module.funcs.iter().any(product).then(|| "a product".to_owned())
    };
    let ops = |case: &Case| case.module.funcs.iter().map(|f| f.body.len()).sum::<usize>();
    let cases = (1..60).map(|seed| fuzz::case(seed, Shape::Any, false)).filter(|c| fails(c).is_some() && ops(c) > 20);
    let mut shrunk = 0;
    for case in cases.take(5) {
        let (small, details) = fuzz::shrink_by(&case, String::new(), &mut |c| fails(c));
        assert_eq!(details, "a product");
        assert!(
            ops(&small) <= 16 && ops(&small) < ops(&case) && small.module.funcs.len() == 2 && small.passes == Some(vec![]),
            "{}",
            small.module
        );
        shrunk += 1;
    }
    assert_eq!(shrunk, 5);
}

/// Cases that the fuzzer found and shrank: what lowering made of them was wrong. They run right or are refused.
#[test]
fn what_was_once_wrong_stays_mended() {
    let cut = "module fuzz stage=imported
dim s = 1..64
dim r = 1..64
func @main(%ids: i32[s], %pos: i32[s], %seq: i32[s], %want: i32[r]) {
  weight @e = \"e\": f32[21, 16]
  weight @w = \"w\": f32[21, 8]
  %x = embed %ids, @e
  %twins = mul %x, %x
  %cut = slice_cols %twins, start=8, len=8
  %unit = rms_unit %cut, eps=1e-5
  %y = linear %unit, @w
  %rows = gather_rows %y, %want
  return %rows
}";
    let grouped = "module fuzz stage=imported
dim s = 1..64
dim r = 1..64
func @main(%ids: i32[s], %pos: i32[s], %seq: i32[s], %want: i32[r]) {
  weight @e = \"e\": f32[13, 16]
  weight @h = \"h\": f32[13, 16]
  %x = embed %ids, @e
  %unit = rms_unit %x, eps=1e-5, group=8
  %y = linear %unit, @h
  %rows = gather_rows %y, %want
  return %rows
}";
    for (text, expected) in [(cut, Outcome::Same), (grouped, Outcome::Skipped("no lowering"))] {
        let case = fuzz::read(&format!("//! quant=f32 seed=1 execute=true\n{text}")).unwrap();
        assert_eq!(fuzz::run(&case), expected, "{text}");
    }
}
