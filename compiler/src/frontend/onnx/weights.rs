//! Tensors of an ONNX model: where each stands in which file, mapped and never read as a whole. As a [`Source`] their elements are a flat
//! sequence, so that a recipe may see a tensor in any shape of the same size.

use super::bad;
use super::blocks::Blocks;
use super::elements::{dtype_of, element, typed};
use super::outside::Kept;
use super::wire::INSIDE;
use crate::diag::{Diag, Result};
use llamac_ir::dtype::DType;
use llamac_ir::eval::quant::Codes;
use llamac_ir::recipe::{Line, Source};
use llamac_runtime::artifact::layout::{Layout, MAGIC, SectionEntry};
use llamac_runtime::artifact::reader::find_section;
use llamac_runtime::artifact::{ArtifactError, SectionKind};
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
    /// In an artifact: where the data is that stood outside, and what it is.
    kept: Option<(Range<usize>, Kept)>,
}

/// A part of a file beside the model.
#[derive(Debug)]
pub(super) struct Outside {
    /// As the model calls the file.
    pub(super) location: String,
    pub(super) start: usize,
    pub(super) bytes: usize,
    /// The file.
    pub(super) file: PathBuf,
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
            kept: None,
        };
        weights.map(model.to_owned())?;
        weights.model = 0..weights.files[0].1.as_ref().map_or(0, |m| m.len());
        Ok(weights)
    }

    /// Bytes of the model's own file.
    pub(super) fn model_bytes(&self) -> &[u8] {
        self.files.first().and_then(|(_, map)| map.as_deref()?.get(self.model.clone())).unwrap_or(&[])
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
        let damaged = |e: ArtifactError| Diag::new(e.code(), e.to_string()).place(&place).help(e.help());
        let found = find_section(self.model_bytes(), SectionKind::Graph).map_err(damaged)?;
        let layout = Layout::decode(self.model_bytes()).map_err(damaged)?;
        let range =
            |entry: &SectionEntry| Some(usize::try_from(entry.offset).ok()?..usize::try_from(entry.offset.checked_add(entry.bytes)?).ok()?);
        let section = layout.find(SectionKind::GraphData).and_then(range);
        let kept = match section.as_ref().and_then(|r| self.model_bytes().get(r.clone())) {
            Some(bytes) => Kept::parse(bytes).map_err(|d| d.place(&place))?,
            None => Kept::default(),
        };
        self.kept = Some((section.unwrap_or_default(), kept));
        self.model = found.ok_or_else(|| {
            bad("the artifact is of a decoder: the graph that it was compiled from is not in it")
                .place(&place)
                .found("machine code for steps of tokens")
                .expected("an artifact of a graph that is no decoder, or an ONNX file")
                .help("`llamac logits` gives the logits of token ids; `llamac infer model.onnx` runs the graph itself")
        })?;
        Ok(())
    }

    /// Compares data that an artifact keeps with its hash: nothing else looks at all of it.
    ///
    /// # Errors
    /// The artifact is damaged.
    pub(super) fn check_data(&self) -> Result<()> {
        let (Some(_), Some((path, Some(map)))) = (&self.kept, self.files.first()) else { return Ok(()) };
        let found = find_section(map, SectionKind::GraphData);
        found.map(|_| ()).map_err(|e| Diag::new(e.code(), e.to_string()).place(path.display()).help(e.help()))
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
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(text) => text.parse::<usize>().map(Some).map_err(|_| bad(format!("`{key}` of external data is no number")).found(text)),
        };
        let location = entry("location").ok_or_else(|| bad("the tensor has external data and does not say where"))?;
        let (start, len) = (number("offset")?.unwrap_or(0), number("length")?.unwrap_or(bytes));
        if let Some((section, kept)) = &self.kept {
            let at = kept.find(location, start, len).ok_or_else(|| {
                bad("the artifact does not have the data of a tensor that stood in another file")
                    .found(format_args!("`{location}`, {len} bytes from {start} on"))
                    .help("compile the graph again")
            })?;
            return self.range(0, section.start + at, len);
        }
        let path = self.beside(location)?;
        let file = self.map(path)?;
        self.range(file, start, len)
    }

    /// Where external data of a tensor stands; that it is there is checked.
    ///
    /// # Errors
    /// As [`OnnxWeights::add`].
    pub(super) fn outside(&mut self, tensor: &TensorProto) -> Result<Outside> {
        let entry = |key: &str| tensor.external_data.iter().find(|e| e.key == key).map(|e| e.value.clone());
        match self.stored(tensor)?.data {
            Data::Mapped(file, range) => Ok(Outside {
                location: entry("location").unwrap_or_default(),
                start: range.start,
                bytes: range.len(),
                file: self.files[file].0.clone(),
            }),
            _ => Err(bad("the tensor has external data and does not say where")),
        }
    }

    /// A file beside the model, by the name that the model has for it.
    fn beside(&self, location: &str) -> Result<PathBuf> {
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
        Ok(path)
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
