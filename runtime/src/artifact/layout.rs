//! Where the bytes of an artifact are: magic, header, section table. Encoding and decoding of these only; contents are in `reader` and
//! `writer`.
//!
//! ```text
//!   0  magic "LLAMAC\0\1"          8 bytes
//!   8  endianness word 0x01020304  u32, as the machine that wrote it would
//!  12  format version              u32
//!  16  bytes of the whole file     u64
//!  24  number of sections          u32
//!  28  0                           u32
//!  32  blake3 of bytes 0..32 and of the section table
//!  64  section table: per section kind u32, flags u32, offset u64, bytes u64, 0 u64, blake3 of the section
//! ```
//! The first section starts at 64 KiB. All numbers are little-endian. Nothing depends on time or place: same input, same bytes.

use super::error::ArtifactError;

/// First bytes of every artifact.
pub const MAGIC: [u8; 8] = *b"LLAMAC\0\x01";
/// Reads differently on a machine of the other endianness.
pub const ENDIAN: u32 = 0x0102_0304;
/// Version of this layout. Older versions stay readable.
pub const FORMAT_VERSION: u32 = 1;
/// Where the version stands in the header.
pub const VERSION_OFFSET: usize = 12;
/// Bytes before the section table.
pub const HEADER_BYTES: usize = 64;
/// Bytes of a line of the section table.
pub const ENTRY_BYTES: usize = 64;
/// More sections than this are refused.
pub const MAX_SECTIONS: usize = 64;
/// Alignment of sections, for every page size that CPUs have.
pub const SECTION_ALIGN: u64 = 64 << 10;
/// Alignment of the weight section: a huge page.
pub const WEIGHTS_ALIGN: u64 = 2 << 20;
/// Flag of a section without which the artifact must not be used: a reader that does not know such a section refuses the file.
pub const FLAG_REQUIRED: u32 = 1;

/// What a section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum SectionKind {
    /// [`super::meta::Meta`] as JSON.
    Meta = 1,
    /// Position-independent machine code.
    Code = 2,
    /// Packed weights.
    Weights = 3,
    /// Tokenizer tables.
    Tokenizer = 4,
    /// Chat template, as JSON.
    Template = 5,
    /// Check vectors ([`super::check::CheckVectors`]).
    Check = 6,
    /// The optimised module as text.
    Ir = 7,
    /// A graph as it was given, in ONNX's own format. An artifact that has it has [`SectionKind::GraphData`] perhaps and no other section: there
    /// is no code to run.
    Graph = 8,
    /// Data of the graph's tensors that stood in files beside it.
    GraphData = 9,
}

impl SectionKind {
    /// Every kind that this version knows.
    pub const ALL: [SectionKind; 9] = [
        SectionKind::Meta,
        SectionKind::Code,
        SectionKind::Weights,
        SectionKind::Tokenizer,
        SectionKind::Template,
        SectionKind::Check,
        SectionKind::Ir,
        SectionKind::Graph,
        SectionKind::GraphData,
    ];

    /// Name for people.
    pub const fn name(self) -> &'static str {
        match self {
            SectionKind::Meta => "meta",
            SectionKind::Code => "code",
            SectionKind::Weights => "weights",
            SectionKind::Tokenizer => "tokenizer",
            SectionKind::Template => "template",
            SectionKind::Check => "check",
            SectionKind::Ir => "ir",
            SectionKind::Graph => "graph",
            SectionKind::GraphData => "graph-data",
        }
    }

    /// Kind by its number in the section table.
    pub fn from_u32(kind: u32) -> Option<SectionKind> {
        SectionKind::ALL.into_iter().find(|k| *k as u32 == kind)
    }

    /// Alignment of the section's offset in the file.
    pub const fn align(self) -> u64 {
        match self {
            SectionKind::Weights => WEIGHTS_ALIGN,
            _ => SECTION_ALIGN,
        }
    }
}

/// A line of the section table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SectionEntry {
    /// [`SectionKind`] as a number; a number that is not known is kept and ignored.
    pub kind: u32,
    /// [`FLAG_REQUIRED`] or 0.
    pub flags: u32,
    /// First byte in the file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// blake3 of the section.
    pub hash: [u8; 32],
}

impl SectionEntry {
    /// Name of the section for people, also of a kind that is not known.
    pub fn name(&self) -> String {
        SectionKind::from_u32(self.kind).map_or_else(|| format!("section kind {}", self.kind), |k| k.name().to_owned())
    }
}

/// The header and section table of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Sections in the order of the table.
    pub sections: Vec<SectionEntry>,
    /// Bytes of the whole file.
    pub file_bytes: u64,
}

impl Layout {
    /// The entry of a kind.
    pub fn find(&self, kind: SectionKind) -> Option<&SectionEntry> {
        self.sections.iter().find(|s| s.kind == kind as u32)
    }

    /// Header and table as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut table = Vec::with_capacity(self.sections.len() * ENTRY_BYTES);
        for s in &self.sections {
            table.extend(s.kind.to_le_bytes());
            table.extend(s.flags.to_le_bytes());
            table.extend(s.offset.to_le_bytes());
            table.extend(s.bytes.to_le_bytes());
            table.extend(0u64.to_le_bytes());
            table.extend(s.hash);
        }
        let mut out = Vec::with_capacity(HEADER_BYTES + table.len());
        out.extend(MAGIC);
        out.extend(ENDIAN.to_le_bytes());
        out.extend(FORMAT_VERSION.to_le_bytes());
        out.extend(self.file_bytes.to_le_bytes());
        out.extend((self.sections.len() as u32).to_le_bytes());
        out.extend(0u32.to_le_bytes());
        let hash = blake3::Hasher::new().update(&out).update(&table).finalize();
        out.extend(hash.as_bytes());
        out.extend(table);
        out
    }

    /// Reads and checks header and table of a file: every offset lies in the file, aligned, without overlap. Never panics.
    ///
    /// # Errors
    /// Everything but kernel, target and I/O errors.
    pub fn decode(file: &[u8]) -> Result<Layout, ArtifactError> {
        let found = file.len() as u64;
        let Some(header) = file.first_chunk::<HEADER_BYTES>() else {
            return Err(match file.first_chunk::<8>() {
                Some(magic) if *magic == MAGIC => ArtifactError::Truncated { found, expected: HEADER_BYTES as u64 },
                _ => ArtifactError::NotAnArtifact { found: file.iter().copied().take(8).collect() },
            });
        };
        if header[..8] != MAGIC {
            return Err(ArtifactError::NotAnArtifact { found: header[..8].to_vec() });
        }
        let endian = u32_at(header, 8);
        if endian == ENDIAN.swap_bytes() {
            return Err(ArtifactError::ForeignEndian);
        }
        let version = u32_at(header, VERSION_OFFSET);
        if version > FORMAT_VERSION && endian == ENDIAN {
            return Err(ArtifactError::NewerVersion { what: "format", found: version, supported: FORMAT_VERSION });
        }
        let n = u32_at(header, 24) as usize;
        if n > MAX_SECTIONS {
            return Err(corrupt("header", format!("{n} sections, at most {MAX_SECTIONS} are possible")));
        }
        let table_end = HEADER_BYTES + n * ENTRY_BYTES;
        let Some(table) = file.get(HEADER_BYTES..table_end) else {
            return Err(ArtifactError::Truncated { found, expected: table_end as u64 });
        };
        let hash = blake3::Hasher::new().update(&header[..32]).update(table).finalize();
        if hash.as_bytes()[..] != header[32..64] {
            return Err(corrupt("header", "its hash does not match".to_owned()));
        }
        if endian != ENDIAN || version == 0 {
            return Err(corrupt("header", format!("endianness word {endian:#x}, version {version}")));
        }
        let file_bytes = u64_at(header, 16);
        if found < file_bytes {
            return Err(ArtifactError::Truncated { found, expected: file_bytes });
        }
        if found > file_bytes {
            return Err(corrupt("header", format!("the file has {} bytes behind its end", found - file_bytes)));
        }
        let sections: Vec<SectionEntry> = table.chunks_exact(ENTRY_BYTES).map(decode_entry).collect();
        let layout = Layout { sections, file_bytes };
        layout.check()?;
        Ok(layout)
    }

    fn check(&self) -> Result<(), ArtifactError> {
        let mut sorted: Vec<&SectionEntry> = self.sections.iter().collect();
        sorted.sort_by_key(|s| (s.offset, s.bytes));
        let mut end = SECTION_ALIGN;
        for s in sorted {
            let align = SectionKind::from_u32(s.kind).map_or(SECTION_ALIGN, SectionKind::align);
            if !s.offset.is_multiple_of(align) {
                return Err(corrupt(&s.name(), format!("offset {} is not a multiple of {align}", s.offset)));
            }
            if s.offset < end {
                return Err(corrupt(&s.name(), format!("offset {} lies before {end}, the end of what precedes it", s.offset)));
            }
            end = match s.offset.checked_add(s.bytes) {
                Some(e) if e <= self.file_bytes => e,
                _ => return Err(corrupt(&s.name(), format!("{} bytes at {} leave the file of {}", s.bytes, s.offset, self.file_bytes))),
            };
            if SectionKind::from_u32(s.kind).is_none() && s.flags & FLAG_REQUIRED != 0 {
                return Err(ArtifactError::NewerVersion { what: "section kind", found: s.kind, supported: SectionKind::Graph as u32 });
            }
            if self.sections.iter().filter(|o| o.kind == s.kind).count() > 1 {
                return Err(corrupt(&s.name(), "it is there twice".to_owned()));
            }
        }
        Ok(())
    }
}

fn decode_entry(e: &[u8]) -> SectionEntry {
    let mut hash = [0; 32];
    hash.copy_from_slice(&e[32..64]);
    SectionEntry { kind: u32_at(e, 0), flags: u32_at(e, 4), offset: u64_at(e, 8), bytes: u64_at(e, 16), hash }
}

fn corrupt(section: &str, detail: String) -> ArtifactError {
    ArtifactError::Corrupt { section: section.to_owned(), detail }
}

/// The caller has checked that `at + 4` lies inside.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The caller has checked that `at + 8` lies inside.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
