//! What tests of passes share: one helper that runs a pass on IR text, verifies, evaluates both sides on seeded random data and compares.
//! Seeded weights and comparing are in `check`, a whole Llama-shaped module is in `llama`.

pub(crate) mod llama;
pub(crate) mod wrong;

use crate::check::{self, Inputs, Seeded, uniform};
use crate::context::Fired;
use crate::pipeline::{Options, run_named};
use crate::registry::{self, Exactness};
use crate::report::Report;
use llamac_ir::eval::{Cache, Tensor, eval_func};
use llamac_ir::module::{Func, Module};
use llamac_ir::parse::parse;
use llamac_ir::types::Type;
use llamac_ir::verify::{listed, verify};

const HEADER: &str = "module test stage=fused\ndim s = 1..64\ndim r = 1..64\n";
const MAIN: &str = "func @main(%ids: i32[s], %pos: i32[s], %seq: i32[s], %want: i32[r]) {
  weight @e = \"main.e\": f32[4, 4]
  %x = embed %ids, @e : f32[s, 4]
  %y = gather_rows %x, %want : f32[r, 4]
  return %y
}
";

/// A module around functions: with a head, and with a `main` if there is none.
pub(crate) fn module(text: &str) -> Module {
    let head = if text.contains("module ") { "" } else { HEADER };
    let main = if text.contains("func @main") { "" } else { MAIN };
    let text = format!("{head}{text}\n{main}");
    let module = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    verify(&module, module.stage).unwrap_or_else(|e| panic!("{}", listed(&e)));
    module
}

/// The functions of a module as text, without what [`module`] added.
pub(crate) fn text(module: &Module) -> String {
    let whole = module.to_string();
    let funcs = whole.find("func ").map_or("", |at| &whole[at..]);
    funcs.replace(MAIN_NAME, "\u{0}").split('\u{0}').next().unwrap_or("").trim_end().to_owned()
}

const MAIN_NAME: &str = "func @main(%ids: i32[s], %pos: i32[s], %seq: i32[s], %want: i32[r]) {\n  weight @e: f32[4, 4] = \"main.e\"";

/// Runs a pass on functions, verifies before and after, evaluates both on random data, and gives the result as text.
pub(crate) fn check(pass: &str, text: &str) -> String {
    check_with(pass, text, &Options::default()).0
}

/// As [`check`], with options; also says which rules fired in all functions.
pub(crate) fn check_with(pass: &str, source: &str, options: &Options) -> (String, Report) {
    let before = module(source);
    let mut after = before.clone();
    let report = run_named(&mut after, &[pass], options, &mut |_, _| {}).unwrap_or_else(|e| panic!("{e}"));
    let exactness = registry::pass(pass).map_or(Exactness::Exact, |p| p.exactness);
    compare(&before, &after, exactness);
    (text(&after), report)
}

/// How often each rule of a pass fires on functions.
pub(crate) fn fired(pass: &str, text: &str) -> Fired {
    let mut out = Fired::new();
    for (rule, count) in check_with(pass, text, &Options::default()).1.funcs.into_iter().flat_map(|f| f.fired) {
        *out.entry(rule).or_default() += count;
    }
    out
}

/// Asserts that two modules mean the same, as exactly as said: each function that both have, and `main` over several steps.
pub(crate) fn compare(before: &Module, after: &Module, exactness: Exactness) {
    let source = Seeded::new(before, 0);
    let bound = check::bound(exactness, after);
    for old in before.funcs.iter().filter(|f| f.name != "main") {
        let Some(new) = after.func(&old.name) else { continue };
        let args: Vec<Tensor> = old.params.iter().map(|p| argument(&old.values[p.0 as usize].name, &old.values[p.0 as usize].ty)).collect();
        let run = |func: &Func| {
            let mut cache = Cache::default();
            let results = eval_func(func, &source, Some(0), &args, &mut cache).unwrap_or_else(|e| panic!("{e}"));
            check::Outputs::of_call(func, &results, &cache)
        };
        near(&run(old), &run(new), bound, &old.name);
    }
    near(&steps(before, &source), &steps(after, &source), bound, "main");
}

/// What `main` gives over a prefill of two sequences and two steps of decoding.
pub(crate) fn steps(module: &Module, source: &Seeded) -> check::Outputs {
    check::outputs(module, source, &Inputs::all(module)).unwrap_or_else(|e| panic!("{e}\n{module}"))
}

/// A random argument for a parameter: 5 tokens of two sequences, 2 wanted rows.
fn argument(name: &str, ty: &Type) -> Tensor {
    match name {
        "ids" => Tensor::i32(&[5], vec![1, 3, 2, 0, 3]),
        "pos" => Tensor::i32(&[5], vec![0, 1, 2, 0, 1]),
        "seq" => Tensor::i32(&[5], vec![0, 0, 0, 1, 1]),
        "want" => Tensor::i32(&[2], vec![2, 4]),
        _ => {
            let shape: Vec<usize> = ty.shape.iter().map(|d| d.eval(&|s| Some(if s == "r" { 2 } else { 5 })).unwrap()).collect();
            let count = shape.iter().product();
            let seed = name.bytes().fold(1, |h, b| h * 31 + u64::from(b));
            Tensor::f32(&shape, (0..count).map(|i| 2.0 * uniform(seed, i)).collect())
        }
    }
}

/// Asserts that two sides are as near as `bound` allows; 0: the same bits.
pub(crate) fn near(x: &check::Outputs, y: &check::Outputs, bound: f64, what: &str) {
    let found = check::difference(x, y);
    assert!(found.within(bound), "{what}: {found}, at most {bound:.1e}");
}
