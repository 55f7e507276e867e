//! Cranelift code for a step program: one position-independent blob with one entry, `step`. `isa` sets up Cranelift, `link` places
//! functions and patches calls, `frame` is what all emitted code uses; then one file per kind of region. Dots, attention and gathers
//! call kernels of the runtime through the context's table (`kernels`).

mod attention;
mod barrier;
mod dot;
mod epilogue;
mod experts;
mod frame;
mod isa;
mod kernels;
mod kv;
mod link;
mod map;
mod math;
mod norm;
mod quantize;
mod split;
mod step;

use std::fmt;

use cranelift_codegen::isa::OwnedTargetIsa;

use crate::lower::program::{Body, Program, Region};
use crate::target::Target;
use frame::Emit;
use kernels::Kernels;
use link::{Linker, Symbol};

pub use kernels::kernel_names;
pub use link::Named;

/// Compiled code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    /// Machine code and its constants; runs at any address.
    pub blob: Vec<u8>,
    /// Offset of the step function (`runtime::abi::StepFn`) in the blob.
    pub entry: u64,
    /// Kernels that the code calls, in the order of the context's table.
    pub kernels: Vec<String>,
    /// What lies where, for people and profilers.
    pub symbols: Vec<Named>,
}

/// Why no code was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodegenError {
    /// The target has no kernel for something in the program.
    NoKernel {
        /// What is needed: `dot bf16`.
        what: String,
        /// For which target.
        target: String,
    },
    /// Cranelift refused; a bug of ours.
    Cranelift {
        /// Which function.
        function: String,
        /// What it said.
        message: String,
    },
    /// Something in the code would have to be resolved at load: a bug of ours.
    Unresolved {
        /// Which function.
        function: String,
        /// What was left.
        what: String,
    },
}

impl fmt::Display for CodegenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodegenError::NoKernel { what, target } => write!(f, "there is no kernel for {what} on target {target}"),
            CodegenError::Cranelift { function, message } => write!(f, "bug in llamac: Cranelift refused {function}: {message}"),
            CodegenError::Unresolved { function, what } => write!(f, "bug in llamac: {function} is not self-contained: {what}"),
        }
    }
}

impl std::error::Error for CodegenError {}

/// Makes code for a program. The same program and target give the same bytes.
pub fn compile(program: &Program, target: &Target) -> Result<Code, CodegenError> {
    let isa = isa::build(target)?;
    let mut kernels = Kernels::new(program, target)?;
    let mut linker = Linker::new();
    linker.add("step", Symbol::Step, &step::step(program, &isa), &isa)?;
    linker.add("barrier", Symbol::Barrier, &barrier::function(&mut kernels, &isa)?, &isa)?;
    for (number, function) in program.functions.iter().enumerate() {
        linker.add(&function.name, Symbol::Function(number), &step::function(function, number, &isa), &isa)?;
        for (i, region) in function.regions.iter().enumerate() {
            let name = format!("{}.{}", function.name, region.name);
            let shared = may_share(&function.regions, i);
            let code = emit_region(program, number, region, shared, &mut kernels, &isa)?;
            linker.add(&name, Symbol::Region(number, i), &code, &isa)?;
        }
    }
    let (blob, symbols) = linker.finish(target.arch)?;
    Ok(Code { blob, entry: 0, kernels: kernels.into_names(), symbols })
}

/// Whether threads may take work from each other in a region: each thread has one count of what is taken between two barriers, and none
/// before the function's first.
fn may_share(regions: &[Region], i: usize) -> bool {
    let since = regions[..=i].iter().rposition(|r| r.barrier);
    since.is_some_and(|first| !regions[first..i].iter().any(|r| matches!(r.body, Body::Dot { .. })))
}

/// One region as a function of (context, thread, weights of the call, byte offset of the call's cache in a page).
fn emit_region<'p>(
    program: &'p Program,
    function: usize,
    region: &'p Region,
    shared: bool,
    kernels: &mut Kernels<'p>,
    isa: &OwnedTargetIsa,
) -> Result<cranelift_codegen::ir::Function, CodegenError> {
    frame::build(program, function, (region.rows, region.times), kernels, isa, |e: &mut Emit<'_, '_>| match &region.body {
        Body::Gather { table, out } => map::gather(e, *table, *out),
        Body::RopeAngles { inv_freq, out } => map::rope_angles(e, *inv_freq, *out),
        Body::RowGather { x, out } => {
            map::row_gather(e, *x, *out);
            Ok(())
        }
        Body::Norm { x, gamma, eps, groups, width, out } => {
            norm::norm(e, &norm::Norm { x: *x, gamma: *gamma, eps: *eps, groups: *groups, width: *width, out: *out });
            Ok(())
        }
        Body::Quantize { x, out } => quantize::quantize(e, *x, *out),
        Body::Dot { weight, x, segments } => dot::dot(e, *weight, *x, segments, shared),
        Body::ExpertDot { weight, list, x, segments } => dot::expert_dot(e, *weight, *list, *x, segments),
        Body::Route { scores, experts, top_k, ids, gates } => experts::route(e, *scores, *experts, *top_k, *ids, *gates),
        Body::Group { ids, experts, top_k, list } => experts::group(e, *ids, *experts, *top_k, *list),
        Body::ExpertRows { x, gates, experts, top_k, list, out } => {
            experts::rows(e, &experts::Places { list: *list, experts: *experts, top_k: *top_k }, *x, *gates, *out)
        }
        Body::Combine { rows, experts, top_k, list, residual, out } => {
            experts::combine(e, &experts::Places { list: *list, experts: *experts, top_k: *top_k }, *rows, *residual, *out)
        }
        Body::AttnTemperature { floor_scale, attn_scale, out } => map::attn_temperature(e, *floor_scale, *attn_scale, *out),
        Body::Map { segments } => {
            map::map(e, segments);
            Ok(())
        }
        Body::RopeHalf { x, angles, heads, head_dim, out } => {
            map::rope_half(e, *x, *angles, *heads, *head_dim, *out);
            Ok(())
        }
        Body::KvWrite { k, v, cache } => kv::write(e, *k, *v, *cache),
        Body::Attention { q, kv, group, scale, out, .. } => {
            attention::attention(e, &attention::Attention { q: *q, kv: *kv, group: *group, scale: *scale, out: *out })
        }
    })
}

#[cfg(test)]
mod tests;
