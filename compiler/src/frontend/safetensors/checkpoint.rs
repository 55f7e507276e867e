//! A checkpoint folder: its safetensors files mapped, its tensors by name. Tensors are never read into memory as a whole.

use super::convert::widen;
use super::dtype::FileDType;
use super::header::{Header, MAX_HEADER, parse_header};
use super::index::{INDEX_FILE, SINGLE_FILE, nothing_to_read, parse_index};
use crate::diag::{Diag, Result, Warning};
use llamac_ir::dtype::DType;
use llamac_ir::recipe::Source;
use memmap2::{Advice, Mmap, UncheckedAdvice};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The mapped weights of a model.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    shards: Vec<Shard>,
    tensors: BTreeMap<String, Location>,
    warnings: Vec<Warning>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    /// `None` for a file without tensors, which cannot be mapped on all systems and need not be.
    map: Option<Mmap>,
}

#[derive(Debug)]
struct Location {
    shard: usize,
    dtype: FileDType,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

/// A tensor of a checkpoint, mapped.
#[derive(Debug, Clone, Copy)]
pub struct TensorRef<'a> {
    /// Element type in the file.
    pub dtype: FileDType,
    /// Shape.
    pub shape: &'a [usize],
    /// Little-endian elements, row-major, of any alignment.
    pub bytes: &'a [u8],
}

impl Checkpoint {
    /// Opens and checks the weights of a folder: `model.safetensors`, else the shards of `model.safetensors.index.json`.
    ///
    /// # Errors
    /// Missing or unreadable files, headers with a false claim, tensors that the index promises and no shard has.
    pub fn open(folder: &Path) -> Result<Checkpoint> {
        let mut checkpoint = Checkpoint { folder: folder.to_owned(), shards: Vec::new(), tensors: BTreeMap::new(), warnings: Vec::new() };
        if folder.join(SINGLE_FILE).exists() {
            let header = checkpoint.add_shard(folder.join(SINGLE_FILE))?;
            checkpoint.tensors = header
                .tensors
                .into_iter()
                .map(|(name, e)| (name, Location { shard: 0, dtype: e.dtype, shape: e.shape, bytes: e.bytes }))
                .collect();
            return Ok(checkpoint);
        }
        let index = folder.join(INDEX_FILE);
        if !index.exists() {
            return Err(nothing_to_read(folder));
        }
        checkpoint.open_shards(&index)?;
        Ok(checkpoint)
    }

    fn open_shards(&mut self, index: &Path) -> Result<()> {
        let text = std::fs::read(index).map_err(|e| Diag::io("cannot read the shard index", index.display(), &e))?;
        let mut by_file: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (tensor, file) in parse_index(&text).map_err(|d| d.inside(index.display()))? {
            by_file.entry(file).or_default().push(tensor);
        }
        for (file, wanted) in by_file {
            let path = self.folder.join(&file);
            if !path.exists() {
                return Err(Diag::new("weights", "a shard of the checkpoint is missing")
                    .place(path.display())
                    .expected(format_args!("the file that `{INDEX_FILE}` names for `{}` and {} more tensors", wanted[0], wanted.len() - 1))
                    .help("finish the download of the checkpoint"));
            }
            let mut header = self.add_shard(path)?;
            let shard = self.shards.len() - 1;
            for name in wanted {
                let entry = header.tensors.remove(&name).ok_or_else(|| {
                    Diag::new("weights", "a tensor is not in the shard that the index names")
                        .place(self.shards[shard].path.display())
                        .expected(format_args!("tensor `{name}`"))
                        .help(format_args!("download `{file}` and `{INDEX_FILE}` again: they are of different versions"))
                })?;
                self.tensors.insert(name, Location { shard, dtype: entry.dtype, shape: entry.shape, bytes: entry.bytes });
            }
            if let Some(name) = header.tensors.keys().next() {
                let what = format!("{} tensors that the index does not name are ignored, `{name}` the first", header.tensors.len());
                self.warnings.push(Warning(Diag::new("weights", what).place(self.shards[shard].path.display())));
            }
        }
        Ok(())
    }

    fn add_shard(&mut self, path: PathBuf) -> Result<Header> {
        let fail = |what: &str, e: &std::io::Error| Diag::io(what, path.display(), e).help("check that the file is there and may be read");
        let file = File::open(&path).map_err(|e| fail("cannot open the weights", &e))?;
        let facts = file.metadata().map_err(|e| fail("cannot read the weights", &e))?;
        if !facts.is_file() {
            return Err(Diag::new("io", "the weights are not a file").place(path.display()).help("a safetensors file must stand here"));
        }
        let map = if facts.len() == 0 {
            None
        } else {
            // SAFETY: the map is read-only and private to this process. If another process truncates the file meanwhile, reads fault
            // and the process ends; nothing can be written through the map. Contents may change under us, which at worst gives wrong weights.
            let map = unsafe { Mmap::map(&file) }.map_err(|e| fail("cannot map the weights", &e))?;
            // Only advice: recipes walk a tensor from its first row to its last.
            let _ = map.advise(Advice::Sequential);
            Some(map)
        };
        let bytes = map.as_deref().unwrap_or(&[]);
        let head = &bytes[..bytes.len().min(MAX_HEADER as usize + 8)];
        let header = parse_header(head, facts.len()).map_err(|d| d.inside(path.display()))?;
        self.shards.push(Shard { path, map });
        Ok(header)
    }

    /// The folder it was opened from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }
    /// What is odd about the files, but no error.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
    /// A tensor.
    pub fn tensor(&self, name: &str) -> Option<TensorRef<'_>> {
        let at = self.tensors.get(name)?;
        let bytes = self.shards[at.shard].map.as_deref().unwrap_or(&[]);
        Some(TensorRef { dtype: at.dtype, shape: &at.shape, bytes: bytes.get(at.bytes.clone())? })
    }
    /// The file that a tensor is in.
    pub fn file_of(&self, name: &str) -> Option<&Path> {
        self.tensors.get(name).map(|at| self.shards[at.shard].path.as_path())
    }
    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.tensors.values().map(|at| at.bytes.len() as u64).sum()
    }

    /// Tells the system that a tensor will not be read again soon, so that its pages leave this process. Only advice: the tensor can still be read.
    pub fn release(&self, name: &str) {
        let Some(at) = self.tensors.get(name) else { return };
        let Some(map) = &self.shards[at.shard].map else { return };
        const PAGE: usize = 4096;
        let (start, end) = (at.bytes.start.next_multiple_of(PAGE), at.bytes.end / PAGE * PAGE);
        if start < end {
            // SAFETY: the map is of a file and was never written to, so a page that is dropped comes back from the file with the same bytes.
            let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start) };
        }
    }
}

impl Source for Checkpoint {
    fn row(&self, name: &str, row: usize, out: &mut [f32]) -> std::result::Result<(), String> {
        let tensor = self.tensor(name).ok_or_else(|| format!("no tensor `{name}`"))?;
        tensor.row(row, out).map_err(|e| format!("tensor `{name}`: {e}"))
    }

    fn part(&self, name: &str, row: usize, _: usize, start: usize, out: &mut [f32]) -> std::result::Result<(), String> {
        let tensor = self.tensor(name).ok_or_else(|| format!("no tensor `{name}`"))?;
        tensor.part(row, start, out).map_err(|e| format!("tensor `{name}`: {e}"))
    }

    fn stored(&self, name: &str, row: usize) -> Option<(DType, &[u8])> {
        let tensor = self.tensor(name)?;
        Some((tensor.dtype.ir?, tensor.row_bytes(row)?))
    }

    fn patch(&self, name: &str, row: usize, _: usize, start: usize, width: usize, out: &mut [f32]) -> std::result::Result<(), String> {
        let tensor = self.tensor(name).ok_or_else(|| format!("no tensor `{name}`"))?;
        let mut rows = out.chunks_exact_mut(width.max(1)).zip(row..);
        rows.try_for_each(|(out, row)| tensor.part(row, start, out)).map_err(|e| format!("tensor `{name}`: {e}"))
    }
}

impl<'a> TensorRef<'a> {
    /// Elements along the last axis; 1 for a scalar.
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }
    /// Rows when seen as `[product, last]`.
    pub fn rows(&self) -> usize {
        self.shape.split_last().map_or(1, |(_, outer)| outer.iter().product())
    }
    /// Bytes of a row.
    pub fn row_bytes(&self, row: usize) -> Option<&'a [u8]> {
        let bytes = self.columns() * self.dtype.bits as usize / 8;
        self.bytes.get(row.checked_mul(bytes)?..row.checked_add(1)?.checked_mul(bytes)?)
    }
    fn row(&self, row: usize, out: &mut [f32]) -> std::result::Result<(), String> {
        if out.len() != self.columns() {
            return Err(format!("a row has {} elements, {} were asked for", self.columns(), out.len()));
        }
        self.part(row, 0, out)
    }
    /// Elements `start ..` of a row, as many as `out` holds.
    fn part(&self, row: usize, start: usize, out: &mut [f32]) -> std::result::Result<(), String> {
        let bytes = self.row_bytes(row).ok_or_else(|| format!("row {row} of {}", self.rows()))?;
        let size = self.dtype.bits as usize / 8;
        let bytes = bytes.get(start * size..(start + out.len()) * size).ok_or_else(|| format!("element {start} of {}", self.columns()))?;
        match self.dtype.ir {
            Some(dtype) if widen(dtype, bytes, out) => Ok(()),
            _ => Err(format!("{} is not a floating-point type that can be widened", self.dtype.name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn file(name: &str, values: &[f32]) -> Vec<u8> {
        let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{}]}}}}"#, values.len(), values.len() * 4);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        bytes
    }
    fn sharded(map: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("one.safetensors"), file("a", &[1.0, 2.0])).unwrap();
        fs::write(folder.path().join("two.safetensors"), file("b", &[3.0])).unwrap();
        fs::write(folder.path().join(INDEX_FILE), format!("{{\"weight_map\":{map}}}")).unwrap();
        folder
    }
    fn refused(folder: &Path, words: &[&str]) {
        let said = Checkpoint::open(folder).unwrap_err().to_string();
        assert!(words.iter().all(|w| said.contains(w)) && said.contains("help:"), "{words:?} not all in: {said}");
    }

    #[test]
    fn shards_are_read_through_the_index() {
        let folder = sharded(r#"{"a":"one.safetensors","b":"two.safetensors"}"#);
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let mut row = [0.0; 2];
        checkpoint.row("a", 0, &mut row).unwrap();
        assert_eq!(row, [1.0, 2.0]);
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((checkpoint.bytes(), checkpoint.tensor("b").unwrap().shape), (12, &[1][..]));
        checkpoint.release("a");
        assert!(checkpoint.row("a", 1, &mut row).is_err());
        assert!(checkpoint.row("a", 0, &mut row[..1]).is_err());
        assert!(checkpoint.row("c", 0, &mut row).is_err());
    }

    #[test]
    fn a_missing_shard_and_a_missing_tensor_are_named() {
        refused(sharded(r#"{"a":"one.safetensors","b":"three.safetensors"}"#).path(), &["three.safetensors", "`b`"]);
        refused(sharded(r#"{"a":"one.safetensors","c":"two.safetensors"}"#).path(), &["two.safetensors", "`c`"]);
        refused(sharded(r#"{"a":"../one.safetensors"}"#).path(), &["outside the folder", INDEX_FILE]);
    }

    #[test]
    fn a_tensor_that_the_index_does_not_name_gives_a_warning() {
        let folder = sharded(r#"{"a":"one.safetensors"}"#);
        assert!(Checkpoint::open(folder.path()).unwrap().warnings().is_empty());
        fs::write(folder.path().join(INDEX_FILE), "{\"weight_map\":{}}").unwrap();
        assert_eq!(Checkpoint::open(folder.path()).unwrap().names().count(), 0);
        let folder = tempfile::tempdir().unwrap();
        let two = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
        let mut bytes = (two.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(two.as_bytes());
        bytes.extend([0, 0]);
        fs::write(folder.path().join("x"), bytes).unwrap();
        fs::write(folder.path().join(INDEX_FILE), r#"{"weight_map":{"a":"x"}}"#).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        assert!(checkpoint.warnings()[0].to_string().contains("`b`"));
        assert!(checkpoint.row("a", 0, &mut [0.0]).unwrap_err().contains("U8"));
    }

    #[test]
    fn empty_files_folders_and_other_formats_are_explained() {
        let folder = tempfile::tempdir().unwrap();
        refused(folder.path(), &["no weights", SINGLE_FILE]);
        fs::write(folder.path().join("m.gguf"), "").unwrap();
        refused(folder.path(), &["GGUF"]);
        fs::remove_file(folder.path().join("m.gguf")).unwrap();
        fs::write(folder.path().join("consolidated.00.pth"), "").unwrap();
        refused(folder.path(), &["PyTorch"]);
        fs::write(folder.path().join(SINGLE_FILE), "").unwrap();
        refused(folder.path(), &[SINGLE_FILE, "0 bytes"]);
        fs::remove_file(folder.path().join(SINGLE_FILE)).unwrap();
        fs::create_dir(folder.path().join(SINGLE_FILE)).unwrap();
        refused(folder.path(), &[SINGLE_FILE]);
    }
}
