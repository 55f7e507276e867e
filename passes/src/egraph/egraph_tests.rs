//! Tests of the e-graph: the alarm for unsound rules, limits, sharing, and extraction against an exact integer program.

use super::extract::{Candidates, NONE};
use super::leave::leave;
use super::saturate::saturate;
use super::*;
use crate::context::Context;
use crate::cost::Machine;
use crate::pipeline::{Options, Precision, run_named};
use crate::registry::{Kind as PassKind, PASSES};
use crate::testing;
use crate::testing::llama::Llama;
use good_lp::{Expression, Solution, SolverModel, constraint, microlp, variable, variables};
use llamac_ir::dtype::DType;
use llamac_ir::module::Func;

fn context() -> Context {
    Context::new(Machine::default(), Precision::F32, None)
}

fn f(text: &str) -> Func {
    testing::module(text).funcs.remove(0)
}

const SUM: &str = "func @f(%x: f32[s, 8], %y: f32[s, 4]) {
  %a = silu %x
  %b = slice_cols %a, start=0, len=4
  %c = add %b, %y
  return %c
}";

#[test]
fn a_function_that_no_rule_touches_comes_out_as_it_went_in() {
    let func = f(SUM);
    let entered = enter(&func);
    let candidates = Candidates::new(&entered.graph, &entered.roots(), &Machine::default());
    assert_eq!(leave(&func, &entered, &candidates, &candidates.choose()).unwrap(), func);
}

#[test]
#[should_panic(expected = "rule `test/unsound` is unsound: it set a value of type f32[s, 4] equal to one of type f32[s, 8]")]
fn a_rule_that_merges_two_types_is_named() {
    let propose = |graph: &mut Graph| {
        let (slice, _, operands) = graph.ops(OpKind::SliceCols).remove(0);
        let (_, silu) = graph.ops_in(operands[0], OpKind::Silu).remove(0);
        vec![vec![(slice, Node::Op(OpKind::Silu, vec![], silu))]]
    };
    saturate(&mut enter(&f(SUM)).graph, &[Rule { name: "test/unsound", propose }], Limits::default(), "f", &mut context());
}

#[test]
#[should_panic(expected = "rule `test/ill-typed` made an op that does not type")]
fn a_rule_that_builds_nonsense_is_named() {
    let propose = |graph: &mut Graph| {
        let (class, _, operands) = graph.ops(OpKind::Add).remove(0);
        vec![vec![(class, Node::Op(OpKind::SwiGlu, vec![], vec![operands[0]]))]]
    };
    saturate(&mut enter(&f(SUM)).graph, &[Rule { name: "test/ill-typed", propose }], Limits::default(), "f", &mut context());
}

#[test]
fn rules_that_never_end_stop_at_their_limit_and_say_so() {
    // x = silu(slice(x ++ ...)) has no end: each round wraps the newest silu once more.
    let propose = |graph: &mut Graph| {
        let newest = graph.ops(OpKind::Silu).into_iter().map(|(class, ..)| class).max();
        let wrapped = newest.map(|class| graph.op(OpKind::Silu, vec![], vec![class]));
        wrapped.map(|class| vec![(class, Node::Op(OpKind::Add, vec![], vec![class, class]))]).into_iter().collect()
    };
    let rules = [Rule { name: "test/endless", propose }];
    let (by_rounds, _) = saturate(&mut enter(&f(SUM)).graph, &rules, Limits { iterations: 7, nodes: 1000 }, "f", &mut context());
    assert_eq!((by_rounds.saturated, by_rounds.iterations), (false, 7));
    let (by_nodes, _) = saturate(&mut enter(&f(SUM)).graph, &rules, Limits { iterations: 1000, nodes: 50 }, "f", &mut context());
    assert!(!by_nodes.saturated && (50..60).contains(&by_nodes.nodes), "{by_nodes:?}");
}

#[test]
fn equal_ops_and_equal_weights_are_one_node() {
    let twice = f("func @f(%x: f32[s, 8]) {
  weight @a = \"w\": f32[8, 8]
  weight @b = \"w\": f32[8, 8]
  %y = linear %x, @a
  %z = linear %x, @b
  %o = mul %y, %z
  return %o
}");
    let graph = enter(&twice).graph;
    assert_eq!(graph.ops(OpKind::Linear).len(), 1);
    assert_eq!(graph.egraph.analysis.weights.len(), 1);
}

/// The least cost by an integer program: one variable per candidate; a class is active if a chosen candidate or a root needs it.
fn exact(candidates: &Candidates) -> u64 {
    let mut vars = variables!();
    let picks: Vec<Vec<_>> = candidates.classes.iter().map(|list| list.iter().map(|_| vars.add(variable().binary())).collect()).collect();
    let micros = |ps: u64| ps as f64 / 1e6;
    let costs = candidates.classes.iter().zip(&picks).flat_map(|(list, vars)| list.iter().zip(vars).map(|(c, var)| micros(c.cost) * *var));
    let mut model = vars.minimise(costs.sum::<Expression>()).using(microlp);
    let active = |class: usize| picks[class].iter().sum::<Expression>();
    for root in &candidates.roots {
        model = model.with(constraint!(active(*root) >= 1));
    }
    for (list, vars) in candidates.classes.iter().zip(&picks) {
        for (candidate, var) in list.iter().zip(vars) {
            for child in &candidate.children {
                model = model.with(constraint!(active(*child) >= *var));
            }
        }
    }
    let solution = model.solve().unwrap();
    let choice = picks.iter().map(|list| list.iter().position(|v| solution.value(*v) > 0.5).unwrap_or(NONE)).collect();
    candidates.cost(&choice)
}

#[test]
fn the_search_finds_what_an_exact_solver_finds() {
    let rules: Vec<Rule> = PASSES.iter().flat_map(|p| if let PassKind::Rewrite(rules) = p.kind { rules } else { &[] }).copied().collect();
    let true_size = Llama { hidden: 2048, heads: 32, kv_heads: 8, head_dim: 64, inner: 8192, vocab: 128_256, ..Llama::default() };
    let (mut compared, mut worst) = (0, 0.0f64);
    for (base, precision) in [(Llama::default(), Precision::F32), (true_size, Precision::F32), (true_size, Precision::BF16)] {
        for llama in [base, Llama { biases: true, tied: false, stored: DType::F32, ..base }] {
            let mut module = llama.module();
            let names = ["choose-precision", "fold-rope-permutation", "push-down-rows"];
            run_named(&mut module, &names, &Options { precision, ..Options::default() }, &mut |_, _| {}).unwrap();
            for func in &module.funcs {
                let mut entered = enter(func);
                saturate(&mut entered.graph, &rules, Limits::default(), &func.name, &mut context());
                let candidates = Candidates::new(&entered.graph, &entered.roots(), &Machine::default());
                let found = candidates.cost(&candidates.choose());
                let (best, worse) = (exact(&candidates), |best: u64| (found as f64 / best as f64 - 1.0) * 100.0);
                worst = worst.max(worse(best));
                println!("@{}, {}: found {found} ps, the optimum is {best} ps: {:.2} % above", func.name, precision.name, worse(best));
                compared += 1;
            }
        }
    }
    println!("{compared} functions, at most {worst:.3} % above the optimum");
    assert!(compared == 18 && worst == 0.0, "{compared} functions, {worst} % above the optimum");
}

#[test]
fn sharing_is_seen_where_a_greedy_choice_cannot() {
    // Merged, the product is paid once and read three times; class by class it looks three times as dear.
    let qkv = f("func @f(%x: f32[s, 512], %pos: i32[s], %seq: i32[s]) {
  weight @wq = \"q\": bf16[512, 512]
  weight @wk = \"k\": bf16[512, 512]
  weight @wv = \"v\": bf16[512, 512]
  %q = linear %x, @wq
  %k = linear %x, @wk
  %v = linear %x, @wv
  kv_write %k, %v, %pos, %seq, head_dim=64
  %a = attention %q, %pos, %seq, heads=8, kv_heads=8, head_dim=64, scale=0.125
  return %a
}");
    let PassKind::Rewrite(rules) = crate::registry::pass("merge-qkv").unwrap().kind else { panic!("no rewrite") };
    let rewritten = crate::rewrite::rewrite(&qkv, rules, &mut context()).unwrap();
    assert_eq!(rewritten.func.body.iter().filter(|i| i.op == OpKind::Linear).count(), 1);
    assert!(rewritten.gains["merge-qkv/readers"] > 2.0 * Machine::default().barrier_ns);
}
