//! Layers that get different weight formats need functions of their own: [`split`] copies a layer function once for each choice, so that code
//! grows with the number of different choices and not with the number of layers. What is chosen is data: [`Formats`].

use llamac_ir::dtype::DType;
use llamac_ir::module::{Func, LayerRun, Module, Operand, ValueId};
use llamac_ir::op::OpKind;
use std::collections::BTreeMap;

/// Formats of single weights, by function and name of the weight; others get those of the `Precision`.
pub type Formats = BTreeMap<(String, String), DType>;

/// The function of embedding and head.
pub(crate) const MAIN: &str = "main";

/// Lets layers call copies of their function so that two calls of one function have equal keys. The first key of a function keeps its name.
/// Returns for each function after that its name, the name before, and its key.
pub fn split<K: PartialEq>(module: &mut Module, key: impl Fn(&str, usize) -> K) -> Vec<(String, String, K)> {
    let mut made: Vec<(String, String, K)> = Vec::new();
    let mut copies: Vec<Func> = Vec::new();
    let taken: Vec<String> = module.funcs.iter().map(|f| f.name.clone()).collect();
    let originals = module.funcs.clone();
    for inst in module.funcs.iter_mut().flat_map(|f| &mut f.body).filter(|inst| inst.op == OpKind::Layers) {
        let mut runs: Vec<LayerRun> = Vec::new();
        for (old, layer) in inst.calls.iter().flat_map(|run| (run.first..run.first + run.count).map(|layer| (&run.func, layer))) {
            let wanted = key(old, layer);
            let name = match made.iter().find(|(_, from, k)| from == old && *k == wanted) {
                Some((name, ..)) => name.clone(),
                None => {
                    let number = made.iter().filter(|(_, from, _)| from == old).count() + 1;
                    let free = |n: &String| !taken.contains(n);
                    let numbered = (number..).map(|n| format!("{old}_{n}")).find(free).unwrap_or_default();
                    let name = if number == 1 { old.clone() } else { numbered };
                    if number > 1 {
                        let copy = originals.iter().find(|f| f.name == *old).cloned();
                        copies.extend(copy.map(|f| Func { name: name.clone(), ..f }));
                    }
                    made.push((name.clone(), old.clone(), wanted));
                    name
                }
            };
            match runs.last_mut() {
                Some(run) if run.func == name && run.first + run.count == layer => run.count += 1,
                _ => runs.push(LayerRun { func: name, first: layer, count: 1 }),
            }
        }
        inst.calls = runs;
    }
    module.funcs.extend(copies);
    made
}

/// Names of the matrices of a layer function that may be quantized, those with the same input together; in `main`, those made of the same tensors.
pub fn choosable(func: &Func) -> Vec<Vec<String>> {
    let exact = crate::passes::choose_precision::not_quantized(func);
    let mut sites: Vec<(Option<ValueId>, Vec<usize>)> = Vec::new();
    for inst in &func.body {
        let (Some(Operand::Value(x)), Some(Operand::Weight(w))) = (inst.operands.first(), inst.operands.get(1)) else { continue };
        let w = w.0 as usize;
        let matrix = matches!(inst.op, OpKind::Linear | OpKind::ExpertLinear | OpKind::Embed);
        if !matrix || exact.contains(&w) || sites.iter().any(|(_, all)| all.contains(&w)) {
            continue;
        }
        let like = |v: &usize| func.weights[*v].recipe == func.weights[w].recipe;
        let joins = |site: &(Option<ValueId>, Vec<usize>)| if func.name == MAIN { site.1.iter().any(like) } else { site.0 == Some(*x) };
        match sites.iter_mut().find(|site| joins(site)) {
            Some(site) => site.1.push(w),
            None => sites.push((Some(*x), vec![w])),
        }
    }
    sites.into_iter().map(|(_, all)| all.into_iter().map(|w| func.weights[w].name.clone()).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::llama::Llama;

    fn module() -> Module {
        // Heads of other sizes are padded, and what reads them is never quantized.
        Llama { head_dim: 16, ..Llama::default() }.module()
    }

    #[test]
    fn layers_with_equal_keys_share_a_function_and_runs_stay_together() {
        let mut module = module();
        let before = module.clone();
        let calls = |m: &Module| m.func(MAIN).unwrap().body.iter().flat_map(|i| i.calls.clone()).collect::<Vec<_>>();
        let name = calls(&module)[0].func.clone();
        let layers: usize = calls(&module).iter().map(|c| c.count).sum();
        assert!(layers >= 2);
        // All alike: nothing changes.
        assert_eq!(split(&mut module, |_, _| 0).len(), 1);
        assert_eq!(module, before);
        // The last layer is another one.
        let made = split(&mut module, |_, layer| layer + 1 == layers);
        assert_eq!(made.len(), 2);
        assert_eq!(made[1], (format!("{name}_2"), name.clone(), true));
        assert_eq!(
            calls(&module).iter().map(|c| (c.func.clone(), c.first, c.count)).collect::<Vec<_>>(),
            [(name.clone(), 0, layers - 1), (format!("{name}_2"), layers - 1, 1)]
        );
        assert_eq!(module.func(&made[1].0).unwrap().body, module.func(&name).unwrap().body);
        llamac_ir::verify::verify(&module, module.stage).unwrap();
    }

    #[test]
    fn matrices_with_one_input_are_chosen_together() {
        let module = module();
        let layer = module.funcs.iter().find(|f| f.name != MAIN).unwrap();
        let sites = choosable(layer);
        assert_eq!(sites.iter().map(Vec::len).collect::<Vec<_>>(), [3, 1, 2, 1], "{sites:?}");
        assert!(!choosable(module.func(MAIN).unwrap()).is_empty());
    }
}
