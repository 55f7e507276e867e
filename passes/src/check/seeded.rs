//! Weights without a checkpoint: numbers that depend on a seed, the name of the tensor and the place in it alone, in the type that the recipe names.
//! A tensor read in another shape has the same elements.
//! Matrices keep the size of what they are multiplied with, vectors are around 1, so that a module of any width stays in range.

use llamac_ir::dtype::DType;
use llamac_ir::eval::quant;
use llamac_ir::module::Module;
use llamac_ir::recipe::{LAYER, Recipe, Source};
use llamac_ir::types::Type;
use std::collections::BTreeMap;

/// Random tensors for all source names of a module.
#[derive(Debug, Clone)]
pub struct Seeded {
    seed: u64,
    /// Each number is moved by about this part of itself: see [`Seeded::shaken`].
    shake: f32,
    types: BTreeMap<String, Type>,
}

impl Seeded {
    /// Tensors for the sources of a module.
    pub fn new(module: &Module, seed: u64) -> Seeded {
        let mut types = BTreeMap::new();
        module.funcs.iter().flat_map(|f| &f.weights).for_each(|w| visit(&w.recipe, &mut types));
        Seeded { seed, shake: 0.0, types }
    }

    /// The same tensors, each number moved by up to the part `by` of itself: how much a module's results move then says how much of a difference
    /// rounding alone may make.
    pub fn shaken(&self, by: f32) -> Seeded {
        Seeded { shake: by, ..self.clone() }
    }

    /// The type behind a name in which `{layer}` is replaced.
    fn ty(&self, name: &str) -> Option<&Type> {
        self.types.get(name).or_else(|| {
            let of_layer = |(template, ty): (&String, &'_ Type)| {
                let (before, after) = template.split_once(LAYER)?;
                let number = name.strip_prefix(before)?.strip_suffix(after)?;
                (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then(|| ty.clone())
            };
            self.types.iter().find(|(template, ty)| of_layer((template, ty)).is_some()).map(|(_, ty)| ty)
        })
    }
}

fn visit(recipe: &Recipe, types: &mut BTreeMap<String, Type>) {
    match recipe {
        Recipe::Source { name, ty } => {
            types.insert(name.clone(), ty.clone());
        }
        Recipe::Literal { .. } => {}
        Recipe::Concat(parts) | Recipe::Stack(parts) => parts.iter().for_each(|p| visit(p, types)),
        Recipe::Cast(_, of) | Recipe::Transpose(of) | Recipe::PermuteRope(_, of) | Recipe::Rows(_, _, of) => visit(of, types),
        Recipe::ScaleColumns(of, by) | Recipe::ScaleRows(of, by) => {
            visit(of, types);
            visit(by, types);
        }
    }
}

impl Source for Seeded {
    fn row(&self, name: &str, row: usize, out: &mut [f32]) -> Result<(), String> {
        let ty = self.ty(name).ok_or_else(|| format!("there is no \"{name}\""))?;
        let (seed, first) = (hash(name, self.seed), row * out.len());
        let columns = ty.shape.last().and_then(|d| d.value()).unwrap_or(1);
        let scale = (12.0 / columns.max(1) as f32).sqrt();
        let vector = ty.shape.len() < 2;
        for (i, x) in out.iter_mut().enumerate() {
            let u = uniform(seed, first + i);
            *x = if vector { 1.0 + u } else { scale * u };
        }
        if matches!(ty.dtype, DType::I8 | DType::U8) {
            out.iter_mut().enumerate().for_each(|(i, x)| *x = (200.0 * uniform(seed, first + i)).round());
            if ty.dtype == DType::U8 {
                out.iter_mut().for_each(|x| *x = x.abs());
            }
        } else if ty.dtype != DType::F32 {
            quant::round(ty.dtype, out)?;
        }
        if self.shake > 0.0 {
            out.iter_mut().enumerate().for_each(|(i, x)| *x *= 1.0 + 2.0 * self.shake * uniform(seed ^ 0x5bd1, first + i));
        }
        Ok(())
    }
}

/// FNV-1a of a name, started from a seed.
fn hash(name: &str, seed: u64) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    name.bytes().fold(start, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// A number in -0.5 .. 0.5 from a seed and an index (the finaliser of SplitMix64).
pub fn uniform(seed: u64, i: usize) -> f32 {
    let mut x = seed.wrapping_add((i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 40) as f32 / (1u64 << 24) as f32 - 0.5
}
