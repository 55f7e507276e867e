//! Lowering: IR module to step program. `program` is the result as data, `region` what its regions do, `layout` the padding of features,
//! `module` goes through a whole module, `func` walks one function (`values` is what it asks and makes), `dot` forms dot regions with what follows them, `experts` those of
//! mixtures of experts, `coalesce` reuses buffers and places barriers, `plan` lays out arena, weights and cache,
//! `weights` lists what the packer must write, `print` is the text form. No code is made here (see `codegen`).

mod coalesce;
mod dot;
mod experts;
mod func;
pub mod layout;
mod module;
mod plan;
mod print;
pub mod program;
mod region;
mod values;
mod weights;

pub(crate) use module::kv_format;
pub use program::{Limits, Program};
pub use weights::{WeightItem, WeightKind};

use std::fmt;

use llamac_ir::module::{Func, Module, ValueId};

use crate::target::Target;

/// Why a module cannot be lowered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LowerError {
    /// Function of the IR.
    pub func: String,
    /// What stands in the way, with the name of the value or weight.
    pub what: String,
}

impl LowerError {
    fn new(func: &Func, value: ValueId, what: impl fmt::Display) -> LowerError {
        LowerError { func: func.name.clone(), what: format!("%{} {what}", func.values[value.0 as usize].name) }
    }
    fn at(func: &str, what: impl fmt::Display) -> LowerError {
        LowerError { func: func.to_owned(), what: what.to_string() }
    }
}

impl fmt::Display for LowerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot lower @{}: {}", self.func, self.what)
    }
}

impl std::error::Error for LowerError {}

/// Lowers a verified module, fused or not. Weights are not read, so a module made from a config alone will do.
///
/// The target does not shape the program; it is asked only whether it has kernels for every weight format of it.
pub fn lower(module: &Module, target: &Target, limits: &Limits) -> Result<Program, LowerError> {
    let mut program = module::lower_module(module, limits)?;
    plan::place(&mut program);
    coalesce::place_barriers(&mut program);
    crate::codegen::kernel_names(&program, target).map_err(|e| LowerError::at("main", e))?;
    Ok(program)
}

#[cfg(test)]
mod tests;
