//! `--quant auto`: a weight format for each group of matrices with one input, in each layer, under a budget of bytes or of divergence.
//!
//! Method: the model is calibrated on the first windows of a text (`calibrate`), the rest of the text is held out. For each group the divergence
//! of the model's distributions on the held-out windows is measured with only this group rounded to `PROBE`; other formats are taken to lose
//! as much more or less as their error in the group's products is larger or smaller (both are quadratic in small errors). Losses of groups add
//! up, on top of what int8 everywhere loses. The choice is solved by dynamic programming (`solve`), and the chosen model is measured.

mod measure;
mod report;
mod solve;

use crate::calibrate::{self, Calibrated, Text};
use crate::diag::{Diag, Result};
use crate::driver::{self, CompileOptions};
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
    /// Bytes of all matrices.
    Bytes(u64),
    /// Mean KL divergence from the unrounded model, nats for each token.
    Divergence(f64),
}

/// Formats that matrices of layers may get; embedding and head get one of the last four.
const FORMATS: [DType; 5] = [DType::Q4G128, DType::Q4G64, DType::Q4G32, DType::Q6G32, DType::Q8];

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

/// What was chosen, predicted and measured.
#[derive(Debug)]
pub struct Auto {
    /// The formats.
    pub chosen: Chosen,
    sites: Vec<Site>,
    solution: Solution,
    /// What int8 everywhere loses.
    base: f64,
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
    let planned =
        |quant: &str, chosen: Option<Chosen>| driver::plan(model, &CompileOptions { quant: Some(quant.into()), chosen, ..options.clone() });
    let plan = |quant: &str, chosen: Option<Chosen>| planned(quant, chosen).map(|p| p.quantized);
    let exact = planned("f32", None)?;
    let (read_gbs, exact) = (exact.target.machine().read_gbs, exact.quantized);
    let windows = calibrate::held_out(model, text)?;
    let reference = Reference::new(&exact, calibrated, &windows, model.config.vocab)?;
    let base = reference.divergence(&plan("int8", None)?, calibrated)?;
    let (mut sites, fixed) = sites(&exact);
    for site in &mut sites {
        measure(site, &exact, calibrated, &reference)?;
    }

    // Under a budget of bits padding is not counted.
    let counted: Vec<Vec<Choice>> = sites.iter().map(|s| s.counted(budget)).collect();
    let elements: u64 = sites.iter().map(|s| s.elements).sum();
    let mut wanted = budget;
    let mut rounds = 0;
    loop {
        let solution = solved(&sites, &counted, limit(wanted, fixed, elements, base), budget)?;
        let chosen = chosen(&sites, &solution);
        let predicted = base + solution.loss;
        let measured = reference.divergence(&plan("auto", Some(chosen.clone()))?, calibrated)?;
        rounds += 1;
        match budget {
            // What was predicted too low is asked for more strictly.
            Budget::Divergence(most) if measured > most && rounds < 4 => {
                let by = if let Budget::Divergence(now) = wanted { now } else { most };
                wanted = Budget::Divergence(by * (most / measured) * 0.98);
            }
            _ => return Ok(Auto { chosen, sites, solution, base, fixed, read_gbs, predicted, measured }),
        }
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
mod tests {
    use super::*;
    use crate::frontend;
    use std::path::PathBuf;

    fn fixture(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name).join("model")
    }

    fn site(layer: usize, loss: f64) -> Site {
        let choices = FORMATS.iter().zip([100, 110, 120, 165, 200]).zip([1.0, 0.9, 0.8, 0.1, 0.0]);
        let choices = choices.map(|((_, bytes), part)| Choice { bytes, loss: loss * part }).collect();
        let bits = vec![800.0, 880.0, 960.0, 1320.0, 1600.0];
        Site { func: "layer".into(), layer: Some(layer), weights: vec!["w".into()], elements: 200, choices, bits }
    }

    #[test]
    fn layers_have_a_bounded_number_of_different_choices() {
        // Two sites in each of 40 layers, with losses that ask for every combination of formats.
        let sites: Vec<Site> = (0..40).flat_map(|l| [site(l, 1.0 + (l * 7 % 40) as f64), site(l, 1.0 + (l * 11 % 40) as f64)]).collect();
        let items: Vec<Vec<Choice>> = sites.iter().map(|s| s.choices.clone()).collect();
        let limit = Limit::Bytes(80 * 125);
        let found = solved(&sites, &items, limit, Budget::Bytes(80 * 125)).unwrap();
        let mut patterns: Vec<&[usize]> = found.chosen.chunks(2).collect();
        patterns.sort_unstable();
        patterns.dedup();
        let free = solve(&items, limit).unwrap();
        assert!(patterns.len() <= VARIANTS && found.bytes <= 80 * 125, "{} patterns, {} bytes", patterns.len(), found.bytes);
        assert!(found.loss >= free.loss && found.loss < 1.2 * free.bound, "{} of {}, bound {}", found.loss, free.loss, free.bound);
    }

    #[test]
    fn a_budget_is_kept_and_the_artifact_computes_what_was_chosen() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("auto.llx");
        let budget = Some(Budget::BitsPerWeight(6.0));
        let options = CompileOptions { quant: Some("auto".into()), budget, ..CompileOptions::default() };
        let summary = driver::compile(&fixture("llama3-onnx"), &out, &options, &driver::Silent).unwrap();
        let auto = summary.auto.unwrap();
        assert!(auto.bits_per_weight() <= 6.0 && auto.bits_per_weight() > 5.0, "{}", auto.bits_per_weight());
        assert!(auto.measured < 1.5 * auto.predicted && auto.predicted < 1.5 * auto.measured, "{} {}", auto.predicted, auto.measured);
        assert!(auto.to_string().contains("@main"), "{auto}");
        assert!(summary.meta.model.quant == "auto" && summary.file_bytes > auto.bytes());
    }

    #[test]
    fn a_budget_that_cannot_be_kept_and_no_budget_are_explained() {
        let said = |budget: Option<Budget>| {
            let options = CompileOptions { quant: Some("auto".into()), budget, ..CompileOptions::default() };
            driver::choose(&fixture("llama3-onnx"), &options).unwrap_err().to_string()
        };
        let cases = [(said(Some(Budget::BitsPerWeight(2.0))), "2bpw"), (said(None), "--size 4.5bpw")];
        cases.iter().for_each(|(said, word)| assert!(said.contains(word) && said.contains("help:"), "`{word}` not in: {said}"));
        let model = frontend::load_config(&fixture("llama3-onnx")).unwrap();
        assert!(driver::plan(&model, &CompileOptions { quant: Some("auto".into()), ..CompileOptions::default() }).is_err());
    }
}
