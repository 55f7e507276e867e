//! Why a value of the input became what it is in the result: every pass and rule that changed it, with each form in between. Only made when
//! [`crate::pipeline::Options::why`] asks for it; rules of the e-graph are explained by a second e-graph (`egraph::explain`).

use llamac_ir::module::{Func, Inst, Module, Operand};
use llamac_ir::print;
use llamac_ir::recipe::Recipe;
use std::collections::BTreeMap;
use std::fmt;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The rule, or the pass if it is no rewrite.
    pub by: String,
    /// What was there.
    pub from: String,
    /// What it became.
    pub to: String,
    /// Recipes of weights that are new in it.
    pub weights: Vec<String>,
}

/// The history of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// Function.
    pub func: String,
    /// Name of the value, without `%`.
    pub value: String,
    /// How it began.
    pub first: String,
    /// What happened to it.
    pub steps: Vec<Step>,
    /// How it ended; `None`: it is not there any more.
    pub last: Option<String>,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "%{} in @{}", self.value, self.func)?;
        writeln!(f, "  {}", self.first)?;
        for step in &self.steps {
            writeln!(f, "  by {}:", step.by)?;
            if step.from != self.first && !step.from.is_empty() {
                writeln!(f, "       {}", step.from)?;
            }
            writeln!(f, "    -> {}", step.to)?;
            step.weights.iter().try_for_each(|w| writeln!(f, "       {w}"))?;
        }
        match &self.last {
            Some(last) if self.steps.is_empty() => writeln!(f, "  nothing changed it: {last}"),
            Some(last) => writeln!(f, "  result: {last}"),
            None => writeln!(f, "  result: not computed by itself"),
        }
    }
}

/// Steps of rewritten values, by function and value.
pub(crate) type Chains = BTreeMap<String, BTreeMap<String, Vec<Step>>>;

/// Histories while passes run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Histories {
    pattern: String,
    all: Vec<Why>,
}

impl Histories {
    /// Of the values that match: a name (`%q` or `q`), or all results of an op (`linear`).
    pub(crate) fn new(pattern: &str, module: &Module) -> Histories {
        let mut out = Histories { pattern: pattern.trim_start_matches('%').to_owned(), all: Vec::new() };
        module.funcs.iter().for_each(|func| out.start(func));
        out
    }

    fn start(&mut self, func: &Func) {
        for inst in &func.body {
            for v in &inst.results {
                let name = &func.values[v.0 as usize].name;
                if *name == self.pattern || inst.op.name() == self.pattern {
                    self.follow(func, name, inst);
                }
            }
        }
    }

    fn follow(&mut self, func: &Func, name: &str, inst: &Inst) {
        if !self.all.iter().any(|w| w.func == func.name && w.value == name) {
            let first = print::inst(func, inst);
            self.all.push(Why { func: func.name.clone(), value: name.to_owned(), first: first.clone(), steps: vec![], last: Some(first) });
        }
    }

    /// Whether values of a function are followed.
    pub(crate) fn follows(&self, func: &str) -> bool {
        self.all.iter().any(|w| w.func == func && w.last.is_some())
    }

    /// A pass has run. `chains` has the steps of rewritten values, by function and value.
    pub(crate) fn step(&mut self, pass: &str, before: &Module, after: &Module, chains: &Chains) {
        // What took a value in goes on with its history, so the list grows.
        let mut at = 0;
        while at < self.all.len() {
            let why = &mut self.all[at];
            at += 1;
            if why.last.is_none() {
                continue;
            }
            let (Some(old), new) = (before.func(&why.func), after.func(&why.func)) else { continue };
            let Some(was) = defined(old, &why.value) else { continue };
            let chain = chains.get(&why.func).and_then(|c| c.get(&why.value));
            let is = new.and_then(|f| Some((f, defined(f, &why.value)?)));
            if let Some((func, inst)) = is {
                let (from, to) = (print::inst(old, was), print::inst(func, inst));
                let weights = recipes(old, was, func, inst);
                match chain {
                    Some(chain) => why.steps.extend(chain.iter().cloned()),
                    None if from != to || !weights.is_empty() => {
                        why.steps.push(Step { by: pass.to_owned(), from, to: to.clone(), weights });
                    }
                    None => {}
                }
                why.last = Some(to);
                continue;
            }
            why.steps.extend(chain.into_iter().flatten().cloned());
            let readers = read_by(old, was);
            let by: Vec<String> = readers.iter().map(|name| format!("%{name}")).collect();
            let to = if by.is_empty() { "nothing: it is not read any more".to_owned() } else { format!("a part of {}", by.join(", ")) };
            why.steps.push(Step { by: pass.to_owned(), from: String::new(), to, weights: vec![] });
            why.last = None;
            for name in readers {
                if let Some(inst) = defined(old, &name) {
                    self.follow(old, &name, inst);
                }
            }
        }
        after.funcs.iter().filter(|f| before.func(&f.name).is_none()).for_each(|func| self.start(func));
    }

    /// What happened to all of them.
    pub(crate) fn finish(self) -> Vec<Why> {
        self.all
    }
}

fn defined<'f>(func: &'f Func, name: &str) -> Option<&'f Inst> {
    func.body.iter().find(|i| i.results.iter().any(|v| func.values[v.0 as usize].name == name))
}

/// Names of what is made from the results of an instruction.
fn read_by(func: &Func, inst: &Inst) -> Vec<String> {
    let reads = |i: &&Inst| i.operands.iter().any(|o| matches!(o, Operand::Value(v) if inst.results.contains(v)));
    func.body.iter().filter(reads).flat_map(|i| &i.results).map(|v| func.values[v.0 as usize].name.clone()).collect()
}

/// Recipes of an instruction's weights that are other than they were.
fn recipes(old: &Func, was: &Inst, new: &Func, is: &Inst) -> Vec<String> {
    let weights = |func: &Func, inst: &Inst| -> Vec<(String, Recipe)> {
        let weight = |o: &Operand| if let Operand::Weight(w) = o { Some(&func.weights[w.0 as usize]) } else { None };
        inst.operands.iter().filter_map(weight).map(|w| (w.name.clone(), w.recipe.clone())).collect()
    };
    let before = weights(old, was);
    weights(new, is).into_iter().filter(|w| !before.contains(w)).map(|(name, recipe)| format!("@{name} = {recipe}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{Options, Precision, run};
    use crate::testing::llama::Llama;

    fn histories(pattern: &str, precision: Precision) -> Vec<Why> {
        let mut module = Llama { layers: 2, ..Llama::default() }.module();
        run(&mut module, &Options { precision, why: Some(pattern.to_owned()), ..Options::default() }).unwrap().why
    }

    #[test]
    fn the_chain_of_a_product_names_each_rule_and_form() {
        let all = histories("%up", Precision::F32);
        insta::assert_snapshot!("why_up", all.iter().map(Why::to_string).collect::<String>());
    }

    #[test]
    fn what_is_taken_in_goes_on_as_a_part_of_its_readers() {
        let all = histories("attn_norm.x", Precision::BF16);
        let text = all.iter().map(Why::to_string).collect::<String>();
        assert!(text.contains("a part of %q, %k, %v") && text.contains("merge-qkv/readers") && text.contains("%q in @layer"), "{text}");
    }

    #[test]
    fn every_value_has_a_chain_that_ends_in_the_result() {
        for precision in [Precision::F32, Precision::BF16] {
            for op in ["linear", "add", "mul", "rope", "rms_norm", "gather_rows", "embed"] {
                let mut module = Llama { layers: 2, ..Llama::default() }.module();
                let why = run(&mut module, &Options { precision, why: Some(op.to_owned()), ..Options::default() }).unwrap().why;
                assert!(!why.is_empty(), "{op}");
                for w in why {
                    let inst = module.func(&w.func).and_then(|f| Some(print::inst(f, defined(f, &w.value)?)));
                    assert_eq!(w.last, inst, "{w}");
                    // Where a rewrite changed a value, its chain says how: no step is a pass of the e-graph as a whole.
                    assert!(w.steps.iter().all(|s| s.by != "rewrite" || s.to.starts_with("a part of")), "{w}");
                }
            }
        }
    }

    #[test]
    fn the_result_is_the_same_with_and_without_explanations() {
        for precision in crate::pipeline::PRECISIONS {
            for llama in [Llama::default(), Llama { biases: true, tied: false, ..Llama::default() }] {
                let (mut plain, mut explained) = (llama.module(), llama.module());
                let options = Options { precision: *precision, ..Options::default() };
                let report = run(&mut plain, &options).unwrap();
                let mut with = run(&mut explained, &Options { why: Some("linear".into()), ..options }).unwrap();
                assert_eq!(plain, explained);
                assert!(report.why.is_empty() && !with.why.is_empty());
                with.why.clear();
                assert_eq!(report, with);
            }
        }
    }
}
