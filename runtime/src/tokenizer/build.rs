//! Writes a tokenizer table: what `table` reads. Reading `tokenizer.json` and telling the user what is wrong with it is the compiler's.

use super::table::{HEADER, IGNORE_MERGES, MAGIC, NONE, PARTS, SPECIAL, hash_bytes, hash_pair, pair};
use super::{TokenizerError, classes, split::Split};
use std::collections::BTreeMap;

/// One token.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenSource {
    /// The bytes it stands for.
    pub bytes: Vec<u8>,
    /// Whether text can become this token by merging, and single bytes by themselves.
    pub merged: bool,
    /// Whether it is cut out of texts before they are split.
    pub added: Option<Added>,
}

/// How a token is cut out of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Added {
    /// A mark of structure, left out of shown text.
    pub special: bool,
    /// Looked for only in what the others leave.
    pub normalized: bool,
}

/// A merge: left, right and merged token. Its rank is its place in the list.
pub type MergeSource = [u32; 3];

/// Everything that a table is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableSource {
    /// Tokens by id; ids without a token have no bytes.
    pub tokens: Vec<TokenSource>,
    /// Merges in order of rank. Of the same pair twice, the later counts.
    pub merges: Vec<MergeSource>,
    /// Whether a piece that is a token is that token, whatever the merges would make of it.
    pub ignore_merges: bool,
    /// Begin-of-sequence token.
    pub bos: Option<u32>,
    /// Split expression, in the syntax of the `fancy-regex` crate.
    pub expression: String,
}

/// Writes the table. Same source, same bytes.
///
/// # Errors
/// An expression that does not compile, or more than 4 GiB of tokens.
pub fn build(source: &TableSource) -> Result<Vec<u8>, TokenizerError> {
    Split::of(&source.expression)?;
    let tokens = &source.tokens;
    let total: usize = tokens.iter().map(|t| t.bytes.len()).sum();
    if u32::try_from(total).is_err() || u32::try_from(tokens.len()).is_err() {
        return Err(TokenizerError::Damaged { part: "tokens" });
    }
    let mut offsets = vec![0u32];
    let mut end = 0;
    offsets.extend(tokens.iter().map(|t| {
        end += t.bytes.len() as u32;
        end
    }));

    let merged: Vec<u32> = (0..).zip(tokens).filter(|(_, t)| t.merged && !t.bytes.is_empty()).map(|(id, _)| id).collect();
    let bytes_of = |id: u32| tokens[id as usize].bytes.as_slice();
    let byte_tokens: Vec<u32> = (0..=255u8).map(|b| merged.iter().copied().find(|&id| bytes_of(id) == [b]).unwrap_or(NONE)).collect();
    let (vocab_buckets, vocab) = buckets(merged, |&id| hash_bytes(bytes_of(id)));

    let ranks: BTreeMap<(u32, u32), (u32, u32)> =
        (0..).zip(&source.merges).map(|(rank, &[left, right, id])| ((left, right), (rank, id))).collect();
    let (merge_buckets, merges) = buckets(ranks.into_iter().collect(), |&((left, right), _)| hash_pair(left, right));
    let merges = merges.iter().flat_map(|&((left, right), (rank, id))| {
        let key = pair(left, right);
        [key as u32, (key >> 32) as u32, rank, id]
    });

    let added = |normalized: bool| {
        let wanted = |t: &TokenSource| !t.bytes.is_empty() && t.added.is_some_and(|a| a.normalized == normalized);
        let mut list: Vec<u32> = (0..).zip(tokens).filter(|(_, t)| wanted(t)).map(|(id, _)| id).collect();
        list.sort_by_key(|&id| bytes_of(id));
        words(list)
    };
    let special = |t: &TokenSource| if t.added.is_some_and(|a| a.special) { SPECIAL } else { 0 };
    let (class_index, class_blocks) = classes::table();

    let parts: [Vec<u8>; PARTS] = [
        words(offsets),
        tokens.iter().flat_map(|t| &t.bytes).copied().collect(),
        tokens.iter().map(special).collect(),
        words(byte_tokens),
        words(vocab_buckets),
        words(vocab),
        words(merge_buckets),
        words(merges),
        added(false),
        added(true),
        class_index.into_iter().flat_map(u16::to_le_bytes).collect(),
        class_blocks,
        source.expression.clone().into_bytes(),
    ];
    let flags = if source.ignore_merges { IGNORE_MERGES } else { 0 };
    let mut out = MAGIC.to_vec();
    out.extend(words([tokens.len() as u32, source.bos.unwrap_or(NONE), flags, PARTS as u32]));
    let mut start = HEADER + 16 * PARTS;
    for part in &parts {
        out.extend((start as u64).to_le_bytes());
        out.extend((part.len() as u64).to_le_bytes());
        start += part.len().next_multiple_of(8);
    }
    for part in &parts {
        out.extend(part);
        out.resize(out.len().next_multiple_of(8), 0);
    }
    Ok(out)
}

fn words(words: impl IntoIterator<Item = u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// Sorts entries into buckets by the low bits of their hash, about two to a bucket; order within a bucket stays. Returns where each
/// bucket begins, and the entries.
fn buckets<T>(mut entries: Vec<T>, hash: impl Fn(&T) -> u64) -> (Vec<u32>, Vec<T>) {
    let count = (entries.len() / 2).next_power_of_two();
    let bucket = |entry: &T| hash(entry) as usize & (count - 1);
    entries.sort_by_key(bucket);
    let mut begins = vec![0u32; count + 1];
    entries.iter().for_each(|entry| begins[bucket(entry) + 1] += 1);
    for i in 0..count {
        begins[i + 1] += begins[i];
    }
    (begins, entries)
}
