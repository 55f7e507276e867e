//! Raising: from the graph of an exporter to a decoder as a front end would have written it. The rules are passes like all others (`raise-*`);
//! what follows from them for the whole graph is here: tokens instead of batch and sequence (`decoder`), the meaning of masks (`mask`), layers
//! (`outline`).

mod decoder;
pub(crate) mod find;
mod mask;
mod outline;
mod ports;
mod table;
mod view;

pub use decoder::NoDecoder;
pub use mask::LONGEST_ALONE;
pub use ports::{Port, Ports};

use crate::pipeline::{Options, PipelineError, run_named, run_rules};
use crate::report::Saturation;
use llamac_ir::module::Module;
use llamac_ir::op::Stage;
use llamac_ir::recipe::Source;
use std::collections::BTreeMap;
use std::fmt;

/// A raised graph.
#[derive(Debug)]
pub struct Raised {
    /// The decoder, at [`Stage::Imported`].
    pub module: Module,
    /// Names of tensors in layer functions, the number of the layer filled in, and the tensors of the graph that they mean.
    pub aliases: BTreeMap<String, String>,
    /// Layers.
    pub layers: usize,
    /// What the graph's inputs and outputs are.
    pub ports: Ports,
    /// How the saturation by the rules ended.
    pub saturation: Saturation,
}

/// Why a graph was not raised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RaiseError {
    /// A pass broke the graph: a bug.
    Pass(PipelineError),
    /// The graph is no decoder, or one that is not recognised.
    NoDecoder(NoDecoder),
    /// Its layers cannot be told apart.
    NoLayers(String),
}

impl fmt::Display for RaiseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RaiseError::Pass(e) => e.fmt(f),
            RaiseError::NoDecoder(e) => write!(f, "{}: {}", e.at, e.why),
            RaiseError::NoLayers(e) => f.write_str(e),
        }
    }
}

impl std::error::Error for RaiseError {}

/// The passes whose rules raise a graph, in one saturation.
pub const RULES: &[&str] = &["raise-integer", "raise-norm", "raise-rotary", "raise-attention", "raise-swiglu"];

/// Raises a graph at [`Stage::Graph`]. `dims` are the symbols of the result, `s` and `r`; `source` has the graph's tensors, of which masks alone
/// are read; `observer` sees the graph after the rules and the module after `raise-decoder`.
///
/// # Errors
/// The graph is no decoder that is recognised, with the place where that shows.
pub fn raise(
    graph: &Module,
    source: &dyn Source,
    dims: Vec<(String, usize, usize)>,
    options: &Options,
    observer: &mut dyn FnMut(&str, &Module),
) -> Result<Raised, RaiseError> {
    let mut module = graph.clone();
    run_named(&mut module, &["widen-floats"], options, &mut |_, _| {}).map_err(RaiseError::Pass)?;
    // From here on: every float is f32.
    let report = run_rules(&mut module, RULES, "raise", options).map_err(RaiseError::Pass)?;
    let saturation = report.funcs.into_iter().find(|f| f.name == "main").and_then(|f| f.saturation).unwrap_or_default();
    observer("raise", &module);
    // From here on: norms, rotations, attention and gated units are single ops.
    let no_main = || RaiseError::NoLayers("the graph has no function `main`".to_owned());
    let main = module.func("main").ok_or_else(no_main)?;
    let (flat, ports) = decoder::decoder(main, source).map_err(RaiseError::NoDecoder)?;
    let outlined = outline::outline(&flat).map_err(RaiseError::NoLayers)?;
    let module = Module { name: graph.name.clone(), stage: Stage::Imported, dims, funcs: outlined.funcs };
    observer("raise-decoder", &module);
    Ok(Raised { module, aliases: outlined.aliases, layers: outlined.layers, ports, saturation })
}

#[cfg(test)]
#[path = "raise_tests.rs"]
mod tests;
