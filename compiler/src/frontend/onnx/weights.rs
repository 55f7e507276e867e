//! Tensors of an ONNX model: where each stands in which file, mapped and never read as a whole. As a [`Source`] their elements are a flat
//! sequence, so that a recipe may see a tensor in any shape of the same size.

use super::bad;
use super::blocks::Blocks;
use super::wire::INSIDE;
use crate::diag::{Diag, Result};
use half::{bf16, f16};
use llamac_ir::dtype::DType;
use llamac_ir::eval::quant::Codes;
use llamac_ir::eval::quant::minifloat;
use llamac_ir::recipe::{Line, Source};
use llamac_runtime::artifact::SectionKind;
use llamac_runtime::artifact::layout::MAGIC;
use llamac_runtime::artifact::reader::find_section;
use memmap2::Mmap;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use tract_onnx::pb::{TensorProto, tensor_proto};

/// The tensors of a model by name.
#[derive(Debug)]
pub struct OnnxWeights {
    folder: PathBuf,
    /// Mapped files; the first is the model itself.
    files: Vec<(PathBuf, Option<Mmap>)>,
    tensors: BTreeMap<String, Stored>,
    /// Names that layers have, and the tensors that they mean.
    aliases: BTreeMap<String, String>,
    /// Names of copies, and the tensors of the file that have the bytes.
    roots: BTreeMap<String, String>,
    /// Where the model is in its file.
    model: Range<usize>,
}

/// One tensor.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    /// Two elements in a byte: codes of 4 bits, which are read through [`Blocks`] only.
    pub(super) packed: bool,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Mapped(usize, Range<usize>),
    Own(Vec<u8>),
    /// Floats made of other tensors.
    Made(Blocks),
}

impl OnnxWeights {
    /// The model's own file, mapped.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn open(model: &Path) -> Result<OnnxWeights> {
        let folder = model.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
        let mut weights = OnnxWeights {
            folder,
            files: Vec::new(),
            tensors: BTreeMap::new(),
            aliases: BTreeMap::new(),
            roots: BTreeMap::new(),
            model: 0..0,
        };
        weights.map(model.to_owned())?;
        weights.model = 0..weights.files[0].1.as_ref().map_or(0, |m| m.len());
        Ok(weights)
    }

    /// Bytes of the model's own file.
    pub(super) fn model_bytes(&self) -> &[u8] {
        self.files.first().and_then(|(_, map)| map.as_deref()?.get(self.model.clone())).unwrap_or(&[])
    }

    /// How many files beside the model's own are mapped.
    pub(super) fn other_files(&self) -> usize {
        self.files.len() - 1
    }

    /// Takes the graph in an artifact for the model.
    ///
    /// # Errors
    /// The artifact is damaged or has none.
    pub(super) fn look_inside_an_artifact(&mut self) -> Result<()> {
        if !self.model_bytes().starts_with(&MAGIC) {
            return Ok(());
        }
        let place = self.files[0].0.display().to_string();
        let found = find_section(self.model_bytes(), SectionKind::Graph);
        let found = found.map_err(|e| Diag::new(e.code(), e.to_string()).place(&place).help(e.help()))?;
        self.model = found.ok_or_else(|| {
            bad("the artifact is of a decoder: the graph that it was compiled from is not in it")
                .place(&place)
                .found("machine code for steps of tokens")
                .expected("an artifact of a graph that is no decoder, or an ONNX file")
                .help("`llamac logits` gives the logits of token ids; `llamac infer model.onnx` runs the graph itself")
        })?;
        Ok(())
    }

    fn map(&mut self, path: PathBuf) -> Result<usize> {
        if let Some(at) = self.files.iter().position(|(p, _)| *p == path) {
            return Ok(at);
        }
        let fail = |e: &std::io::Error| {
            Diag::io("cannot read a file of the model", path.display(), e).help("check that the file is there and may be read")
        };
        let file = File::open(&path).map_err(|e| fail(&e))?;
        let facts = file.metadata().map_err(|e| fail(&e))?;
        if !facts.is_file() {
            return Err(bad("this is not a file").place(path.display()));
        }
        let map = match facts.len() {
            0 => None,
            // SAFETY: the map is read-only and private to this process. If another process truncates the file meanwhile, reads fault and the
            // process ends; contents may change under us, which at worst gives wrong weights.
            _ => Some(unsafe { Mmap::map(&file) }.map_err(|e| fail(&e))?),
        };
        self.files.push((path, map));
        Ok(self.files.len() - 1)
    }

    /// Adds a tensor under a name.
    ///
    /// # Errors
    /// A type that is not compiled, data that is not as long as its shape says or not where it should be.
    pub(super) fn add(&mut self, name: &str, tensor: &TensorProto) -> Result<()> {
        let place = format!("tensor `{name}`");
        let stored = self.stored(tensor).map_err(|d| d.inside(place))?;
        self.tensors.insert(name.to_owned(), stored);
        Ok(())
    }

    fn stored(&mut self, tensor: &TensorProto) -> Result<Stored> {
        let (dtype, packed) = match tensor_proto::DataType::try_from(tensor.data_type) {
            Ok(tensor_proto::DataType::Int4) => (DType::I8, true),
            Ok(tensor_proto::DataType::Uint4) => (DType::U8, true),
            _ => (dtype_of(tensor.data_type)?, false),
        };
        let size = |d: &i64| usize::try_from(*d).map_err(|_| bad("a length is negative").found(d));
        let shape = tensor.dims.iter().map(size).collect::<Result<Vec<_>>>()?;
        let bytes = shape.iter().try_fold(dtype.info().bits.max(8) as usize / 8, |n, &d| n.checked_mul(d));
        let bytes = bytes.ok_or_else(|| bad("the tensor is larger than any memory").found(format_args!("{shape:?}")))?;
        let bytes = if packed { bytes.div_ceil(2) } else { bytes };
        if tensor.segment.is_some() {
            return Err(bad("tensors in segments are not compiled"));
        }
        let data = if tensor.data_location == Some(tensor_proto::DataLocation::External as i32) || !tensor.external_data.is_empty() {
            self.external(tensor, bytes)?
        } else if !tensor.raw_data.is_empty() || bytes == 0 {
            Data::Own(tensor.raw_data.to_vec())
        } else {
            Data::Own(typed(tensor, dtype)?)
        };
        let found = match &data {
            Data::Mapped(_, range) => range.len(),
            Data::Own(own) => own.len(),
            Data::Made(_) => bytes,
        };
        if found != bytes {
            return Err(bad("the data is not as long as the shape says")
                .found(format_args!("{found} bytes"))
                .expected(format_args!("{bytes} for {dtype}{shape:?}")));
        }
        Ok(Stored { dtype, shape, packed, data })
    }

    fn external(&mut self, tensor: &TensorProto, bytes: usize) -> Result<Data> {
        let entry = |key: &str| tensor.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        if let Some(inside) = entry(INSIDE) {
            let numbers: Vec<usize> = inside.split(' ').filter_map(|n| n.parse().ok()).collect();
            let [start, len] = numbers[..] else {
                return Err(bad("the tensor says that it stands inside the file, but not where").found(inside));
            };
            return self.range(0, start.saturating_add(self.model.start), len);
        }
        let location = entry("location").ok_or_else(|| bad("the tensor has external data and does not say where"))?;
        let plain = Path::new(location).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if !plain || location.is_empty() || location.contains('\\') {
            return Err(bad("external data stands outside the folder of the model")
                .found(location)
                .expected("a path below the folder, without `..`")
                .help("move the file beside model.onnx and name it by its file name"));
        }
        let path = self.folder.join(location);
        // A link could lead outside.
        if let (Ok(real), Ok(folder)) = (path.canonicalize(), self.folder.canonicalize())
            && !real.starts_with(&folder)
        {
            return Err(bad("external data stands outside the folder of the model").found(format_args!("{location}, a link")));
        }
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(text) => text.parse::<usize>().map(Some).map_err(|_| bad(format!("`{key}` of external data is no number")).found(text)),
        };
        let (start, len) = (number("offset")?.unwrap_or(0), number("length")?.unwrap_or(bytes));
        let file = self.map(path)?;
        self.range(file, start, len)
    }

    fn range(&self, file: usize, start: usize, len: usize) -> Result<Data> {
        let (path, map) = &self.files[file];
        let size = map.as_ref().map_or(0, |m| m.len());
        match start.checked_add(len) {
            Some(end) if end <= size => Ok(Data::Mapped(file, start..end)),
            _ => Err(bad("the data of a tensor ends behind the file that it is in")
                .place(path.display())
                .found(format_args!("{len} bytes from {start} on"))
                .expected(format_args!("at most {size} bytes"))
                .help("download or export the model again: a file is not complete")),
        }
    }

    /// A tensor.
    pub(super) fn get(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(name)
    }

    /// All elements as f64, if there are few.
    pub(super) fn small(&self, name: &str, most: usize) -> Option<Vec<f64>> {
        let stored = self.tensors.get(name)?;
        let count: usize = stored.shape.iter().product();
        if count > most || stored.packed {
            return None;
        }
        let size = stored.dtype.info().bits.max(8) as usize / 8;
        self.bytes(stored)?.chunks_exact(size).map(|b| element(stored.dtype, b)).collect()
    }

    /// Small integers exactly.
    pub(super) fn integers(&self, name: &str, most: usize) -> Option<Vec<i64>> {
        let stored = self.tensors.get(name)?;
        if stored.dtype != DType::I64 {
            return self.small(name, most).map(|all| all.into_iter().map(|x| x as i64).collect());
        }
        let bytes = self.bytes(stored).filter(|b| b.len() <= most * 8)?;
        Some(bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect())
    }

    /// Whether a tensor of bytes is there and has no other element than 0.
    pub(super) fn all_zero(&self, name: &str) -> bool {
        let stored = self.tensors.get(name).filter(|t| matches!(t.dtype, DType::I8 | DType::U8));
        stored.and_then(|t| self.bytes(t)).is_some_and(|bytes| bytes.iter().all(|b| *b == 0))
    }

    /// Adds a tensor of floats that is made of codes.
    pub(super) fn add_blocks(&mut self, name: &str, shape: &[usize], blocks: Blocks) {
        let stored = Stored { dtype: DType::F32, shape: shape.to_vec(), packed: false, data: Data::Made(blocks) };
        self.tensors.insert(name.to_owned(), stored);
    }

    /// The blocks that a tensor of floats is made of.
    pub(super) fn blocks(&self, name: &str) -> Option<&Blocks> {
        match &self.tensors.get(name)?.data {
            Data::Made(blocks) => Some(blocks),
            _ => None,
        }
    }

    /// The tensor of the file whose bytes stand under this name, too.
    pub(super) fn root<'a>(&'a self, name: &'a str) -> &'a str {
        self.roots.get(name).map_or(name, String::as_str)
    }

    /// The same bytes under another name.
    fn copy(&mut self, name: &str, to: &str, shape: Vec<usize>, packed: bool) {
        if let Some(stored) = self.tensors.get(name) {
            let data = match &stored.data {
                Data::Mapped(file, range) => Data::Mapped(*file, range.clone()),
                Data::Own(bytes) => Data::Own(bytes.clone()),
                Data::Made(blocks) => Data::Made(blocks.clone()),
            };
            let root = self.root(name).to_owned();
            self.tensors.insert(to.to_owned(), Stored { dtype: stored.dtype, shape, packed, data });
            self.roots.insert(to.to_owned(), root);
        }
    }

    /// The name under which bytes are read as two codes each.
    pub(super) fn as_nibbles(&mut self, name: &str) -> String {
        let nibbles = format!("{}.nibbles", self.root(name));
        let count = self.tensors.get(name).map_or(0, |t| t.shape.iter().product::<usize>());
        self.copy(name, &nibbles, vec![count * 2], true);
        nibbles
    }

    /// A stored tensor of bytes in another shape under another name. `false` if it is none, or the shape does not fit.
    pub(super) fn reshape_codes(&mut self, name: &str, to: &str, shape: &[usize]) -> bool {
        let fits =
            |t: &Stored| matches!(t.dtype, DType::U8 | DType::I8) && t.shape.iter().product::<usize>() == shape.iter().product::<usize>();
        match self.tensors.get(name).filter(|t| fits(t)).map(|t| t.packed) {
            None => false,
            Some(packed) => {
                self.copy(name, to, shape.to_vec(), packed);
                true
            }
        }
    }

    /// One element as a number.
    pub(super) fn number(&self, stored: &Stored, at: usize) -> Option<f64> {
        let size = stored.dtype.info().bits.max(8) as usize / 8;
        element(stored.dtype, self.bytes(stored)?.get(at * size..(at + 1) * size)?)
    }

    pub(super) fn bytes<'a>(&'a self, stored: &'a Stored) -> Option<&'a [u8]> {
        match &stored.data {
            Data::Made(_) => None,
            Data::Own(bytes) => Some(bytes),
            Data::Mapped(file, range) => self.files.get(*file)?.1.as_deref()?.get(range.clone()),
        }
    }

    /// Names that layers have, and the tensors that they mean.
    pub(super) fn set_aliases(&mut self, aliases: BTreeMap<String, String>) {
        self.aliases = aliases;
    }

    /// Element type of a tensor, also by the name that a layer has for it.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        let name = self.aliases.get(name).map_or(name, String::as_str);
        self.tensors.get(name).map(|t| t.dtype)
    }
}

impl Source for OnnxWeights {
    fn codes(&self, name: &str, dtype: DType, line: Line, out: &mut Codes) -> std::result::Result<bool, String> {
        let real = self.aliases.get(name).map_or(name, String::as_str);
        self.blocks(real).map_or(Ok(false), |blocks| self.kept(blocks, dtype, line, out))
    }

    fn row(&self, name: &str, row: usize, out: &mut [f32]) -> std::result::Result<(), String> {
        self.part(name, row, out.len(), 0, out)
    }

    fn part(&self, name: &str, row: usize, columns: usize, start: usize, out: &mut [f32]) -> std::result::Result<(), String> {
        let real = self.aliases.get(name).map_or(name, String::as_str);
        let stored = self.tensors.get(real).ok_or_else(|| format!("no tensor `{real}`"))?;
        if let Data::Made(blocks) = &stored.data {
            let first = row.checked_mul(columns).and_then(|n| n.checked_add(start)).ok_or("a row that is not there")?;
            return self.dequantized(blocks, first, out);
        }
        if stored.packed {
            return Err(format!("tensor `{real}`: codes of 4 bits are read through their scales only"));
        }
        let size = stored.dtype.info().bits.max(8) as usize / 8;
        let first = row.checked_mul(columns).and_then(|n| n.checked_add(start)).and_then(|n| n.checked_mul(size));
        let bytes = first.and_then(|first| self.bytes(stored)?.get(first..first + out.len() * size));
        let bytes = bytes.ok_or_else(|| format!("tensor `{real}`: row {row} of {columns} columns is not there"))?;
        if crate::frontend::safetensors::convert::widen(stored.dtype, bytes, out) {
            return Ok(());
        }
        for (x, b) in out.iter_mut().zip(bytes.chunks_exact(size)) {
            let value = element(stored.dtype, b).ok_or_else(|| format!("tensor `{real}`: {} is not read", stored.dtype))?;
            *x = value as f32;
            if f64::from(*x) != value && !value.is_nan() {
                return Err(format!("tensor `{real}`: {value} does not fit f32 exactly"));
            }
        }
        Ok(())
    }
}

/// One little-endian element, if it is exact in f64.
pub(super) fn element(dtype: DType, b: &[u8]) -> Option<f64> {
    Some(match (dtype, b) {
        (DType::F32, &[a, b, c, d]) => f64::from(f32::from_le_bytes([a, b, c, d])),
        (DType::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f64(),
        (DType::Bf16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f64(),
        (DType::F64, b) => f64::from_le_bytes(b.try_into().ok()?),
        (DType::I16, &[a, b]) => f64::from(i16::from_le_bytes([a, b])),
        (DType::U16, &[a, b]) => f64::from(u16::from_le_bytes([a, b])),
        (DType::U32, &[a, b, c, d]) => f64::from(u32::from_le_bytes([a, b, c, d])),
        (DType::U64, b) => u64::from_le_bytes(b.try_into().ok()?) as f64,
        (DType::F8E4m3 | DType::F8E5m2 | DType::F8E4m3fnuz | DType::F8E5m2fnuz, &[a]) => minifloat::decode(dtype, a),
        (DType::I64, b) => i64::from_le_bytes(b.try_into().ok()?) as f64,
        (DType::I32, &[a, b, c, d]) => f64::from(i32::from_le_bytes([a, b, c, d])),
        (DType::I8, &[a]) => f64::from(a as i8),
        (DType::U8 | DType::Bool, &[a]) => f64::from(a),
        _ => return None,
    })
}

/// Numbers of types that came after the messages' own list.
const FLOAT4E2M1: i32 = 23;
const UINT2: i32 = 25;
const INT2: i32 = 26;

/// The element type of an ONNX number.
///
/// # Errors
/// One that is not compiled, by its name.
pub(super) fn dtype_of(number: i32) -> Result<DType> {
    use tensor_proto::DataType as D;
    let name = D::try_from(number).map_or_else(|_| format!("number {number}"), |d| format!("{d:?}").to_lowercase());
    Ok(match D::try_from(number) {
        Ok(D::Float) => DType::F32,
        Ok(D::Float16) => DType::F16,
        Ok(D::Bfloat16) => DType::Bf16,
        Ok(D::Int64) => DType::I64,
        Ok(D::Int32) => DType::I32,
        Ok(D::Int8) => DType::I8,
        Ok(D::Uint8) => DType::U8,
        Ok(D::Bool) => DType::Bool,
        Ok(D::Double) => DType::F64,
        Ok(D::Int16) => DType::I16,
        Ok(D::Uint16) => DType::U16,
        Ok(D::Uint32) => DType::U32,
        Ok(D::Uint64) => DType::U64,
        Ok(D::Float8e4m3fn) => DType::F8E4m3,
        Ok(D::Float8e5m2) => DType::F8E5m2,
        Ok(D::Float8e4m3fnuz) => DType::F8E4m3fnuz,
        Ok(D::Float8e5m2fnuz) => DType::F8E5m2fnuz,
        Ok(D::Int4) => DType::I4,
        Ok(D::Uint4) => DType::U4,
        _ if number == FLOAT4E2M1 => DType::F4E2m1,
        _ if number == UINT2 => DType::U2,
        _ if number == INT2 => DType::I2,
        _ => {
            return Err(bad("an element type is not compiled")
                .found(name)
                .expected("float, float16, bfloat16, double, integers, bool or float8")
                .help("export the model in float32, float16 or bfloat16"));
        }
    })
}

/// Data in the fields of its type.
fn typed(tensor: &TensorProto, dtype: DType) -> Result<Vec<u8>> {
    let words = || tensor.int32_data.iter();
    Ok(match dtype {
        DType::F32 => tensor.float_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F64 => tensor.double_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::U32 => tensor.uint64_data.iter().flat_map(|x| (*x as u32).to_le_bytes()).collect(),
        DType::U64 => tensor.uint64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::I64 => tensor.int64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::I32 => words().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F16 | DType::Bf16 | DType::I16 | DType::U16 => words().flat_map(|x| (*x as u16).to_le_bytes()).collect(),
        dtype if dtype.info().bits <= 8 => words().map(|x| *x as u8).collect(),
        other => return Err(bad("data of this type stands in a field that is not read").found(other)),
    })
}
