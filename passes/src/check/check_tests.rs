//! Tests of the checks themselves: that they pass what is right, and find what is wrong.

use super::*;
use crate::pipeline::{Options, PRECISIONS};
use crate::testing::llama::Llama;

fn deep() -> Llama {
    Llama { layers: 9, tied: false, ..Llama::default() }
}

#[test]
fn every_pass_keeps_its_promise_in_every_format() {
    for precision in PRECISIONS {
        let module = Llama { hidden: 64, heads: 4, kv_heads: 2, head_dim: 16, inner: 96, vocab: 50, ..deep() }.module();
        let options = Options { precision: *precision, ..Options::default() };
        let checked = each_pass(&module, &options, &Seeded::new(&module, 0), &Inputs::all(&module)).unwrap();
        assert!(checked.wrong().is_none(), "{}\n{checked}", precision.name);
        assert_eq!(checked.calls, (2, 9));
        let seen: Vec<&str> = checked.rows.iter().map(|r| r.pass.as_str()).collect();
        assert!(REGISTERED.iter().all(|p| seen.contains(p)), "{seen:?}");
    }
}

const REGISTERED: &[&str] =
    &["choose-precision", "push-down-rows", "merge-qkv", "fuse-swiglu", "rewrite", "fuse-rope-kv-write", "remove-dead"];

#[test]
fn bounds_follow_the_format() {
    let text = |format: &str, act: &str| {
        let head =
            "module m stage=imported\ndim s = 1..9\ndim r = 1..9\nfunc @main(%ids: i32[s], %pos: i32[s], %seq: i32[s], %want: i32[r]) {";
        let body = "%x = embed %ids, @e\n%y = gather_rows %x, %want\n%z = linear %y, @e";
        format!("{head}\nweight @e = cast({format}, \"e\": f32[64, 64])\n{body}, act={act}\nreturn %z\n}}")
    };
    let at = |format, act| {
        let module = llamac_ir::parse::parse(&text(format, act)).unwrap();
        [Exactness::Exact, Exactness::Reassociated, Exactness::Approximate].map(|e| bound(e, &module))
    };
    assert_eq!(at("f32", "f32"), [0.0, 5e-7, 5e-7]);
    assert_eq!(at("bf16", "bf16"), [0.0, 3e-4, 4e-3]);
    assert_eq!(at("q8", "i8"), [0.0, 3e-4, 1.3e-2]);
    assert_eq!(at("q4g32", "i8"), [0.0, 3e-4, 9e-2]);
}

#[test]
fn a_module_that_means_something_else_is_seen() {
    let before = deep().module();
    let source = Seeded::new(&before, 3);
    let inputs = Inputs::all(&before);
    let given = outputs(&before, &source, &inputs).unwrap();
    let other = llamac_ir::parse::parse(&before.to_string().replace("eps=1e-5", "eps=1e-2")).unwrap();
    let found = difference(&given, &outputs(&other, &source, &inputs).unwrap());
    assert!(!found.within(bound(Exactness::Reassociated, &other)) && found.within(1.0), "{found}");
    assert!(difference(&given, &given).within(0.0));
}

#[test]
fn a_truncated_module_calls_every_function() {
    let text = "module m stage=imported
dim s = 1..9
dim r = 1..9
func @a(%x: f32[s, 4]) {
  return %x
}
func @b(%x: f32[s, 4]) {
  return %x
}
func @main(%ids: i32[s], %pos: i32[s], %seq: i32[s], %want: i32[r]) {
  weight @e = \"e\": f32[4, 4]
  %x = embed %ids, @e
  %y = layers %x [@a 0..3, @b 3..4, @a 4..5, @b 5..9, @a 9..11] : f32[s, 4]
  %z = gather_rows %y, %want
  return %z
}";
    let short = truncate(&llamac_ir::parse::parse(text).unwrap()).to_string();
    assert!(short.contains("[@a 0..1, @b 3..4, @b 8..9, @a 10..11]"), "{short}");
}

#[test]
fn seeded_numbers_depend_on_seed_name_and_place_and_layers_differ() {
    let module = Llama::default().module();
    let row = |seed, name: &str, row| {
        let mut out = [0.0; 6];
        llamac_ir::recipe::Source::row(&Seeded::new(&module, seed), name, row, &mut out).map(|()| out)
    };
    let first = row(1, "l.0.q.weight", 0).unwrap();
    assert_eq!(row(1, "l.0.q.weight", 0).unwrap(), first);
    for other in [row(2, "l.0.q.weight", 0), row(1, "l.1.q.weight", 0), row(1, "l.0.k.weight", 0), row(1, "l.0.q.weight", 1)] {
        assert_ne!(other.unwrap(), first);
    }
    assert!(row(1, "l.x.q.weight", 0).unwrap_err().contains("l.x.q.weight"));
}

#[test]
fn bisection_finds_nothing_in_a_sound_pipeline() {
    let module = Llama { layers: 2, ..Llama::default() }.module();
    let found = bisect(&module, None, &Options::default(), &Seeded::new(&module, 0), &Inputs::all(&module)).unwrap();
    assert_eq!(found, None);
}

#[test]
fn bisection_names_the_first_wrong_rewrite() {
    // The second of the two products is wrong, and only it is: the sum of a number and 0 is no product with it, but 2 * 2 = 2 + 2.
    let module = llamac_ir::parse::parse(
        "module m stage=imported
dim s = 1..9
dim r = 1..9
func @main(%ids: i32[s], %pos: i32[s], %seq: i32[s], %want: i32[r]) {
  weight @e = \"e\": f32[8, 4]
  %x = embed %ids, @e
  %y = gather_rows %x, %want
  %z = gather_rows %x, %want
  %m = mul %y, %z
  %n = silu %m
  return %n
}",
    )
    .unwrap();
    let (source, inputs) = (Seeded::new(&module, 0), Inputs::all(&module));
    let names = ["merge-common", "remove-dead", "test-wrong"];
    let run = |names: &[&str]| bisect(&module, Some(names), &Options::default(), &source, &inputs).unwrap();
    // The sum costs as much as the product, so extraction takes it only if it is the only one: dead code does not matter either.
    let found = run(&names).expect("a wrong rewrite");
    assert_eq!((found.rule.as_str(), found.fuel), ("test-wrong/mul-is-add in @main", 2), "{found:?}");
    assert!(found.before.to_string().contains("mul %y, %y") && found.after.unwrap().to_string().contains("add %y, %y"));
    assert_eq!(run(&names[..2]), None);
}

#[test]
fn a_pass_that_is_wrong_has_a_row_that_says_so() {
    let module = crate::testing::module("func @f(%x: f32[s, 4]) {\n  %y = mul %x, %x\n  return %y\n}");
    let module = llamac_ir::parse::parse(&module.to_string().replace(
        "%y = gather_rows %x, %want  : f32[r, 4]",
        "%x2 = layers %x [@f 0..2] : f32[s, 4]\n  %y = gather_rows %x2, %want : f32[r, 4]",
    ))
    .unwrap();
    let (source, inputs) = (Seeded::new(&module, 0), Inputs::all(&module));
    let before = outputs(&module, &source, &inputs).unwrap();
    let mut after = module.clone();
    crate::pipeline::run_named(&mut after, &["test-wrong"], &Options::default(), &mut |_, _| {}).unwrap();
    let found = difference(&before, &outputs(&after, &source, &inputs).unwrap());
    let row = Row { pass: "test-wrong".into(), exactness: Exactness::Exact, difference: Some(found), bound: 0.0 };
    let checked = Checked { rows: vec![row], calls: (2, 2), module: after };
    assert_eq!(checked.wrong().unwrap().pass, "test-wrong");
    assert!(checked.to_string().trim_end().ends_with("WRONG"), "{checked}");
}

#[test]
fn numbers_below_the_smallest_normal_one_do_not_differ() {
    let module = deep().module();
    let outputs = |results: [f32; 2]| {
        Outputs::of_call(&module.funcs[0], &[llamac_ir::eval::Tensor::f32(&[2], results.to_vec())], &llamac_ir::eval::Cache::default())
    };
    assert_eq!(difference(&outputs([1e-40, 0.0]), &outputs([2e-40, 0.0])).relative, 0.0);
    assert!(difference(&outputs([1e-30, 0.0]), &outputs([2e-30, 0.0])).relative > 0.5);
}
