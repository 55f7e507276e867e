//! Evaluating a module over several steps, and comparing two: the results of `main` and everything in the caches of all calls.

use llamac_ir::eval::{Cache, EvalError, Evaluator, Tensor};
use llamac_ir::module::{Func, Module, Operand};
use llamac_ir::op::OpKind;
use llamac_ir::recipe::Source;
use std::fmt;

/// Inputs of `main`, step by step: ids, positions, sequences, wanted rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs(pub Vec<[Vec<i32>; 4]>);

impl Inputs {
    /// A prompt of two sequences and two steps of decoding.
    pub fn all(module: &Module) -> Inputs {
        let steps: [[&[i32]; 4]; 3] = [
            [&[1, 3, 2, 0, 3], &[0, 1, 2, 0, 1], &[0, 0, 0, 1, 1], &[2, 4]],
            [&[2, 1], &[3, 2], &[0, 1], &[1, 0]],
            [&[3, 3, 1], &[4, 3, 4], &[0, 1, 1], &[2]],
        ];
        Inputs::spread(module, &steps)
    }

    /// One step of two sequences, three tokens: for modules whose weights take long to read.
    pub fn short(module: &Module) -> Inputs {
        Inputs::spread(module, &[[&[1, 3, 2], &[0, 1, 0], &[0, 0, 1], &[1]]])
    }

    /// Ids all over the vocabulary.
    fn spread(module: &Module, steps: &[[&[i32]; 4]]) -> Inputs {
        let tables = module.funcs.iter().flat_map(|f| f.body.iter().filter(|i| i.op == OpKind::Embed).map(move |i| f.ty(i.operands[1])));
        let vocab = tables.filter_map(|ty| ty.shape.first()?.value()).min().unwrap_or(4).max(1);
        let id = |id: &i32| if vocab <= 4 { *id as usize % vocab } else { *id as usize * 7919 % vocab };
        let step =
            |[ids, pos, seq, want]: &[&[i32]; 4]| [ids.iter().map(|i| id(i) as i32).collect(), pos.to_vec(), seq.to_vec(), want.to_vec()];
        Inputs(steps.iter().map(step).collect())
    }
}

/// What a module gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs {
    /// Results of `main`, all steps one after the other.
    pub results: Vec<f32>,
    /// What each call left in its cache: positions, and keys and values in their order.
    caches: Vec<Left>,
}

#[derive(Debug, Clone, PartialEq)]
struct Left {
    positions: Vec<(i32, i32)>,
    keys: Vec<f32>,
    values: Vec<f32>,
    /// Size of a head if keys are rotated in halves.
    halves: Option<usize>,
}

impl Outputs {
    /// What one function gave and left in its cache, when it was called by itself.
    pub fn of_call(func: &Func, results: &[Tensor], cache: &Cache) -> Outputs {
        let results = results.iter().flat_map(|t| t.as_f32().unwrap_or_default()).copied().collect();
        Outputs { results, caches: vec![left(cache, func)] }
    }
}

/// Runs a module on inputs.
///
/// # Errors
/// The module cannot be evaluated: a source is missing, or an id, row or position is out of range.
pub fn outputs(module: &Module, source: &dyn Source, inputs: &Inputs) -> Result<Outputs, EvalError> {
    let mut evaluator = Evaluator::new(module, source);
    let mut results = Vec::new();
    for [ids, pos, seq, want] in &inputs.0 {
        let ints = |v: &[i32]| Tensor::i32(&[v.len()], v.to_vec());
        let step = evaluator.run(&[("ids", ints(ids)), ("pos", ints(pos)), ("seq", ints(seq)), ("want", ints(want))])?;
        results.extend(step.iter().flat_map(|t| t.as_f32().unwrap_or_default()));
    }
    let calls = calls(module);
    let caches = calls.iter().enumerate().map(|(i, func)| left(evaluator.cache(i).unwrap_or(&Cache::default()), func)).collect();
    Ok(Outputs { results, caches })
}

/// Functions of the calls of `main`, in their order.
fn calls(module: &Module) -> Vec<&Func> {
    let runs = module.func("main").into_iter().flat_map(|f| &f.body).flat_map(|inst| &inst.calls);
    runs.flat_map(|run| std::iter::repeat_n(module.func(&run.func), run.count).flatten()).collect()
}

fn left(cache: &Cache, func: &Func) -> Left {
    Left {
        positions: cache.iter().map(|(at, _)| at).collect(),
        keys: cache.iter().flat_map(|(_, e)| e.k.clone()).collect(),
        values: cache.iter().flat_map(|(_, e)| e.v.clone()).collect(),
        halves: halves(func),
    }
}

/// Size of a head if what a function writes into its cache is rotated in halves.
fn halves(func: &Func) -> Option<usize> {
    let write = func.body.iter().find(|i| i.op == OpKind::KvWrite)?;
    let Operand::Value(k) = write.operands[0] else { return None };
    let rope = &func.body[func.def(k)?];
    (rope.op == OpKind::Rope && rope.word("layout") == "half").then(|| write.int("head_dim"))
}

/// Keys in the order that interleaved rotation leaves them in.
fn interleaved(keys: &[f32], head: usize) -> Vec<f32> {
    let half = head / 2;
    keys.chunks(head).flat_map(|h| (0..half).flat_map(|i| [h[i], h[i + half]]).collect::<Vec<_>>()).collect()
}

/// How far numbers are from those that they should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// What differs most: `results`, `keys of call 3`.
    pub what: String,
    /// rms of the difference over rms of the reference; infinite where numbers are missing or not finite on one side only.
    pub relative: f64,
    /// Whether every bit is the same.
    pub same_bits: bool,
}

impl Difference {
    /// Whether it is within a bound; 0 asks for the same bits.
    pub fn within(&self, bound: f64) -> bool {
        self.same_bits || (bound > 0.0 && self.relative <= bound)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.same_bits { f.write_str("same bits") } else { write!(f, "{:.1e} in the {}", self.relative, self.what) }
    }
}

/// The largest difference of `y` from `x`.
pub fn difference(x: &Outputs, y: &Outputs) -> Difference {
    let mut all = vec![of("results", &x.results, &y.results)];
    if x.caches.len() != y.caches.len() {
        all.push(Difference { what: "number of calls".to_owned(), relative: f64::INFINITY, same_bits: false });
    }
    for (i, (x, y)) in x.caches.iter().zip(&y.caches).enumerate() {
        if x.positions != y.positions {
            all.push(Difference { what: format!("positions written by call {i}"), relative: f64::INFINITY, same_bits: false });
        }
        let keys = if let (Some(head), None) = (x.halves, y.halves) { interleaved(&x.keys, head) } else { x.keys.clone() };
        all.push(of(&format!("keys of call {i}"), &keys, &y.keys));
        all.push(of(&format!("values of call {i}"), &x.values, &y.values));
    }
    let worst = |a: Difference, b: Difference| {
        let key = |d: &Difference| (!d.same_bits, if d.relative.is_nan() { f64::INFINITY } else { d.relative });
        if key(&b) > key(&a) { b } else { a }
    };
    all.into_iter().reduce(worst).unwrap_or(Difference { what: "results".to_owned(), relative: 0.0, same_bits: true })
}

/// The difference of `y` from `x`.
fn of(what: &str, x: &[f32], y: &[f32]) -> Difference {
    let same_bits = x.len() == y.len() && x.iter().zip(y).all(|(a, b)| a.to_bits() == b.to_bits());
    let alike = x.len() == y.len() && x.iter().zip(y).all(|(a, b)| a.is_finite() == b.is_finite());
    let squares = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>();
    let scale = squares(&mut x.iter().filter(|x| x.is_finite()).map(|x| f64::from(*x)));
    let pairs = x.iter().zip(y).filter(|(a, b)| a.is_finite() && b.is_finite());
    let error = squares(&mut pairs.map(|(a, b)| f64::from(*a) - f64::from(*b)));
    let relative = match () {
        () if same_bits => 0.0,
        () if !alike => f64::INFINITY,
        // Below the smallest normal number f32 has few bits left, or none.
        () if error <= x.len() as f64 * f64::from(f32::MIN_POSITIVE).powi(2) => 0.0,
        () if error == 0.0 => 0.0,
        () => (error / scale).sqrt(),
    };
    Difference { what: what.to_owned(), relative, same_bits }
}
