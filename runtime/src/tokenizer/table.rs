//! The layout of a tokenizer table and look-ups in it. Nothing is copied out of the bytes; every access is checked, so that no bytes
//! can make it panic. Writing it is in `build`.

use super::TokenizerError;

/// First bytes; the last one is the version.
pub(super) const MAGIC: [u8; 8] = *b"llxtok\0\x01";
/// Where the list of parts begins.
pub(super) const HEADER: usize = 24;
/// Stands for "no token".
pub(super) const NONE: u32 = u32::MAX;
/// The table says `ignore_merges`: a piece that is a token is that token, whatever the merges would make of it.
pub(super) const IGNORE_MERGES: u32 = 1;

/// Flag of a token: has a meaning as a mark, not as text.
pub(super) const SPECIAL: u8 = 1;

/// The parts of a table, in order. Each is `offset: u64, bytes: u64` in the header and starts at a multiple of 8.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// `u32 [tokens + 1]`: where the bytes of token i begin and end.
    Offsets,
    /// The bytes of all tokens.
    Bytes,
    /// `u8 [tokens]`: [`SPECIAL`].
    Flags,
    /// `u32 [256]`: the token of each byte, or [`NONE`].
    ByteTokens,
    /// `u32 [2^k + 1]`: where bucket i of the vocabulary begins and ends.
    VocabBuckets,
    /// `u32`: tokens that text can become, by bucket of the hash of their bytes.
    VocabEntries,
    /// `u32 [2^k + 1]`: where bucket i of the merges begins and ends.
    MergeBuckets,
    /// `u32 [4]`: left, right, rank, merged token; by bucket of the hash of left and right.
    MergeEntries,
    /// `u32`: added tokens that are looked for first, sorted by bytes.
    AddedFirst,
    /// `u32`: added tokens that are looked for in what is left, sorted by bytes.
    AddedThen,
    /// `u16`: for each 128 characters, which block of classes.
    ClassIndex,
    /// `u8 [128]`: classes of characters.
    ClassBlocks,
    /// The split expression.
    Expression,
}

/// Number of [`Part`]s.
pub(super) const PARTS: usize = Part::Expression as usize + 1;

/// Where the parts are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) tokens: usize,
    pub(super) bos: Option<u32>,
    ignore_merges: bool,
    parts: [(usize, usize); PARTS],
}

impl Layout {
    /// Reads the header and checks that each part lies inside `bytes` and has the size that the others imply.
    pub(super) fn parse(bytes: &[u8]) -> Result<Layout, TokenizerError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(TokenizerError::NotATable);
        }
        let word =
            |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes).ok_or(TokenizerError::NotATable);
        let long = |at: usize| Ok::<_, TokenizerError>((u64::from(word(at + 4)?) << 32) | u64::from(word(at)?));
        let (tokens, bos, flags) = (word(8)? as usize, word(12)?, word(16)?);
        let mut parts = [(0, 0); PARTS];
        for (i, part) in parts.iter_mut().enumerate() {
            let (start, length) = (long(HEADER + 16 * i)?, long(HEADER + 16 * i + 8)?);
            let end = start
                .checked_add(length)
                .filter(|&end| end <= bytes.len() as u64)
                .ok_or(TokenizerError::Damaged { part: "list of parts" })?;
            *part = (start as usize, end as usize);
        }
        let layout = Layout { tokens, bos: (bos != NONE).then_some(bos), ignore_merges: flags & IGNORE_MERGES != 0, parts };
        let count = |part: Part, size: usize| {
            let (start, end) = layout.parts[part as usize];
            (end - start) / size
        };
        let buckets = |part| count(part, 4).checked_sub(1).is_some_and(usize::is_power_of_two);
        let rules = [
            (count(Part::Offsets, 4) == tokens + 1 && count(Part::Flags, 1) == tokens, "tokens"),
            (count(Part::ByteTokens, 4) == 256, "byte tokens"),
            (buckets(Part::VocabBuckets), "vocabulary"),
            (buckets(Part::MergeBuckets), "merges"),
        ];
        match rules.iter().find(|(right, _)| !right) {
            Some(&(_, part)) => Err(TokenizerError::Damaged { part }),
            None => Ok(layout),
        }
    }
}

type Words<'a> = &'a [[u8; 4]];

fn word(words: Words<'_>, i: usize) -> Option<u32> {
    words.get(i).map(|b| u32::from_le_bytes(*b))
}

/// A table, ready for look-ups.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Table<'a> {
    offsets: Words<'a>,
    bytes: &'a [u8],
    flags: &'a [u8],
    byte_tokens: Words<'a>,
    vocab_buckets: Words<'a>,
    vocab_entries: Words<'a>,
    merge_buckets: Words<'a>,
    merge_entries: &'a [[u8; 16]],
    pub(super) added_first: Words<'a>,
    pub(super) added_then: Words<'a>,
    class_index: &'a [[u8; 2]],
    class_blocks: &'a [u8],
    expression: &'a [u8],
    pub(super) ignore_merges: bool,
}

impl<'a> Table<'a> {
    /// The table in `bytes`; `None` if a part of the layout lies outside.
    pub(super) fn new(bytes: &'a [u8], layout: &Layout) -> Option<Table<'a>> {
        let part = |part: Part| {
            let (start, end) = layout.parts[part as usize];
            bytes.get(start..end)
        };
        let words = |p: Part| part(p).map(|b| b.as_chunks::<4>().0);
        Some(Table {
            offsets: words(Part::Offsets)?,
            bytes: part(Part::Bytes)?,
            flags: part(Part::Flags)?,
            byte_tokens: words(Part::ByteTokens)?,
            vocab_buckets: words(Part::VocabBuckets)?,
            vocab_entries: words(Part::VocabEntries)?,
            merge_buckets: words(Part::MergeBuckets)?,
            merge_entries: part(Part::MergeEntries)?.as_chunks::<16>().0,
            added_first: words(Part::AddedFirst)?,
            added_then: words(Part::AddedThen)?,
            class_index: part(Part::ClassIndex)?.as_chunks::<2>().0,
            class_blocks: part(Part::ClassBlocks)?,
            expression: part(Part::Expression)?,
            ignore_merges: layout.ignore_merges,
        })
    }

    /// The split expression.
    pub(super) fn expression(&self) -> Result<&'a str, TokenizerError> {
        std::str::from_utf8(self.expression).map_err(|_| TokenizerError::Damaged { part: "split expression" })
    }

    /// Bytes of a token; none if there is no such token.
    pub(super) fn token(&self, id: u32) -> &'a [u8] {
        let i = id as usize;
        let ends = word(self.offsets, i).zip(word(self.offsets, i.saturating_add(1)));
        ends.and_then(|(start, end)| self.bytes.get(start as usize..end as usize)).unwrap_or_default()
    }

    /// Flags of a token; none if there is no such token.
    pub(super) fn flags(&self, id: u32) -> u8 {
        self.flags.get(id as usize).copied().unwrap_or(0)
    }

    /// The token of a single byte.
    pub(super) fn byte_token(&self, byte: u8) -> Option<u32> {
        word(self.byte_tokens, byte.into()).filter(|&id| id != NONE)
    }

    /// The token that text of these bytes is.
    pub(super) fn find_token(&self, bytes: &[u8]) -> Option<u32> {
        let (start, end) = bucket(self.vocab_buckets, hash_bytes(bytes))?;
        let entries = self.vocab_entries.get(start..end)?;
        entries.iter().map(|b| u32::from_le_bytes(*b)).find(|&id| self.token(id) == bytes)
    }

    /// Rank and token of the merge of two tokens.
    pub(super) fn merge(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        let (start, end) = bucket(self.merge_buckets, hash_pair(left, right))?;
        let key = pair(left, right).to_le_bytes();
        let entry = self.merge_entries.get(start..end)?.iter().find(|e| e[..8] == key)?;
        let (words, _) = entry.as_chunks::<4>();
        Some((word(words, 2)?, word(words, 3)?))
    }

    /// Classes of a character (see `classes`).
    pub(super) fn classes(&self, c: char) -> u8 {
        let c = c as usize;
        let block = self.class_index.get(c >> 7).map_or(0, |b| usize::from(u16::from_le_bytes(*b)));
        self.class_blocks.get((block << 7) | (c & 127)).copied().unwrap_or(0)
    }
}

/// Key of a pair, as it stands in an entry (read as one little-endian word).
pub(super) fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) | (u64::from(right) << 32)
}

fn bucket(buckets: Words<'_>, hash: u64) -> Option<(usize, usize)> {
    let i = hash as usize & buckets.len().checked_sub(2)?;
    Some((word(buckets, i)? as usize, word(buckets, i + 1)? as usize))
}

/// Odd, with bits well spread: 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hash of a pair of tokens. Part of the format.
pub(super) fn hash_pair(left: u32, right: u32) -> u64 {
    let h = pair(left, right).wrapping_mul(SPREAD);
    (h ^ (h >> 32)).wrapping_mul(SPREAD) >> 24
}

/// Hash of the bytes of a token. Part of the format.
pub(super) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut h = bytes.len() as u64;
    let mut mix = |word: u64| {
        h = (h ^ word).wrapping_mul(SPREAD);
        h ^= h >> 29;
    };
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().for_each(|w| mix(u64::from_le_bytes(*w)));
    mix(rest.iter().rev().fold(0, |word, &byte| (word << 8) | u64::from(byte)));
    h.wrapping_mul(SPREAD) >> 24
}
