//! Writing an artifact: sections are streamed into a file that appears under its name only when complete. The layout is stated once, in
//! `layout`; what the sections hold is the compiler's matter.

use super::layout::{Layout, SECTION_ALIGN, SectionEntry, SectionKind};
use super::sized::{Failed, Joiner, Place};
use super::temp::TempFile;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Why an artifact could not be written. Nothing is left at the destination.
#[derive(Debug)]
pub enum WriteError {
    /// The operating system refused.
    Io {
        /// The destination.
        path: PathBuf,
        /// What was tried, as a verb.
        action: &'static str,
        /// The system's reason.
        error: io::Error,
    },
    /// The disk is too small.
    NoSpace {
        /// Directory of the destination.
        directory: PathBuf,
        /// Bytes that the artifact needs; 0 if that is not known.
        needed: u64,
        /// Bytes that are free there.
        available: u64,
    },
    /// The writer was used wrongly: a section twice, unfinished, or written outside its bounds. A bug of the caller.
    Misuse(String),
}

impl WriteError {
    /// Short code for diagnostics, stable.
    pub fn code(&self) -> &'static str {
        match self {
            WriteError::Io { .. } => "artifact-write",
            WriteError::NoSpace { .. } => "no-space",
            WriteError::Misuse(_) => "internal",
        }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Io { path, action, error } => write!(f, "cannot {action} `{}`: {error}", path.display()),
            WriteError::NoSpace { directory, needed: 0, available } => {
                write!(f, "no space left in `{}` ({available} bytes are free)", directory.display())
            }
            WriteError::NoSpace { directory, needed, available } => {
                write!(f, "not enough space in `{}`: {needed} bytes needed, {available} free", directory.display())
            }
            WriteError::Misuse(what) => write!(f, "artifact writer: {what}"),
        }
    }
}

impl std::error::Error for WriteError {}

/// Writes one artifact. Dropped before [`ArtifactWriter::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct ArtifactWriter {
    temp: TempFile,
    path: PathBuf,
    sections: Vec<SectionEntry>,
    end: u64,
    reserved: u64,
    /// A section that was begun and not finished.
    open: Option<SectionKind>,
}

impl ArtifactWriter {
    /// Starts an artifact that will be at `path`.
    ///
    /// # Errors
    /// The directory is not there or not writable, or `path` is no regular file.
    pub fn create(path: impl AsRef<Path>) -> Result<ArtifactWriter, WriteError> {
        let path = path.as_ref().to_path_buf();
        let temp = TempFile::create(&path).map_err(|error| WriteError::Io { path: path.clone(), action: "create", error })?;
        Ok(ArtifactWriter { temp, path, sections: Vec::new(), end: SECTION_ALIGN, reserved: 0, open: None })
    }

    /// Claims disk space for a file of about `bytes` bytes, so that a full disk shows before the work and not after it.
    ///
    /// # Errors
    /// [`WriteError::NoSpace`].
    pub fn reserve(&mut self, bytes: u64) -> Result<(), WriteError> {
        self.reserved = bytes;
        let available = free_bytes(self.temp.file()).unwrap_or(u64::MAX);
        if available < bytes {
            return Err(WriteError::NoSpace { directory: self.temp.directory().to_path_buf(), needed: bytes, available });
        }
        let length = libc::off_t::try_from(bytes).map_err(|e| self.error("reserve", io::Error::other(e)))?;
        if length == 0 {
            return Ok(());
        }
        // SAFETY: the descriptor is open for writing.
        if unsafe { libc::fallocate(self.temp.file().as_raw_fd(), 0, 0, length) } == 0 {
            return Ok(());
        }
        match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::ENOSPC) => Err(self.error("reserve", e)),
            // File systems without the call find out while writing.
            _ => Ok(()),
        }
    }

    /// Begins a section that is written from front to back. Finish it before anything else.
    ///
    /// # Errors
    /// [`WriteError::Misuse`].
    pub fn section(&mut self, kind: SectionKind) -> Result<SectionWriter<'_>, WriteError> {
        let offset = self.begin(kind)?;
        Ok(SectionWriter { writer: self, kind, offset, bytes: 0, hasher: blake3::Hasher::new() })
    }

    /// Writes a whole section.
    ///
    /// # Errors
    /// The write fails.
    pub fn put(&mut self, kind: SectionKind, bytes: &[u8]) -> Result<(), WriteError> {
        let mut section = self.section(kind)?;
        section.write_all(bytes).map_err(|e| section.explain(e))?;
        section.finish().map(|_| ())
    }

    /// Begins a section of a known size that several threads write at any offsets. What nobody writes is zero.
    ///
    /// # Errors
    /// [`WriteError::Misuse`], or the file cannot grow to that size.
    pub fn sized_section(&mut self, kind: SectionKind, bytes: u64) -> Result<SizedSection<'_>, WriteError> {
        let offset = self.begin(kind)?;
        let end = offset.checked_add(bytes).ok_or_else(|| WriteError::Misuse(format!("{} of {bytes} bytes", kind.name())))?;
        let length = self.temp.file().metadata().map_err(|e| self.error("write", e))?.len();
        if length < end {
            self.temp.file().set_len(end).map_err(|e| self.error("write", e))?;
        }
        Ok(SizedSection { writer: self, kind, offset, bytes, joiner: Joiner::new() })
    }

    /// Writes header and table and gives the file its name. Returns the size of the file.
    ///
    /// # Errors
    /// A section was left unfinished, or the system refuses.
    pub fn finish(self) -> Result<u64, WriteError> {
        if let Some(kind) = self.open {
            return Err(WriteError::Misuse(format!("section {} was not finished", kind.name())));
        }
        let layout = Layout { sections: self.sections.clone(), file_bytes: self.end };
        let file = self.temp.file();
        file.write_all_at(&layout.encode(), 0).map_err(|e| self.error("write", e))?;
        file.set_len(self.end).map_err(|e| self.error("write", e))?;
        let (path, end) = (self.path, self.end);
        self.temp.publish().map_err(|error| WriteError::Io { path, action: "rename the finished file to", error })?;
        Ok(end)
    }

    fn begin(&mut self, kind: SectionKind) -> Result<u64, WriteError> {
        if let Some(open) = self.open {
            return Err(WriteError::Misuse(format!("section {} begins in section {}", kind.name(), open.name())));
        }
        if self.sections.iter().any(|s| s.kind == kind as u32) {
            return Err(WriteError::Misuse(format!("section {} is written twice", kind.name())));
        }
        self.open = Some(kind);
        Ok(self.end.next_multiple_of(kind.align()))
    }

    fn end(&mut self, kind: SectionKind, offset: u64, bytes: u64, hash: &blake3::Hash) {
        self.sections.push(SectionEntry { kind: kind as u32, flags: 0, offset, bytes, hash: *hash.as_bytes() });
        self.end = offset + bytes;
        self.open = None;
    }

    fn error(&self, action: &'static str, error: io::Error) -> WriteError {
        if matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) {
            let available = free_bytes(self.temp.file()).unwrap_or(0);
            return WriteError::NoSpace { directory: self.temp.directory().to_path_buf(), needed: self.reserved, available };
        }
        WriteError::Io { path: self.path.clone(), action, error }
    }
}

/// A section that is written from front to back.
#[derive(Debug)]
pub struct SectionWriter<'w> {
    writer: &'w mut ArtifactWriter,
    kind: SectionKind,
    offset: u64,
    bytes: u64,
    hasher: blake3::Hasher,
}

impl SectionWriter<'_> {
    /// What an I/O error of this section's `write` means: [`WriteError::NoSpace`] with the figures where the disk is full.
    pub fn explain(&self, error: io::Error) -> WriteError {
        self.writer.error("write", error)
    }

    /// Ends the section; returns its length.
    ///
    /// # Errors
    /// None today; a section that is dropped without this makes [`ArtifactWriter::finish`] fail.
    pub fn finish(self) -> Result<u64, WriteError> {
        self.writer.end(self.kind, self.offset, self.bytes, &self.hasher.finalize());
        Ok(self.bytes)
    }
}

impl Write for SectionWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.writer.temp.file().write_at(bytes, self.offset + self.bytes)?;
        self.hasher.update(&bytes[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A section of fixed size, written at any offsets by any thread.
#[derive(Debug)]
pub struct SizedSection<'w> {
    writer: &'w mut ArtifactWriter,
    kind: SectionKind,
    offset: u64,
    bytes: u64,
    joiner: Joiner,
}

impl SizedSection<'_> {
    /// Length of the section.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether the section has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// A buffer for [`SizedSection::write_at`], with whatever was in it: one that was written, so that its memory need not be cleared again.
    pub fn buffer(&self) -> Vec<u8> {
        self.joiner.buffer()
    }

    /// Writes bytes at an offset of the section. Pieces must not overlap. Cheapest when they come in about ascending order without gaps:
    /// then each is hashed while it is hot, and they reach the file in large blocks.
    ///
    /// # Errors
    /// [`WriteError::NoSpace`], [`WriteError::Io`]; [`WriteError::Misuse`] if the piece leaves the section or overlaps.
    pub fn write_at(&self, offset: u64, bytes: Vec<u8>) -> Result<(), WriteError> {
        self.joiner.take(self.place(), offset, bytes).map_err(|e| self.explain(e))
    }

    /// Says that everything before `offset` was written; what was not is zero. To be called where a gap is meant.
    ///
    /// # Errors
    /// As [`SizedSection::write_at`].
    pub fn fill_to(&self, offset: u64) -> Result<(), WriteError> {
        self.joiner.fill_to(self.place(), offset).map_err(|e| self.explain(e))
    }

    /// Ends the section.
    ///
    /// # Errors
    /// As [`SizedSection::write_at`].
    pub fn finish(self) -> Result<(), WriteError> {
        let hash = self.joiner.finish(self.place()).map_err(|e| self.explain(e))?;
        self.writer.end(self.kind, self.offset, self.bytes, &hash);
        Ok(())
    }

    fn place(&self) -> Place<'_> {
        Place { file: self.writer.temp.file(), offset: self.offset, bytes: self.bytes, name: self.kind.name() }
    }

    fn explain(&self, failed: Failed) -> WriteError {
        match failed {
            Failed::Io(error) => self.writer.error("write", error),
            Failed::Misuse(error) => error,
        }
    }
}

/// Bytes that an ordinary user may still write on the file's disk.
fn free_bytes(file: &File) -> Option<u64> {
    // SAFETY: `statvfs` is a plain C structure of integers, for which zero is valid; the descriptor is open.
    let stat = unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        (libc::fstatvfs(file.as_raw_fd(), &mut stat) == 0).then_some(stat)
    }?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}
