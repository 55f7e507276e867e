//! `--quant auto`: a weight format for each group of matrices with one input, in each layer, under a budget of bytes or of divergence.
//!
//! Method: the model is calibrated on the first windows of a text (`calibrate`), the rest of the text is held out. For each group the divergence
//! of the model's distributions on the held-out windows is measured with only this group rounded to `PROBE`; other formats are taken to lose
//! as much more or less as their error in the group's products is larger or smaller (both are quadratic in small errors). Losses of groups add
//! up, on top of what int8 everywhere loses, with the KV cache that is asked for. The choice is solved by dynamic programming (`solve`), for
//! each format of the cache if that is to be chosen too, and the chosen model is measured.

mod measure;
mod report;
mod solve;

use crate::calibrate::{self, Calibrated, Text};
use crate::diag::{Diag, Result};
use crate::driver::{self, CompileOptions, KV_FORMATS};
use crate::frontend::Model;
use llamac_ir::dtype::DType;
use llamac_ir::module::{Module, Weight};
use llamac_ir::recipe::Recipe;
use llamac_passes::cost::element_bytes;
use llamac_passes::variants;
use llamac_runtime::format::{BF16, WEIGHT_FORMATS};
use measure::Reference;
use solve::{Choice, Limit, Solution, solve};
use std::collections::BTreeMap;

pub(crate) use measure::divergence;

/// What the chosen model may cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// Bits for each weight of all matrices, with their scales; embedding and head count, padding of odd sizes does not.
    BitsPerWeight(f64),
    /// Bytes of all matrices; where the format of the KV cache is chosen too, with the cache of one sequence of the longest context.
    Bytes(u64),
    /// Mean KL divergence from the unrounded model, nats for each token.
    Divergence(f64),
}

/// Formats that matrices of layers may get; embedding and head get one of the last four.
const FORMATS: [DType; 5] = [DType::Q4G128, DType::Q4G64, DType::Q4G32, DType::Q6G32, DType::Q8];

/// `--kv auto`: one of [`KV_FORMATS`].
pub(crate) const KV_AUTO: &str = "auto";

/// The format in which the loss of each group is measured.
const PROBE: usize = 1;

/// Different choices that layers of one kind may have: what bounds the size of the code.
const VARIANTS: usize = 8;

/// Formats by function and layer (`None`: `main`), and by name of the weight.
pub type Chosen = BTreeMap<(String, Option<usize>), BTreeMap<String, DType>>;

/// Matrices that get one format.
#[derive(Debug)]
struct Site {
    func: String,
    layer: Option<usize>,
    weights: Vec<String>,
    /// Parameters, those of embedding and head once.
    elements: u64,
    choices: Vec<Choice>,
    /// Bits of each choice without the padding of odd sizes: codes and scales.
    bits: Vec<f64>,
}

/// A format of the KV cache.
#[derive(Debug, Clone)]
struct Cache {
    /// As `--kv` names it; `None`: the default.
    name: Option<String>,
    /// Bytes of one sequence of the longest context, in whole pages.
    bytes: u64,
    /// What int8 everywhere loses with it.
    base: f64,
}

/// What was chosen, predicted and measured.
#[derive(Debug)]
pub struct Auto {
    /// The formats.
    pub chosen: Chosen,
    sites: Vec<Site>,
    solution: Solution,
    /// The format of the KV cache.
    cache: Cache,
    /// What could have been chosen instead; none where it was given.
    others: Vec<Cache>,
    /// Bytes of matrices that have no choice.
    fixed: u64,
    /// What the machine reads from memory, GB/s.
    read_gbs: f64,
    /// Mean divergence that the sum of the groups predicts.
    pub predicted: f64,
    /// Mean divergence of the chosen model on the held-out part of the text.
    pub measured: f64,
}

impl Auto {
    /// Bytes of all matrices.
    pub fn bytes(&self) -> u64 {
        self.sites.iter().zip(&self.solution.chosen).map(|(s, c)| s.choices[*c].bytes).sum::<u64>() + self.fixed
    }

    /// The options with what was chosen.
    pub fn apply(&self, options: &CompileOptions) -> CompileOptions {
        CompileOptions { chosen: Some(self.chosen.clone()), kv: self.cache.name.clone(), ..options.clone() }
    }

    /// Bits for each weight, as [`Budget::BitsPerWeight`] counts them.
    pub fn bits_per_weight(&self) -> f64 {
        let elements: u64 = self.sites.iter().map(|s| s.elements).sum();
        self.sites.iter().zip(&self.solution.chosen).map(|(s, c)| s.bits[*c]).sum::<f64>() / elements.max(1) as f64
    }
}

/// Chooses.
///
/// # Errors
/// The budget cannot be kept, the text is too short, or a tensor cannot be read.
pub(crate) fn choose(model: &Model, text: &Text, calibrated: &Calibrated<'_>, options: &CompileOptions, budget: Budget) -> Result<Auto> {
    let planned = |quant: &str, kv: Option<&String>, chosen: Option<Chosen>| {
        driver::plan(model, &CompileOptions { quant: Some(quant.into()), kv: kv.cloned(), chosen, ..options.clone() })
    };
    let exact = planned("f32", None, None)?;
    let (read_gbs, exact) = (exact.target.machine().read_gbs, exact.quantized);
    let windows = calibrate::held_out(model, text)?;
    let reference = Reference::new(&exact, calibrated, &windows, model.config.vocab)?;
    let names: Vec<Option<String>> = match options.kv.as_deref() {
        Some(KV_AUTO) => KV_FORMATS.map(|(name, _)| Some(name.to_owned())).into(),
        given => vec![given.map(str::to_owned)],
    };
    let mut caches = Vec::new();
    for name in names {
        let plan = planned("int8", name.as_ref(), None)?;
        let base = reference.divergence(&plan.quantized, calibrated)?;
        let bytes = plan.program.plan_meta().cache_bytes(plan.program.limits.max_context as u64);
        caches.push(Cache { name, bytes, base });
    }
    let (mut sites, fixed) = sites(&exact);
    for site in &mut sites {
        measure(site, &exact, calibrated, &reference)?;
    }

    // Under a budget of bits padding is not counted.
    let counted: Vec<Vec<Choice>> = sites.iter().map(|s| s.counted(budget)).collect();
    let elements: u64 = sites.iter().map(|s| s.elements).sum();
    let free = caches.len() > 1;
    let mut wanted = budget;
    let mut rounds = 0;
    loop {
        let limit = |cache: &Cache| limit(wanted, fixed + if free { cache.bytes } else { 0 }, elements, cache.base);
        let (at, solution) = best(&caches, budget, |cache| solved(&sites, &counted, limit(cache), budget))?;
        let chosen = chosen(&sites, &solution);
        let predicted = caches[at].base + solution.loss;
        let plan = planned("auto", caches[at].name.as_ref(), Some(chosen.clone()))?;
        let measured = reference.divergence(&plan.quantized, calibrated)?;
        rounds += 1;
        match budget {
            // What was predicted too low is asked for more strictly.
            Budget::Divergence(most) if measured > most && rounds < 4 => {
                let by = if let Budget::Divergence(now) = wanted { now } else { most };
                wanted = Budget::Divergence(by * (most / measured) * 0.98);
            }
            _ => {
                let cache = caches.remove(at);
                return Ok(Auto { chosen, sites, solution, cache, others: caches, fixed, read_gbs, predicted, measured });
            }
        }
    }
}

/// The cache, by its number, with which the solution is best: that of the least loss under a budget of size, that of the fewest bytes under
/// one of loss. Of equal ones the first.
fn best(caches: &[Cache], budget: Budget, solve: impl Fn(&Cache) -> Result<Solution>) -> Result<(usize, Solution)> {
    let cost = |cache: &Cache, solution: &Solution| match budget {
        Budget::Divergence(_) => (cache.bytes + solution.bytes) as f64,
        Budget::Bytes(_) | Budget::BitsPerWeight(_) => cache.base + solution.loss,
    };
    let (mut found, mut failed) = (None, None);
    for (at, cache) in caches.iter().enumerate() {
        match solve(cache) {
            Ok(solution) => {
                let cost = cost(cache, &solution);
                if found.as_ref().is_none_or(|(least, _, _)| cost < *least) {
                    found = Some((cost, at, solution));
                }
            }
            Err(why) => failed = Some(why),
        }
    }
    match (found, failed) {
        (Some((_, at, solution)), _) => Ok((at, solution)),
        (None, Some(why)) => Err(why),
        (None, None) => Err(Diag::new("internal", "no format of the KV cache to choose from")),
    }
}

fn limit(budget: Budget, fixed: u64, elements: u64, base: f64) -> Limit {
    match budget {
        Budget::BitsPerWeight(bits) => Limit::Bytes((bits * elements as f64 / 8.0) as u64),
        Budget::Bytes(bytes) => Limit::Bytes(bytes.saturating_sub(fixed)),
        Budget::Divergence(most) => Limit::Loss((most - base).max(0.0)),
    }
}

/// The best choice in which layers of a kind have at most [`VARIANTS`] different ones.
fn solved(sites: &[Site], items: &[Vec<Choice>], limit: Limit, budget: Budget) -> Result<Solution> {
    let free = solve(items, limit).ok_or_else(|| impossible(sites, items, budget))?;
    // Layers of a kind, with the places of their sites.
    let mut layers: BTreeMap<(&str, Option<usize>), Vec<usize>> = BTreeMap::new();
    sites.iter().enumerate().for_each(|(i, s)| layers.entry((&s.func, s.layer)).or_default().push(i));
    let pattern = |of: &Vec<usize>| of.iter().map(|i| free.chosen[*i]).collect::<Vec<usize>>();
    let mut patterns: BTreeMap<&str, Vec<(Vec<usize>, usize)>> = BTreeMap::new();
    for ((func, _), of) in &layers {
        let known = patterns.entry(func).or_default();
        match known.iter_mut().find(|k| k.0 == pattern(of)) {
            Some(k) => k.1 += 1,
            None => known.push((pattern(of), 1)),
        }
    }
    if patterns.values().all(|p| p.len() <= VARIANTS) {
        return Ok(free);
    }
    // The most frequent patterns, and the smallest one so that every budget can still be kept; then a choice of patterns for layers.
    for known in patterns.values_mut().filter(|p| p.len() > VARIANTS) {
        known.sort_by_key(|k| std::cmp::Reverse(k.1));
        known.truncate(VARIANTS - 1);
        let smallest = vec![0; known[0].0.len()];
        known.push((smallest, 0));
    }
    let total = |of: &Vec<usize>, pattern: &Vec<usize>| {
        let choices = of.iter().zip(pattern).map(|(i, c)| items[*i][*c]);
        choices.fold(Choice { bytes: 0, loss: 0.0 }, |a, b| Choice { bytes: a.bytes + b.bytes, loss: a.loss + b.loss })
    };
    let by_pattern: Vec<Vec<Choice>> =
        layers.iter().map(|((func, _), of)| patterns[func].iter().map(|(pattern, _)| total(of, pattern)).collect()).collect();
    let by_layer = solve(&by_pattern, limit).ok_or_else(|| impossible(sites, items, budget))?;
    let mut solution = Solution { bound: free.bound, ..by_layer.clone() };
    solution.chosen = vec![0; sites.len()];
    for (((func, _), of), pick) in layers.iter().zip(&by_layer.chosen) {
        of.iter().zip(&patterns[func][*pick].0).for_each(|(i, c)| solution.chosen[*i] = *c);
    }
    Ok(solution)
}

fn impossible(sites: &[Site], items: &[Vec<Choice>], budget: Budget) -> Diag {
    let least: u64 = items.iter().filter_map(|of| of.iter().map(|c| c.bytes).min()).sum();
    let elements: u64 = sites.iter().map(|s| s.elements).sum();
    let (found, help) = match budget {
        Budget::BitsPerWeight(bits) => (format!("--size {bits}bpw"), "give a larger --size"),
        Budget::Bytes(bytes) => (format!("--size {bytes}"), "give a larger --size"),
        Budget::Divergence(most) => (format!("--max-kl {most}"), "give a larger --max-kl, or use --quant bf16"),
    };
    let bits = least as f64 * 8.0 / elements.max(1) as f64;
    Diag::new("budget", "no choice of formats keeps to the budget")
        .found(found)
        .expected(format_args!("{least} bytes ({bits:.2}bpw) or more, and what int8 loses or more"))
        .help(help)
}

fn chosen(sites: &[Site], solution: &Solution) -> Chosen {
    let mut all = Chosen::new();
    for (site, choice) in sites.iter().zip(&solution.chosen) {
        let of = all.entry((site.func.clone(), site.layer)).or_default();
        of.extend(site.weights.iter().map(|w| (w.clone(), site.format(*choice))));
    }
    all
}

impl Site {
    /// The choices with sizes as the budget counts them.
    fn counted(&self, budget: Budget) -> Vec<Choice> {
        let bits = matches!(budget, Budget::BitsPerWeight(_));
        let one = |(c, b): (&Choice, &f64)| if bits { Choice { bytes: (b / 8.0).ceil() as u64, ..*c } } else { *c };
        self.choices.iter().zip(&self.bits).map(one).collect()
    }

    /// The format of a choice.
    fn format(&self, choice: usize) -> DType {
        FORMATS[choice + FORMATS.len() - self.choices.len()]
    }
}

/// The groups of every layer and of `main`, with sizes, and about the bytes of the matrices that are never quantized.
fn sites(exact: &Module) -> (Vec<Site>, u64) {
    let (mut out, mut fixed): (Vec<Site>, u64) = (Vec::new(), 0);
    let calls = exact.func(MAIN).into_iter().flat_map(|f| &f.body).flat_map(|i| &i.calls);
    let layers: Vec<(String, Option<usize>)> =
        calls.flat_map(|run| (run.first..run.first + run.count).map(|l| (run.func.clone(), Some(l)))).collect();
    for (name, layer) in layers.into_iter().chain([(MAIN.to_owned(), None)]) {
        let Some(func) = exact.func(&name) else { continue };
        for weights in variants::choosable(func) {
            let formats = if layer.is_some() { &FORMATS[..] } else { &FORMATS[1..] };
            // In `main` they are of the same tensors: stored once.
            let stored = if layer.is_some() { weights.len() } else { 1 };
            let shapes: Vec<Vec<usize>> =
                func.weights.iter().filter(|w| weights.contains(&w.name)).filter_map(|w| w.ty.sizes()).take(stored).collect();
            let bytes = |format: &DType| -> u64 {
                let packed = WEIGHT_FORMATS.iter().find(|f| f.name == format.name());
                let of = |s: &Vec<usize>| match s[..] {
                    [n, k] => packed.map_or(0, |f| f.matrix_bytes(n, k) as u64),
                    [e, n, k] => packed.map_or(0, |f| (e * f.matrix_bytes(n, k)) as u64),
                    _ => 0,
                };
                shapes.iter().map(of).sum()
            };
            let choices = formats.iter().map(|f| Choice { bytes: bytes(f), loss: 0.0 }).collect();
            let elements = shapes.iter().map(|s| s.iter().product::<usize>() as u64).sum();
            let count = |s: &Vec<usize>| (s.iter().product::<usize>(), s.last().copied().unwrap_or(1));
            let plain = |f: &DType| shapes.iter().map(count).map(|(n, k)| n as f64 * 8.0 * element_bytes(*f, k)).sum();
            let bits = formats.iter().map(plain).collect();
            out.push(Site { func: name.clone(), layer, weights, elements, choices, bits });
        }
        let given = |w: &&Weight| out.iter().any(|s| s.func == name && s.weights.contains(&w.name));
        let without: Vec<&Weight> = func.weights.iter().filter(|w| w.ty.shape.len() == 2 && !given(w)).collect();
        fixed += without.iter().filter_map(|w| w.ty.sizes()).map(|s| BF16.matrix_bytes(s[0], s[1]) as u64).sum::<u64>();
    }
    (out, fixed)
}

const MAIN: &str = "main";

/// Fills in what each choice of a site loses.
fn measure(site: &mut Site, exact: &Module, source: &Calibrated<'_>, reference: &Reference) -> Result<()> {
    let mut module = exact.clone();
    let name = match site.layer {
        Some(wanted) => {
            let made = variants::split(&mut module, |func, layer| func == site.func && layer == wanted);
            made.into_iter().find(|m| m.2).map_or_else(|| site.func.clone(), |m| m.0)
        }
        None => site.func.clone(),
    };
    let formats: Vec<DType> = (0..site.choices.len()).map(|c| site.format(c)).collect();
    let probe = formats.iter().position(|f| *f == FORMATS[PROBE]).unwrap_or(0);
    let mut errors = vec![0.0; formats.len()];
    if let Some(func) = module.funcs.iter_mut().find(|f| f.name == name) {
        for weight in func.weights.iter_mut().filter(|w| site.weights.contains(&w.name)) {
            let plain = if let Recipe::Cast(DType::F32, of) = &weight.recipe { (**of).clone() } else { weight.recipe.clone() };
            let here = site.layer.map_or_else(|| plain.clone(), |l| plain.for_layer(l));
            let found = measure::errors(&here, source, &formats)?;
            errors.iter_mut().zip(found).for_each(|(sum, e)| *sum += e);
            weight.recipe = Recipe::Cast(DType::F32, Box::new(Recipe::Cast(FORMATS[PROBE], Box::new(plain))));
        }
    }
    let measured = reference.divergence(&module, source)?.max(0.0);
    for ((choice, format), error) in site.choices.iter_mut().zip(&formats).zip(&errors) {
        let part = if errors[probe] > 0.0 { error / errors[probe] } else { 0.0 };
        // What int8 loses is in the base.
        choice.loss = if *format == DType::Q8 { 0.0 } else { measured * part };
    }
    Ok(())
}

#[cfg(test)]
mod tests;
