//! The decoder raised from ONNX and the one read from the checkpoint that was exported are the same up to names, weights bit for bit, and what the
//! optimiser makes of them is, too.

use llamac::driver::{self, CompileOptions, Planned};
use llamac::frontend::{self, Model};
use llamac_ir::module::{Func, Module, Operand, ValueId};
use llamac_ir::op::OpKind;
use llamac_ir::recipe::Prepared;
use llamac_tests::{onnx, repo};
use std::collections::BTreeMap;

/// The module as text without names: values and weights numbered in the order in which results need them, functions in the order of calls.
fn nameless(module: &Module) -> String {
    let mut text = String::new();
    let mut funcs: Vec<&str> = Vec::new();
    for run in module.func("main").into_iter().flat_map(|f| &f.body).flat_map(|i| &i.calls) {
        let at = funcs.iter().position(|f| *f == run.func).unwrap_or_else(|| {
            funcs.push(&run.func);
            funcs.len() - 1
        });
        text += &format!("call {at} x {}\n", run.count);
    }
    for name in funcs.into_iter().chain(["main"]) {
        text += &func_text(module.func(name).expect("a function"));
    }
    text
}

fn func_text(func: &Func) -> String {
    let mut numbers: BTreeMap<ValueId, usize> = func.params.iter().enumerate().map(|(i, p)| (*p, i)).collect();
    let mut lines = Vec::new();
    for at in order(func) {
        let inst = &func.body[at];
        let operand = |o: &Operand| match o {
            Operand::Value(v) => format!("%{}", numbers[v]),
            Operand::Weight(w) => format!("@{:?}", func.weights[w.0 as usize].ty.shape.iter().map(|d| d.value()).collect::<Vec<_>>()),
        };
        let operands: Vec<String> = inst.operands.iter().map(operand).collect();
        let attrs: Vec<String> = inst.attrs.iter().map(ToString::to_string).collect();
        lines.push(format!("  {} {} {{{}}}", inst.op.name(), operands.join(", "), attrs.join(", ")));
        for r in &inst.results {
            let next = numbers.len();
            numbers.insert(*r, next);
        }
    }
    format!("func of {} parameters\n{}\n", func.params.len(), lines.join("\n"))
}

/// Instructions, each just before the first that needs it.
fn order(func: &Func) -> Vec<usize> {
    fn visit(func: &Func, at: usize, out: &mut Vec<usize>) {
        if out.contains(&at) {
            return;
        }
        let inst = &func.body[at];
        for operand in &inst.operands {
            if let Operand::Value(v) = operand
                && let Some(def) = func.def(*v)
            {
                visit(func, def, out);
            }
        }
        if inst.op == OpKind::Attention {
            let writes = func.body.iter().position(|i| matches!(i.op, OpKind::KvWrite | OpKind::RopeKvWrite));
            visit(func, writes.expect("a cache"), out);
        }
        out.push(at);
    }
    let mut out = Vec::new();
    for result in &func.results {
        if let Operand::Value(v) = result {
            visit(func, func.def(*v).expect("a result"), &mut out);
        }
    }
    out
}

/// Elements of every weight in the order of [`func_text`], for every layer.
fn weights(model: &Model, module: &Module) -> Vec<Vec<f32>> {
    let source = model.weights().expect("weights");
    let mut all = Vec::new();
    let runs = module.func("main").into_iter().flat_map(|f| &f.body).flat_map(|i| &i.calls);
    let mut calls: Vec<(&str, Option<usize>)> = Vec::new();
    for run in runs {
        calls.extend((run.first..run.first + run.count).map(|n| (run.func.as_str(), Some(n))));
    }
    calls.push(("main", None));
    for (name, layer) in calls {
        let func = module.func(name).expect("a function");
        for operand in order(func).into_iter().flat_map(|at| func.body[at].operands.clone()) {
            if let Operand::Weight(w) = operand {
                let recipe = &func.weights[w.0 as usize].recipe;
                let recipe = layer.map_or_else(|| recipe.clone(), |n| recipe.for_layer(n));
                all.push(Prepared::new(&recipe, source).and_then(|p| p.read_all()).unwrap_or_else(|e| panic!("{name}: {e}")));
            }
        }
    }
    all
}

fn planned(model: &Model) -> Planned {
    let options = CompileOptions { quant: Some("f32".into()), max_context: Some(256), ..CompileOptions::default() };
    driver::plan(model, &options).unwrap_or_else(|e| panic!("{e}"))
}

/// `rounded`: the export has weights in few bits.
fn check(export: &str, checkpoint: &str, rounded: bool) {
    let folder = tempfile::tempdir().expect("a folder");
    let fixture = onnx::one(folder.path(), export);
    let raised = frontend::load(&fixture.model).unwrap_or_else(|e| panic!("{export}: {e}"));
    let read =
        frontend::load(&repo::root().join("tests/fixtures").join(checkpoint).join("model")).unwrap_or_else(|e| panic!("{checkpoint}: {e}"));
    let (a, b) = (planned(&raised), planned(&read));
    assert_eq!(nameless(&a.imported), nameless(&b.imported), "{export}: imported");
    let (x, y) = (weights(&raised, &a.imported), weights(&read, &b.imported));
    assert_eq!(x.len(), y.len());
    for (i, (x, y)) in x.iter().zip(&y).enumerate() {
        let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(x.len(), y.len(), "{export}: weight {i}");
        assert!(rounded || bits(x) == bits(y), "{export}: weight {i} differs");
        // Even in four bits it is that weight and no other.
        let squares = |v: &mut dyn Iterator<Item = f32>| v.map(|x| f64::from(x).powi(2)).sum::<f64>();
        let error = squares(&mut x.iter().zip(y).map(|(a, b)| a - b)) / squares(&mut y.iter().copied());
        assert!(error < 0.15f64.powi(2), "{export}: weight {i} is off by {:.1e}", error.sqrt());
    }
    assert_eq!(nameless(&a.module), nameless(&b.module), "{export}: optimised");
    let costs = |p: &Planned| {
        p.report.funcs.iter().map(|f| (f.after.regions, f.after.decode_ns.to_bits())).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(costs(&a), costs(&b), "{export}: regions and cost of each function");
    assert_eq!(raised.parameters(), read.parameters(), "{export}: parameters");
}

#[test]
fn dense_exports_are_the_module_of_their_checkpoint() {
    for export in ["llama3-onnx_torch_opset18_extdata", "llama3-onnx_torch_opset23_sdpa", "llama3-onnx_optimum"] {
        check(export, "llama3-onnx", false);
    }
}

#[test]
fn exports_in_few_bits_are_the_module_of_their_checkpoint_but_for_rounding() {
    for export in ["llama3-onnx_ortq_qdq_int4", "llama3-onnx_ortq_dynamic_int8", "llama3-onnx_genai_int4_b32"] {
        check(export, "llama3-onnx", true);
    }
}

#[test]
fn an_export_with_experts_is_the_module_of_its_checkpoint() {
    check("llama4-onnx_torch_opset18", "llama4-onnx", false);
}
