//! Weights without a checkpoint: numbers that depend on name, row and column alone, in the type that the recipe names.

use llamac_ir::dtype::DType;
use llamac_ir::eval::quant;
use llamac_ir::module::Module;
use llamac_ir::recipe::{Recipe, Source};
use std::collections::BTreeMap;

/// Random tensors for all source names of a module.
pub(crate) struct Random {
    types: BTreeMap<String, DType>,
}

impl Random {
    pub(crate) fn new(module: &Module) -> Random {
        let mut types = BTreeMap::new();
        module.funcs.iter().flat_map(|f| &f.weights).for_each(|w| visit(&w.recipe, &mut types));
        Random { types }
    }
}

fn visit(recipe: &Recipe, types: &mut BTreeMap<String, DType>) {
    match recipe {
        Recipe::Source { name, ty } => {
            types.insert(name.clone(), ty.dtype);
        }
        Recipe::Literal { .. } => {}
        Recipe::Concat(parts) | Recipe::Stack(parts) => parts.iter().for_each(|p| visit(p, types)),
        Recipe::Cast(_, of) | Recipe::Transpose(of) | Recipe::PermuteRope(_, of) => visit(of, types),
        Recipe::ScaleColumns(of, by) | Recipe::ScaleRows(of, by) => {
            visit(of, types);
            visit(by, types);
        }
    }
}

impl Source for Random {
    fn row(&self, name: &str, row: usize, out: &mut [f32]) -> Result<(), String> {
        let columns = out.len();
        out.iter_mut().enumerate().for_each(|(i, x)| *x = uniform(name, 0, row * columns + i));
        // The number of a layer is in the place of `{layer}`.
        let template: String =
            name.split('.').map(|p| if p.parse::<usize>().is_ok() { "{layer}" } else { p }).collect::<Vec<_>>().join(".");
        match self.types.get(&template) {
            Some(DType::F32) => Ok(()),
            Some(dtype) => quant::round(*dtype, out),
            None => Err(format!("there is no \"{name}\"")),
        }
    }
}

/// A number in -0.5 .. 0.5 from a name and two indices.
pub(crate) fn uniform(name: &str, row: usize, column: usize) -> f32 {
    let seed = name.bytes().chain(row.to_le_bytes()).chain(column.to_le_bytes());
    let mut x = seed.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    x ^= x >> 31;
    x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 29;
    (x >> 40) as f32 / (1u64 << 24) as f32 - 0.5
}
