//! What tests of passes share: one helper that runs a pass on IR text, verifies, evaluates both sides on seeded random data and compares.
//! Random weights are in `random`, a whole Llama-shaped module is in `llama`.

pub(crate) mod llama;
pub(crate) mod random;

use crate::context::Fired;
use crate::pipeline::{Options, run_named};
use crate::registry::{self, Exactness};
use crate::report::Report;
use llamac_ir::eval::{Cache, Evaluator, Tensor, eval_func};
use llamac_ir::module::{Func, Module};
use llamac_ir::op::{OpKind, Stage};
use llamac_ir::parse::parse;
use llamac_ir::types::Type;
use llamac_ir::verify::{listed, verify};
use random::{Random, uniform};

const HEADER: &str = "module test stage=fused\ndim s = 1..64\ndim r = 1..64\n";
/// Around functions of tensor ops.
const GRAPH_HEADER: &str = "module test stage=graph\ndim b = 1..64\ndim s = 1..64\ndim t = 1..64\n";
const GRAPH_MAIN: &str = "func @main(%u: f32[b]) {\n  return %u\n}\n";
const MAIN: &str = "func @main(%ids: i32[s], %pos: i32[s], %seq: i32[s], %want: i32[r]) {
  weight @e = \"main.e\": f32[4, 4]
  %x = embed %ids, @e : f32[s, 4]
  %y = gather_rows %x, %want : f32[r, 4]
  return %y
}
";

/// A module around functions: with a head, and with a `main` if there is none.
pub(crate) fn module(text: &str) -> Module {
    let graph = text.contains("tensor.");
    let head = if text.contains("module ") { "" } else { [HEADER, GRAPH_HEADER][usize::from(graph)] };
    let main = if text.contains("func @main") { "" } else { [MAIN, GRAPH_MAIN][usize::from(graph)] };
    let text = format!("{head}{text}\n{main}");
    let module = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    verify(&module, module.stage).unwrap_or_else(|e| panic!("{}", listed(&e)));
    module
}

/// The functions of a module as text, without what [`module`] added.
pub(crate) fn text(module: &Module) -> String {
    let whole = module.to_string();
    let funcs = whole.find("func ").map_or("", |at| &whole[at..]);
    funcs.replace(MAIN_NAME, "\u{0}").replace(GRAPH_MAIN, "\u{0}").split('\u{0}').next().unwrap_or("").trim_end().to_owned()
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
    let source = Random::new(before);
    for old in before.funcs.iter().filter(|f| f.name != "main") {
        let Some(new) = after.func(&old.name) else { continue };
        let args: Vec<Tensor> = old.params.iter().map(|p| argument(&old.values[p.0 as usize].name, &old.values[p.0 as usize].ty)).collect();
        let run = |func: &Func| {
            let mut cache = Cache::default();
            let results = eval_func(func, &source, Some(0), &args, &mut cache).unwrap_or_else(|e| panic!("{e}"));
            (results, cache)
        };
        let ((x, x_cache), (y, y_cache)) = (run(old), run(new));
        close(&floats(&x), &floats(&y), exactness, &old.name);
        let head = permuted_heads(old, new);
        assert_eq!(x_cache.len(), y_cache.len(), "@{}: positions written", old.name);
        for ((at, a), (bt, b)) in x_cache.iter().zip(y_cache.iter()) {
            assert_eq!(at, bt);
            close(&head.map_or(a.k.clone(), |d| permute(&a.k, d)), &b.k, exactness, &format!("@{}: keys", old.name));
            close(&a.v, &b.v, exactness, &format!("@{}: values", old.name));
        }
    }
    if before.stage == Stage::Graph {
        return;
    }
    let (x, y) = (steps(before, &source), steps(after, &source));
    close(&x, &y, exactness, "main");
}

/// Results of `main` over a prefill of two sequences and two steps of decoding.
pub(crate) fn steps(module: &Module, source: &Random) -> Vec<f32> {
    let mut evaluator = Evaluator::new(module, source);
    let steps: [[&[i32]; 4]; 3] = [
        [&[1, 3, 2, 0, 3], &[0, 1, 2, 0, 1], &[0, 0, 0, 1, 1], &[2, 4]],
        [&[2, 1], &[3, 2], &[0, 1], &[1, 0]],
        [&[3, 3, 1], &[4, 3, 4], &[0, 1, 1], &[2]],
    ];
    let mut out = Vec::new();
    for [ids, pos, seq, want] in steps {
        let ints = |v: &[i32]| Tensor::i32(&[v.len()], v.to_vec());
        let inputs = [("ids", ints(ids)), ("pos", ints(pos)), ("seq", ints(seq)), ("want", ints(want))];
        let results = evaluator.run(&inputs).unwrap_or_else(|e| panic!("{e}\n{module}"));
        out.extend(floats(&results));
    }
    out
}

/// If rotations went from half-split to interleaved: the size of a head.
fn permuted_heads(old: &Func, new: &Func) -> Option<usize> {
    let half = |f: &Func| f.body.iter().any(|i| i.op == OpKind::Rope && i.word("layout") == "half");
    let write = old.body.iter().find(|i| i.op == OpKind::KvWrite);
    if half(old) && !half(new) { write.map(|i| i.int("head_dim")) } else { None }
}

fn permute(row: &[f32], head: usize) -> Vec<f32> {
    let half = head / 2;
    row.chunks(head).flat_map(|h| (0..half).flat_map(|i| [h[i], h[i + half]]).collect::<Vec<_>>()).collect()
}

/// A random argument for a parameter: 5 tokens of two sequences, 2 wanted rows.
fn argument(name: &str, ty: &Type) -> Tensor {
    match name {
        "ids" => Tensor::i32(&[5], vec![1, 3, 2, 0, 3]),
        "pos" => Tensor::i32(&[5], vec![0, 1, 2, 0, 1]),
        "seq" => Tensor::i32(&[5], vec![0, 0, 0, 1, 1]),
        "want" => Tensor::i32(&[2], vec![2, 4]),
        _ => {
            let shape: Vec<usize> = ty.shape.iter().map(|d| d.eval(&|s| Some(size(s))).unwrap()).collect();
            let count = shape.iter().product();
            Tensor::f32(&shape, (0..count).map(|i| 2.0 * uniform(name, 0, i)).collect())
        }
    }
}

/// A size for each symbol.
fn size(symbol: &str) -> usize {
    match symbol {
        "r" | "b" => 2,
        "t" => 7,
        _ => 5,
    }
}

fn floats(tensors: &[Tensor]) -> Vec<f32> {
    tensors.iter().flat_map(|t| t.as_f32().unwrap().to_vec()).collect()
}

/// Asserts that numbers are equal, or as near as the class allows.
pub(crate) fn close(x: &[f32], y: &[f32], exactness: Exactness, what: &str) {
    assert_eq!(x.len(), y.len(), "{what}: count");
    let rms = |v: &mut dyn Iterator<Item = f32>| (v.map(|x| f64::from(x).powi(2)).sum::<f64>() / x.len().max(1) as f64).sqrt();
    let scale = rms(&mut x.iter().copied());
    let error = rms(&mut x.iter().zip(y).map(|(a, b)| a - b));
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    match exactness {
        Exactness::Exact => assert_eq!(bits(x), bits(y), "{what}: not the same bits; rms {error:.2e} of {scale:.2e}"),
        Exactness::Reassociated => assert!(error <= 1e-6 * scale, "{what}: rms {error:.2e} of {scale:.2e}"),
        // Weights in 4 bits are 8 % off.
        Exactness::Approximate => assert!(error <= 1e-1 * scale, "{what}: rms {error:.2e} of {scale:.2e}"),
    }
}
