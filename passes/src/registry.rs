//! Every pass, in the order in which the pipeline groups them. To add one: a file in `passes/`, a line here.

use crate::context::Context;
use crate::egraph::Rule;
use crate::passes::*;
use llamac_ir::module::Module;
use llamac_ir::op::Stage;

/// What a pass does to the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exactness {
    /// Same bits.
    Exact,
    /// The same real arithmetic, rounded in another order.
    Reassociated,
    /// Other numbers, by design.
    Approximate,
}

/// How a pass works.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Rules on the pure ops of one function, applied together with those of other passes; cost decides.
    Rewrite(&'static [Rule]),
    /// A function over the module.
    Transform(fn(&mut Module, &mut Context) -> Result<(), String>),
}

/// A pass.
#[derive(Debug, Clone, Copy)]
pub struct Pass {
    /// Verb and noun.
    pub name: &'static str,
    /// How it works.
    pub kind: Kind,
    /// What it does to the numbers.
    pub exactness: Exactness,
    /// The least stage that its result has.
    pub stage: Stage,
    /// Its file, whose header is its documentation.
    pub source: &'static str,
}

impl Pass {
    /// What it does, with an example before and after: the header of its file. The example is tested.
    pub fn doc(&self) -> String {
        let lines = self.source.lines().map_while(|l| l.strip_prefix("//!"));
        lines.map(|l| l.strip_prefix(' ').unwrap_or(l)).collect::<Vec<_>>().join("\n")
    }
}

/// Every pass.
pub const PASSES: &[&Pass] = &[
    &widen_floats::PASS,
    &raise_integer::PASS,
    &raise_norm::PASS,
    &raise_rotary::PASS,
    &raise_attention::PASS,
    &raise_swiglu::PASS,
    &fold_constants::PASS,
    &merge_common::PASS,
    &remove_dead::PASS,
    &choose_precision::PASS,
    &fold_rope_permutation::PASS,
    &push_down_rows::PASS,
    &swap_gather_norm::PASS,
    &fold_norm::PASS,
    &merge_qkv::PASS,
    &merge_gate_up::PASS,
    &fuse_norm_linear::PASS,
    &fuse_swiglu::PASS,
    &fuse_residual::PASS,
    &batch_experts::PASS,
    &fuse_rope_kv_write::PASS,
];

/// The pass of that name.
pub fn pass(name: &str) -> Option<&'static Pass> {
    #[cfg(test)]
    if name == crate::testing::wrong::WRONG.name {
        return Some(&crate::testing::wrong::WRONG);
    }
    PASSES.iter().copied().find(|p| p.name == name)
}

/// The pass whose name shares most pairs of letters with what was written.
pub fn nearest(name: &str) -> &'static str {
    let pairs = |s: &str| s.as_bytes().windows(2).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let written = pairs(name);
    let shared = |p: &&&Pass| pairs(p.name).iter().filter(|pair| written.contains(pair)).count() * 100 / p.name.len();
    PASSES.iter().max_by_key(shared).map_or("", |p| p.name)
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
