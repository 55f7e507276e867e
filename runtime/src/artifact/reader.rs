//! Opening an artifact: map, check, hand out sections. Nothing large is read here, and nothing is executed.

use super::check::CheckVectors;
use super::checks::check_meta;
use super::error::ArtifactError;
use super::layout::{Layout, SectionEntry, SectionKind};
use super::meta::Meta;
use super::target::check_target;
use crate::abi::Kernel;
use crate::kernels::table::resolve;
use crate::memory::{LoadMode, Region};
use memmap2::Mmap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How to open an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOptions {
    /// Check the hash of the code section (the header's and the metadata's are always checked).
    pub verify_code: bool,
    /// Refuse code and kernels that this CPU cannot run. Without it the artifact can be looked at on any machine.
    pub check_target: bool,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions { verify_code: true, check_target: true }
    }
}

/// An open artifact. Cloning is cheap; the file stays mapped until the last clone and the last session over it are gone.
#[derive(Debug, Clone)]
pub struct Artifact {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    map: Mmap,
    layout: Layout,
    meta: Meta,
}

impl Artifact {
    /// Maps a file and checks everything that a step relies on, but for the bytes of the weights ([`Artifact::verify_hashes`]).
    ///
    /// # Errors
    /// What is wrong with the file or this machine, with all facts.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Artifact, ArtifactError> {
        let path = path.as_ref().to_path_buf();
        let io = |action, error| ArtifactError::Io { path: path.clone(), action, error };
        let file = File::open(&path).map_err(|e| io("open", e))?;
        let found = file.metadata().map_err(|e| io("open", e))?;
        if found.is_dir() {
            return Err(io("open", std::io::ErrorKind::IsADirectory.into()));
        }
        if found.len() == 0 {
            return Err(ArtifactError::NotAnArtifact { found: Vec::new() });
        }
        // SAFETY: the mapping is read-only. That nobody truncates or rewrites an artifact in place while it is used is a rule of the
        // format: the writer renames complete files only.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| io("map", e))?;
        let (layout, meta) = parse_with(&map, options.verify_code, true)?;
        if options.check_target {
            check_target(&meta.target)?;
            resolve_kernels(&meta)?;
        }
        Ok(Artifact { inner: Arc::new(Inner { path, file, map, layout, meta }) })
    }

    /// Where the file was opened.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The metadata.
    pub fn meta(&self) -> &Meta {
        &self.inner.meta
    }

    /// Sections and their places.
    pub fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    /// Bytes of a section, if it is there.
    pub fn section(&self, kind: SectionKind) -> Option<&[u8]> {
        self.inner.layout.find(kind).and_then(|s| slice(&self.inner.map, s))
    }

    /// The stored check vectors, if there are any.
    ///
    /// # Errors
    /// The section is damaged.
    pub fn check_vectors(&self) -> Result<Option<CheckVectors>, ArtifactError> {
        let damaged = |detail| ArtifactError::Corrupt { section: SectionKind::Check.name().to_owned(), detail };
        self.section(SectionKind::Check).map(CheckVectors::from_bytes).transpose().map_err(damaged)
    }

    /// Reads the whole file and compares every section with its hash. `progress` gets bytes done and bytes in all.
    ///
    /// # Errors
    /// [`ArtifactError::Corrupt`] for the first section that differs.
    pub fn verify_hashes(&self, mut progress: impl FnMut(u64, u64)) -> Result<(), ArtifactError> {
        const STEP: usize = 8 << 20;
        let total = self.inner.layout.sections.iter().map(|s| s.bytes).sum();
        let mut done = 0;
        for s in &self.inner.layout.sections {
            let mut hasher = blake3::Hasher::new();
            for chunk in slice(&self.inner.map, s).unwrap_or_default().chunks(STEP) {
                hasher.update(chunk);
                done += chunk.len() as u64;
                progress(done, total);
            }
            compare_hash(s, &hasher.finalize())?;
        }
        Ok(())
    }

    /// The code section, executable.
    pub(crate) fn map_code(&self) -> Result<Region, ArtifactError> {
        let s = self.entry(SectionKind::Code)?;
        let code = slice(&self.inner.map, s).unwrap_or_default();
        // Whoever opened the artifact without this check did not mean to run it unchecked.
        compare_hash(s, &blake3::hash(code))?;
        Region::code(&self.inner.file, s.offset, code).map_err(|e| self.io("map the code of", e))
    }

    /// The weight section.
    pub(crate) fn load_weights(&self, mode: LoadMode) -> Result<Region, ArtifactError> {
        let s = self.entry(SectionKind::Weights)?;
        let bytes = usize::try_from(s.bytes).map_err(|e| self.io("map the weights of", std::io::Error::other(e)))?;
        Region::load(&self.inner.file, s.offset, bytes, mode).map_err(|e| self.io("map the weights of", e))
    }

    /// Kernels in table order.
    pub(crate) fn kernels(&self) -> Result<Vec<Kernel>, ArtifactError> {
        resolve_kernels(&self.inner.meta)
    }

    fn entry(&self, kind: SectionKind) -> Result<&SectionEntry, ArtifactError> {
        self.inner.layout.find(kind).ok_or(ArtifactError::Missing { section: kind.name() })
    }

    fn io(&self, action: &'static str, error: std::io::Error) -> ArtifactError {
        ArtifactError::Io { path: self.inner.path.clone(), action, error }
    }
}

/// Everything that is checked about the bytes of a file, without executing or resolving anything. Never panics, whatever the bytes.
///
/// # Errors
/// What is wrong with the bytes.
pub fn parse(file: &[u8]) -> Result<(Layout, Meta), ArtifactError> {
    parse_with(file, true, true)
}

/// [`parse`] without the hashes of the sections, so that a fuzzer reaches what lies behind them. Never panics.
///
/// # Errors
/// What is wrong with the bytes.
pub fn parse_unhashed(file: &[u8]) -> Result<(Layout, Meta), ArtifactError> {
    parse_with(file, false, false)
}

fn parse_with(file: &[u8], code_hash: bool, meta_hash: bool) -> Result<(Layout, Meta), ArtifactError> {
    let layout = Layout::decode(file)?;
    let section = |kind: SectionKind| {
        let entry = layout.find(kind).ok_or(ArtifactError::Missing { section: kind.name() })?;
        let bytes = slice(file, entry).ok_or(ArtifactError::Truncated { found: file.len() as u64, expected: layout.file_bytes })?;
        Ok::<_, ArtifactError>((entry, bytes))
    };
    if layout.find(SectionKind::Meta).is_none() && layout.find(SectionKind::Graph).is_some() {
        return Err(ArtifactError::Missing { section: SectionKind::Code.name() });
    }
    let (entry, json) = section(SectionKind::Meta)?;
    if meta_hash {
        compare_hash(entry, &blake3::hash(json))?;
    }
    let damaged = |e: serde_json::Error| ArtifactError::Corrupt { section: SectionKind::Meta.name().to_owned(), detail: e.to_string() };
    let meta: Meta = serde_json::from_slice(json).map_err(damaged)?;
    check_meta(&meta, &layout)?;
    if code_hash {
        let (entry, code) = section(SectionKind::Code)?;
        compare_hash(entry, &blake3::hash(code))?;
    }
    Ok((layout, meta))
}

/// Where a section of an artifact is, its hash checked; `None` if there is none of that kind. For sections that no step needs.
///
/// # Errors
/// What is wrong with the bytes.
pub fn find_section(file: &[u8], kind: SectionKind) -> Result<Option<std::ops::Range<usize>>, ArtifactError> {
    let layout = Layout::decode(file)?;
    let Some(entry) = layout.find(kind) else { return Ok(None) };
    let bytes = slice(file, entry).ok_or(ArtifactError::Truncated { found: file.len() as u64, expected: layout.file_bytes })?;
    compare_hash(entry, &blake3::hash(bytes))?;
    let start = usize::try_from(entry.offset).unwrap_or(0);
    Ok(Some(start..start + bytes.len()))
}

fn resolve_kernels(meta: &Meta) -> Result<Vec<Kernel>, ArtifactError> {
    let one = |name: &String| resolve(name).map_err(|e| ArtifactError::Kernel { name: name.clone(), detail: e.to_string() });
    meta.kernels.iter().map(one).collect()
}

/// `None` only if the section leaves the file, which `Layout::decode` refuses.
fn slice<'a>(file: &'a [u8], s: &SectionEntry) -> Option<&'a [u8]> {
    let start = usize::try_from(s.offset).ok()?;
    let end = usize::try_from(s.offset.checked_add(s.bytes)?).ok()?;
    file.get(start..end)
}

fn compare_hash(s: &SectionEntry, found: &blake3::Hash) -> Result<(), ArtifactError> {
    if *found.as_bytes() == s.hash {
        return Ok(());
    }
    let expected = blake3::Hash::from_bytes(s.hash);
    let detail = format!("blake3 is {}..., expected {}...", &found.to_hex()[..16], &expected.to_hex()[..16]);
    Err(ArtifactError::Corrupt { section: s.name(), detail })
}
