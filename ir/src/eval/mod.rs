//! The reference evaluator: the meaning of a module, slow and obvious. Values are f32, sums f64, rounded where attributes say so.
//! The meaning of single ops is in `ops`.

mod attention;
mod cache;
mod experts;
mod func;
mod linear;
mod ops;
mod pointwise;
pub mod quant;
mod tensor;
mod tensor_heavy;
mod tensor_int;
mod tensor_move;
mod tensor_ops;

pub use cache::{Cache, Entry};
pub use func::{eval_func, eval_tensor_op};
pub use tensor::Tensor;

use crate::module::{Func, Inst, Module};
use crate::recipe::Source;
use crate::verify;
use std::fmt;

/// Why something could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvalError {
    /// Name of the function.
    pub func: String,
    /// The instruction, as text; empty if it is about the whole function.
    pub at: String,
    /// What was found and expected.
    pub message: String,
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at.as_str() {
            "" => write!(f, "@{}: {}", self.func, self.message),
            at => write!(f, "@{}, `{at}`: {}", self.func, self.message),
        }
    }
}

impl std::error::Error for EvalError {}

/// Is shown each product before it is computed: the function, the number of the layer, the instruction, and its input.
pub type Observer<'a> = &'a mut dyn FnMut(&Func, Option<usize>, &Inst, &Tensor);

/// Runs `main` of a module step by step.
pub struct Evaluator<'a> {
    module: &'a Module,
    source: &'a dyn Source,
    verified: bool,
    /// The cache of `main` itself.
    own: Cache,
    /// Caches of the layer calls, in the order of the calls.
    calls: Vec<Cache>,
}

impl<'a> Evaluator<'a> {
    /// An evaluator with empty caches.
    pub fn new(module: &'a Module, source: &'a dyn Source) -> Evaluator<'a> {
        Evaluator { module, source, verified: false, own: Cache::default(), calls: vec![] }
    }

    /// Runs `main` on inputs given by parameter name, and keeps what it writes into the caches for the next run.
    ///
    /// # Errors
    /// The module does not verify, inputs do not fit the parameters, a weight cannot be read, or ids, rows or positions are out of range.
    pub fn run(&mut self, inputs: &[(&str, Tensor)]) -> Result<Vec<Tensor>, EvalError> {
        self.run_observed(inputs, &mut |_, _, _, _| {})
    }

    /// As [`Evaluator::run`], with an observer.
    ///
    /// # Errors
    /// As [`Evaluator::run`].
    pub fn run_observed(&mut self, inputs: &[(&str, Tensor)], observer: Observer<'_>) -> Result<Vec<Tensor>, EvalError> {
        let fail = |message: String| EvalError { func: "main".to_owned(), at: String::new(), message };
        if !self.verified {
            verify::verify(self.module, self.module.stage).map_err(|errors| fail(verify::listed(&errors)))?;
            self.verified = true;
        }
        let main = self.module.func("main").ok_or_else(|| fail("the module has no such function".to_owned()))?;
        if let Some((name, _)) = inputs.iter().find(|(n, _)| main.params.iter().all(|p| main.values[p.0 as usize].name != *n)) {
            return Err(fail(format!("found an input `{name}`, expected one for each parameter")));
        }
        let mut args = Vec::new();
        for param in &main.params {
            let name = &main.values[param.0 as usize].name;
            let input = inputs.iter().find(|(n, _)| n == name);
            args.push(input.map(|(_, t)| t.clone()).ok_or_else(|| fail(format!("the input `{name}` is missing")))?);
        }
        let (module, source, calls) = (self.module, self.source, &mut self.calls);
        let mut next = 0;
        let mut call = |inst: &Inst, args, observer: Observer<'_>| layers(module, source, calls, &mut next, inst, args, observer);
        func::eval(main, source, None, args, &mut self.own, Some(&mut call), observer)
    }

    /// Forgets everything in the caches.
    pub fn reset(&mut self) {
        self.own = Cache::default();
        self.calls.clear();
    }

    /// Gives the layer call with that number a cache, as if earlier runs had written it.
    pub fn set_cache(&mut self, call: usize, cache: Cache) {
        while self.calls.len() <= call {
            self.calls.push(Cache::default());
        }
        self.calls[call] = cache;
    }

    /// The cache of the layer call with that number, counted over all `layers` of `main`.
    pub fn cache(&self, call: usize) -> Option<&Cache> {
        self.calls.get(call)
    }
}

/// Calls layer functions one after the other; `next` is the number of the next call.
fn layers(
    module: &Module,
    source: &dyn Source,
    caches: &mut Vec<Cache>,
    next: &mut usize,
    inst: &Inst,
    mut args: Vec<Tensor>,
    observer: Observer<'_>,
) -> Result<Tensor, EvalError> {
    for run in &inst.calls {
        let fail = |message: &str| EvalError { func: run.func.clone(), at: String::new(), message: message.to_owned() };
        let func = module.func(&run.func).ok_or_else(|| fail("the module has no such function"))?;
        for layer in run.first..run.first + run.count {
            if caches.len() <= *next {
                caches.push(Cache::default());
            }
            let results = func::eval(func, source, Some(layer), args.clone(), &mut caches[*next], None, observer)?;
            args[0] = results.into_iter().next().ok_or_else(|| fail("a layer function has no result"))?;
            *next += 1;
        }
    }
    Ok(args.swap_remove(0))
}

#[cfg(test)]
#[path = "eval_tests.rs"]
mod tests;

#[cfg(test)]
mod tensor_tests;
