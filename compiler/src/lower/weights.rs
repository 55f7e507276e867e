//! Weights of a program: which packed form each has in its area, and the list of everything that the packer writes.
//! Packing itself is in `pack`.

use llamac_ir::dtype::DType;
use llamac_ir::module::WeightId;
use llamac_ir::recipe::Recipe;
use llamac_runtime::format::{self, WEIGHT_FORMATS, WeightFormat};

use super::LowerError;
use super::func::FuncLower;
use super::layout::{Layout, pad};
use super::program::{Area, PlacedWeight, Program, RowOrder, WeightForm};

/// A matrix that dots read: `[n, k]`.
pub(super) fn matrix(
    f: &mut FuncLower<'_, '_>,
    weight: WeightId,
    format: WeightFormat,
    rows: RowOrder,
    cols: Layout,
) -> Result<usize, LowerError> {
    let (n, k) = sizes(f, weight)?;
    place(f, weight, WeightForm::Matrix { format, rows, cols, n, k, experts: 1 }, true, 1)
}

/// Matrices of experts `[experts, n, k]`, of which a token reads `used`.
pub(super) fn experts(
    f: &mut FuncLower<'_, '_>,
    weight: WeightId,
    format: WeightFormat,
    rows: RowOrder,
    cols: Layout,
    used: usize,
) -> Result<usize, LowerError> {
    let w = &f.func.weights[weight.0 as usize];
    match w.ty.sizes().as_deref() {
        Some(&[experts, n, k]) => place(f, weight, WeightForm::Matrix { format, rows, cols, n, k, experts }, true, used),
        _ => Err(LowerError::at(&f.func.name, format!("@{} is {}, but must be a matrix for each expert", w.name, w.ty))),
    }
}

/// A matrix that rows are gathered from.
pub(super) fn table(f: &mut FuncLower<'_, '_>, weight: WeightId) -> Result<usize, LowerError> {
    let dtype = f.func.weights[weight.0 as usize].ty.dtype;
    let found = WEIGHT_FORMATS.iter().find(|w| w.name == dtype.name()).copied();
    let format = match found {
        Some(format) => format,
        None if dtype == DType::F16 => format::F32,
        None => {
            let name = &f.func.weights[weight.0 as usize].name;
            return Err(LowerError::at(&f.func.name, format!("@{name} is {dtype}: no packed format has rows of that to gather")));
        }
    };
    let (n, k) = sizes(f, weight)?;
    let rows = RowOrder::Plain(Layout::Plain);
    place(f, weight, WeightForm::Matrix { format, rows, cols: Layout::Plain, n, k, experts: 1 }, false, 1)
}

/// A vector, as f32.
pub(super) fn vector(f: &mut FuncLower<'_, '_>, weight: WeightId, rows: RowOrder) -> Result<usize, LowerError> {
    let w = &f.func.weights[weight.0 as usize];
    match w.ty.sizes().as_deref() {
        Some([n]) => place(f, weight, WeightForm::Vector { rows, n: *n }, true, 1),
        _ => Err(LowerError::at(&f.func.name, format!("@{} is {}, but must be a vector", w.name, w.ty))),
    }
}

fn sizes(f: &FuncLower<'_, '_>, weight: WeightId) -> Result<(usize, usize), LowerError> {
    let w = &f.func.weights[weight.0 as usize];
    match w.ty.sizes().as_deref() {
        Some([n, k]) => Ok((*n, *k)),
        _ => Err(LowerError::at(&f.func.name, format!("@{} is {}, but must be a matrix", w.name, w.ty))),
    }
}

/// The weight's number in the area; the same recipe in the same form is stored once (tied embeddings).
fn place(f: &mut FuncLower<'_, '_>, weight: WeightId, form: WeightForm, streamed: bool, used: usize) -> Result<usize, LowerError> {
    let weight = &f.func.weights[weight.0 as usize];
    let area = &mut f.b.program.areas[f.area];
    if let Some(i) = area.weights.iter().position(|w| w.form == form && w.weight.recipe == weight.recipe && w.weight.ty == weight.ty) {
        area.weights[i].streamed |= streamed;
        return Ok(i);
    }
    area.weights.push(PlacedWeight { weight: weight.clone(), form, offset: 0, bytes: form.bytes(), streamed, used });
    Ok(area.weights.len() - 1)
}

impl WeightForm {
    /// Bytes in the artifact.
    pub fn bytes(&self) -> u64 {
        match self {
            WeightForm::Matrix { format, rows, cols, n, k, experts } => {
                *experts as u64 * format.matrix_bytes(rows.padded(*n), cols.padded(*k)) as u64
            }
            WeightForm::Vector { rows, n } => (pad(rows.padded(*n)) * 4) as u64,
        }
    }
}

/// Something that the packer writes into the weight section.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightItem {
    /// `layer.12.wq` or `embed`.
    pub name: String,
    /// How it is made, with the number of the layer filled in.
    pub recipe: Recipe,
    /// Form in the artifact.
    pub kind: WeightKind,
    /// Byte offset in the weight section.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Form of a weight in the artifact.
pub type WeightKind = WeightForm;

impl Program {
    /// Everything that the packer writes, in order of offsets; made one by one, so that depth costs nothing.
    pub fn weight_items(&self) -> impl Iterator<Item = WeightItem> + '_ {
        let main = self.areas.iter().take(1).flat_map(|area| items(area, 0, None));
        let calls = self.schedule.iter().zip(&self.layers).flat_map(|(entry, &layer)| {
            let area = &self.areas[self.functions[entry.function as usize].area];
            items(area, entry.weights, Some(layer))
        });
        main.chain(calls)
    }
}

fn items(area: &Area, base: u64, layer: Option<usize>) -> impl Iterator<Item = WeightItem> + '_ {
    area.weights.iter().map(move |w| WeightItem {
        name: layer.map_or_else(|| w.weight.name.clone(), |n| format!("{}.{n}.{}", area.name, w.weight.name)),
        recipe: layer.map_or_else(|| w.weight.recipe.clone(), |n| w.weight.recipe.for_layer(n)),
        kind: w.form,
        offset: base + w.offset,
        bytes: w.bytes,
    })
}
