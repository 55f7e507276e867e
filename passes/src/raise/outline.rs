//! Layers, found in a flat decoder by its shape alone. Between two layers just one value is alive, beside what depends on positions only: there the
//! function can be cut. A layer begins at the last cut before an attention. Layers of equal code are calls of one function, whatever their names.

use llamac_ir::build::FuncBuilder;
use llamac_ir::module::{Func, Inst, LayerRun, Operand, ValueId, WeightId};
use llamac_ir::op::OpKind;
use llamac_ir::print;
use llamac_ir::recipe::{LAYER, Recipe};
use std::collections::{BTreeMap, BTreeSet};

/// Functions, `main` the last, and what the names in their recipes stand for.
#[derive(Debug)]
pub(super) struct Outlined {
    pub(super) funcs: Vec<Func>,
    /// Name of a tensor of a layer, its number filled in, to the tensor of the graph.
    pub(super) aliases: BTreeMap<String, String>,
    /// Layers in all.
    pub(super) layers: usize,
}

/// Cuts a flat decoder into layers.
///
/// # Errors
/// There is no attention, or more than one value goes from one layer to the next.
pub(super) fn outline(func: &Func) -> Result<Outlined, String> {
    let func = &scheduled(func);
    let bodies = layers(func)?;
    let globals = globals(func);
    let shared: Vec<ValueId> = func.params[1..3].to_vec();
    let mut args: Vec<ValueId> = func.body.iter().filter(|i| i.op == OpKind::RopeAngles).flat_map(|i| i.results.clone()).collect();
    args.extend(&shared);

    let mut kinds: Vec<(String, Vec<usize>)> = Vec::new();
    for (number, layer) in bodies.iter().enumerate() {
        let signature = signature(func, layer, &globals);
        match kinds.iter_mut().find(|(s, _)| *s == signature) {
            Some((_, members)) => members.push(number),
            None => kinds.push((signature, vec![number])),
        }
    }
    let mut aliases = BTreeMap::new();
    let mut funcs = Vec::new();
    let mut runs: Vec<LayerRun> = Vec::new();
    let name = |kind: usize| if kinds.len() == 1 { "layer".to_owned() } else { format!("layer.{kind}") };
    for (kind, (_, members)) in kinds.iter().enumerate() {
        let all: Vec<&Layer> = members.iter().map(|m| &bodies[*m]).collect();
        funcs.push(layer_func(func, &name(kind), &all, members, &args, &mut aliases)?);
    }
    for number in 0..bodies.len() {
        let func = name(kinds.iter().position(|(_, m)| m.contains(&number)).unwrap_or(0));
        match runs.last_mut() {
            Some(run) if run.func == func => run.count += 1,
            _ => runs.push(LayerRun { func, first: number, count: 1 }),
        }
    }
    funcs.push(main(func, &bodies, &args, runs)?);
    Ok(Outlined { funcs, aliases, layers: bodies.len() })
}

/// One layer: what comes in, its instructions, what goes out.
struct Layer {
    input: ValueId,
    body: Vec<usize>,
    output: ValueId,
}

/// The function with every instruction just before the first that needs it, so that layers stand one after the other; nothing dead.
fn scheduled(func: &Func) -> Func {
    let mut defs: Vec<Option<usize>> = vec![None; func.values.len()];
    for (i, inst) in func.body.iter().enumerate() {
        inst.results.iter().for_each(|r| defs[r.0 as usize] = Some(i));
    }
    let needs = |i: usize| -> Vec<usize> {
        let inst = &func.body[i];
        let read = inst.operands.iter().filter_map(|o| if let Operand::Value(v) = o { defs[v.0 as usize] } else { None });
        // Attention reads what was written just before it.
        let before = (inst.op == OpKind::Attention && i > 0 && func.body[i - 1].op == OpKind::KvWrite).then(|| i - 1);
        read.chain(before).collect()
    };
    let mut done = vec![false; func.body.len()];
    let mut order = Vec::new();
    let roots = func.results.iter().filter_map(|o| if let Operand::Value(v) = o { defs[v.0 as usize] } else { None });
    let mut stack: Vec<(usize, bool)> = roots.map(|r| (r, false)).collect();
    while let Some((i, ready)) = stack.pop() {
        if done[i] {
            continue;
        }
        if ready {
            done[i] = true;
            order.push(i);
            continue;
        }
        stack.push((i, true));
        stack.extend(needs(i).into_iter().rev().filter(|n| !done[*n]).map(|n| (n, false)));
    }
    Func { body: order.iter().map(|i| func.body[*i].clone()).collect(), ..func.clone() }
}

/// Values that depend on parameters of the step other than token ids: the same for every layer.
fn globals(func: &Func) -> BTreeSet<ValueId> {
    let mut out: BTreeSet<ValueId> = func.params[1..].iter().copied().collect();
    for inst in &func.body {
        let known = inst.operands.iter().all(|o| match o {
            Operand::Value(v) => out.contains(v),
            Operand::Weight(_) => true,
        });
        if known && !inst.results.is_empty() && inst.op != OpKind::Attention {
            out.extend(&inst.results);
        }
    }
    out
}

fn layers(func: &Func) -> Result<Vec<Layer>, String> {
    let globals = globals(func);
    let own: Vec<usize> = (0..func.body.len()).filter(|i| !func.body[*i].results.iter().any(|r| globals.contains(r))).collect();
    // Where each value is read last.
    let mut last: BTreeMap<ValueId, usize> = BTreeMap::new();
    for (at, i) in own.iter().enumerate() {
        for operand in &func.body[*i].operands {
            if let Operand::Value(v) = operand
                && !globals.contains(v)
                && *v != func.params[0]
            {
                last.insert(*v, at);
            }
        }
    }
    let mut ends: BTreeMap<usize, Vec<ValueId>> = BTreeMap::new();
    last.iter().for_each(|(v, at)| ends.entry(*at).or_default().push(*v));
    let mut alive: BTreeSet<ValueId> = BTreeSet::new();
    let mut cuts: Vec<(usize, ValueId)> = Vec::new();
    for (at, i) in own.iter().enumerate() {
        for v in ends.get(&at).into_iter().flatten() {
            alive.remove(v);
        }
        alive.extend(func.body[*i].results.iter().filter(|r| last.contains_key(r)));
        if alive.len() == 1 {
            cuts.extend(alive.first().map(|v| (at + 1, *v)));
        }
    }
    let attentions: Vec<usize> = (0..own.len()).filter(|at| func.body[own[*at]].op == OpKind::Attention).collect();
    if attentions.is_empty() {
        return Err("there is no attention".to_owned());
    }
    let mut starts = Vec::new();
    for at in &attentions {
        let cut = cuts.iter().rev().find(|(c, _)| c <= at).ok_or("more than one value goes into the first layer")?;
        if starts.last().is_some_and(|(c, _)| c == &cut.0) {
            return Err("more than one value goes from one layer to the next".to_owned());
        }
        starts.push(*cut);
    }
    let end = last_end(func, &own, &cuts, &starts, attentions[attentions.len() - 1]).ok_or("the end of the last layer is not found")?;
    starts.push(end);
    let layer = |w: &[(usize, ValueId)]| Layer { input: w[0].1, body: own[w[0].0..w[1].0].to_vec(), output: w[1].1 };
    Ok(starts.windows(2).map(layer).collect())
}

/// The last layer ends where one like it would; a single one at the last sum.
fn last_end(
    func: &Func,
    own: &[usize],
    cuts: &[(usize, ValueId)],
    starts: &[(usize, ValueId)],
    attention: usize,
) -> Option<(usize, ValueId)> {
    let ops = |from: usize, to: usize| own[from..to].iter().map(|i| func.body[*i].op).collect::<Vec<_>>();
    let (begin, _) = *starts.last()?;
    let after = cuts.iter().filter(|(c, _)| *c > attention);
    let like =
        |(cut, _): &&(usize, ValueId)| starts.windows(2).any(|w| w[1].0 - w[0].0 == cut - begin && ops(w[0].0, w[1].0) == ops(begin, *cut));
    let sum = |(cut, _): &&(usize, ValueId)| func.body[own[cut - 1]].op == OpKind::Add;
    after.clone().rev().find(like).or_else(|| after.rev().find(sum)).copied()
}

/// Instructions of a layer with those that depend on positions only, but for rotary angles, which are given.
fn with_globals(func: &Func, layer: &Layer) -> Vec<usize> {
    let mut body: Vec<usize> = Vec::new();
    let mut stack: Vec<usize> = layer.body.iter().rev().copied().collect();
    while let Some(i) = stack.pop() {
        if body.contains(&i) {
            continue;
        }
        let needs = func.body[i].operands.iter().filter_map(|o| match o {
            Operand::Value(v) => func.def(*v).filter(|d| func.body[*d].op == OpKind::AttnTemperature && !body.contains(d)),
            Operand::Weight(_) => None,
        });
        let needs: Vec<usize> = needs.collect();
        if needs.is_empty() {
            body.push(i);
        } else {
            stack.push(i);
            stack.extend(needs);
        }
    }
    body
}

/// The code of a layer with all names taken out: layers of one signature are one function.
fn signature(func: &Func, layer: &Layer, globals: &BTreeSet<ValueId>) -> String {
    let mut numbers: BTreeMap<ValueId, usize> = BTreeMap::from([(layer.input, 0)]);
    let mut weights: Vec<WeightId> = Vec::new();
    let mut text = String::new();
    for i in with_globals(func, layer) {
        let inst = &func.body[i];
        text += inst.op.name();
        for operand in &inst.operands {
            match operand {
                Operand::Value(v) => match numbers.get(v) {
                    Some(n) => text += &format!(" %{n}"),
                    None if globals.contains(v) => text += &format!(" global{}", v.0),
                    None => text += " ?",
                },
                Operand::Weight(w) => {
                    let at = weights.iter().position(|k| k == w).unwrap_or_else(|| {
                        weights.push(*w);
                        weights.len() - 1
                    });
                    text += &format!(" @{at}:{}", nameless(&func.weights[w.0 as usize].recipe));
                }
            }
        }
        inst.attrs.iter().for_each(|a| text += &format!(" {a}"));
        for r in &inst.results {
            let next = numbers.len();
            numbers.insert(*r, next);
        }
        text += "\n";
    }
    text
}

fn nameless(recipe: &Recipe) -> Recipe {
    renamed(recipe, &mut |_| String::new())
}

/// A recipe with its sources called otherwise.
pub(super) fn renamed(recipe: &Recipe, name: &mut dyn FnMut(&str) -> String) -> Recipe {
    let mut boxed = |of: &Recipe| Box::new(renamed(of, name));
    match recipe {
        Recipe::Source { name: old, ty } => Recipe::Source { name: name(old), ty: ty.clone() },
        Recipe::Literal { .. } => recipe.clone(),
        Recipe::Cast(to, of) => Recipe::Cast(*to, boxed(of)),
        Recipe::Concat(parts) => Recipe::Concat(parts.iter().map(|p| renamed(p, name)).collect()),
        Recipe::Stack(parts) => Recipe::Stack(parts.iter().map(|p| renamed(p, name)).collect()),
        Recipe::Transpose(of) => Recipe::Transpose(boxed(of)),
        Recipe::PermuteRope(head, of) => Recipe::PermuteRope(*head, boxed(of)),
        Recipe::Rows(start, len, of) => Recipe::Rows(*start, *len, boxed(of)),
        Recipe::ScaleColumns(of, by) => Recipe::ScaleColumns(boxed(of), boxed(by)),
        Recipe::ScaleRows(of, by) => Recipe::ScaleRows(boxed(of), boxed(by)),
    }
}

/// Weights of a layer in order of their first use.
fn weights_of(func: &Func, body: &[usize]) -> Vec<WeightId> {
    let mut out = Vec::new();
    for operand in body.iter().flat_map(|i| &func.body[*i].operands) {
        if let Operand::Weight(w) = operand
            && !out.contains(w)
        {
            out.push(*w);
        }
    }
    out
}

fn layer_func(
    func: &Func,
    name: &str,
    all: &[&Layer],
    numbers: &[usize],
    args: &[ValueId],
    aliases: &mut BTreeMap<String, String>,
) -> Result<Func, String> {
    let first = all[0];
    let body = with_globals(func, first);
    let mut out = FuncBuilder::new(name);
    let mut values: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    values.insert(first.input, out.param("x", func.values[first.input.0 as usize].ty.clone()));
    for arg in args {
        let info = &func.values[arg.0 as usize];
        values.insert(*arg, out.param(&info.name, info.ty.clone()));
    }
    let members: Vec<Vec<WeightId>> = all.iter().map(|l| weights_of(func, &with_globals(func, l))).collect();
    let mut weights: BTreeMap<WeightId, WeightId> = BTreeMap::new();
    for (at, own) in members[0].iter().enumerate() {
        let names = |w: &WeightId| {
            let mut list = Vec::new();
            func.weights[w.0 as usize].recipe.sources(&mut |s| list.push(s.to_owned()));
            list
        };
        let of_layers: Vec<Vec<String>> = members.iter().map(|m| names(&m[at])).collect();
        let mut source = 0;
        let recipe = renamed(&func.weights[own.0 as usize].recipe, &mut |old| {
            let of_this: Vec<&String> = of_layers.iter().map(|l| &l[source]).collect();
            source += 1;
            if of_this.len() > 1 && of_this.iter().all(|n| *n == old) {
                return old.to_owned();
            }
            let template = format!("{name}.{LAYER}.{at}.{source}");
            for (number, real) in numbers.iter().zip(of_this) {
                aliases.insert(template.replace(LAYER, &number.to_string()), real.clone());
            }
            template
        });
        weights.insert(*own, out.weight(&format!("w{at}"), recipe)?);
    }
    copy(func, &body, &mut out, &mut values, &weights)?;
    let result = values.get(&first.output).ok_or("a layer does not make what it gives")?;
    Ok(out.finish(&[(*result).into()]))
}

/// Copies instructions into another function.
fn copy(
    func: &Func,
    body: &[usize],
    out: &mut FuncBuilder,
    values: &mut BTreeMap<ValueId, ValueId>,
    weights: &BTreeMap<WeightId, WeightId>,
) -> Result<(), String> {
    for i in body {
        let inst: &Inst = &func.body[*i];
        let operand = |o: &Operand| match o {
            Operand::Value(v) => values.get(v).map(|v| Operand::Value(*v)),
            Operand::Weight(w) => weights.get(w).map(|w| Operand::Weight(*w)),
        };
        let operands: Option<Vec<Operand>> = inst.operands.iter().map(operand).collect();
        let operands = operands.ok_or_else(|| format!("`{}` reads what is not there", print::inst(func, inst)))?;
        let name = inst.results.first().map_or("", |r| &func.values[r.0 as usize].name);
        let made = out.ops(inst.op, name, &operands, &crate::egraph::leave::named(inst.op, &inst.attrs))?;
        values.extend(inst.results.iter().copied().zip(made));
    }
    Ok(())
}

/// What is before and behind the layers.
fn main(func: &Func, layers: &[Layer], args: &[ValueId], runs: Vec<LayerRun>) -> Result<Func, String> {
    let inside: BTreeSet<usize> = layers.iter().flat_map(|l| l.body.iter().copied()).collect();
    let (input, output) = (layers[0].input, layers[layers.len() - 1].output);
    let mut out = FuncBuilder::new("main");
    let mut values = BTreeMap::new();
    for p in &func.params {
        let info = &func.values[p.0 as usize];
        values.insert(*p, out.param(&info.name, info.ty.clone()));
    }
    let last = inside.iter().max().copied().unwrap_or(0);
    let outside = |range: &dyn Fn(usize) -> bool| -> Vec<usize> {
        (0..func.body.len()).filter(|i| !inside.contains(i) && range(*i) && func.body[*i].op != OpKind::AttnTemperature).collect()
    };
    let (before, after) = (outside(&|i| i < last), outside(&|i| i > last));
    let mut weights = BTreeMap::new();
    for w in weights_of(func, &[before.clone(), after.clone()].concat()) {
        let weight = &func.weights[w.0 as usize];
        weights.insert(w, out.weight(&weight.name, weight.recipe.clone())?);
    }
    copy(func, &before, &mut out, &mut values, &weights)?;
    let operands: Option<Vec<Operand>> = [input].iter().chain(args).map(|v| values.get(v).map(|v| Operand::Value(*v))).collect();
    let operands = operands.ok_or("a layer reads what is made behind it")?;
    let ty = func.values[output.0 as usize].ty.clone();
    let y = out.layers("y", &operands, runs, ty)?;
    values.insert(output, y);
    copy(func, &after, &mut out, &mut values, &weights)?;
    let results: Option<Vec<Operand>> =
        func.results.iter().map(|o| if let Operand::Value(v) = o { values.get(v).map(|v| (*v).into()) } else { None }).collect();
    Ok(out.finish(&results.ok_or("a result is made inside a layer")?))
}
