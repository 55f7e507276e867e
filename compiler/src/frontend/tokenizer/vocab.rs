//! Vocabulary, added tokens and merges: checked against each other and against the model, then as the table builder takes them.

use super::bad;
use super::byte_level;
use super::file::{AddedToken, File, Merge};
use super::unsupported;
use crate::diag::{Diag, Result, Warning};
use llamac_runtime::tokenizer::build::{Added, MergeSource, TokenSource};
use std::collections::BTreeMap;

/// Tokens by id, and by their text in the file.
pub(super) struct Vocabulary<'f> {
    pub(super) tokens: Vec<TokenSource>,
    ids: &'f BTreeMap<String, u64>,
}

impl<'f> Vocabulary<'f> {
    /// Every token of the file. `vocab` is the number of logits of the model.
    pub(super) fn of(file: &'f File, vocab: usize, warnings: &mut Vec<Warning>) -> Result<Vocabulary<'f>> {
        let ids = &file.model.vocab;
        let known = ids.values().copied().chain(file.added_tokens.iter().map(|t| t.id)).max();
        let mut words = Vocabulary { tokens: Vec::new(), ids };
        // Room for ids that will be refused would be room that a file can ask for.
        words.tokens.resize(known.map_or(0, |max| (max as usize).saturating_add(1).min(vocab)), TokenSource::default());
        let mut taken: BTreeMap<u64, &str> = BTreeMap::new();
        for (text, &id) in ids {
            let bytes = byte_level::bytes(text);
            let token = TokenSource { merged: bytes.is_some(), bytes: bytes.unwrap_or_else(|| text.clone().into_bytes()), added: None };
            *words.slot(id, text, vocab, "model.vocab")? = token;
            if let Some(other) = taken.insert(id, text) {
                return Err(twice(id, other, text).place("`model.vocab`"));
            }
        }
        for token in file.added_tokens.iter().filter(|t| !t.content.is_empty()) {
            words.add(token, vocab, &mut taken)?;
        }
        words.check_bytes()?;
        let missing = vocab - words.tokens.len();
        if words.tokens.len() < vocab && missing > MANY_MISSING.max(vocab / 8) {
            let diag = Diag::new("tokenizer", format!("the tokenizer has no token for {missing} of the model's {vocab} logits"));
            warnings.push(Warning(diag.place("tokenizer.json").help("check that model and tokenizer belong together")));
        }
        Ok(words)
    }

    fn slot(&mut self, id: u64, text: &str, vocab: usize, key: &str) -> Result<&mut TokenSource> {
        let found = format!("id {id} for {text:?}");
        let slot = usize::try_from(id).ok().and_then(|i| self.tokens.get_mut(i));
        slot.ok_or_else(|| {
            bad("the tokenizer disagrees with the vocabulary of the model")
                .place(format_args!("`{key}`"))
                .found(found)
                .expected(format_args!("ids below {vocab}, the `vocab_size` of the model"))
        })
    }

    fn add(&mut self, token: &'f AddedToken, vocab: usize, taken: &mut BTreeMap<u64, &'f str>) -> Result<()> {
        let place = "`added_tokens`";
        for (name, set) in [("single_word", token.single_word), ("lstrip", token.lstrip), ("rstrip", token.rstrip)] {
            if set {
                let what = format!("`{name}` of an added token is not supported");
                return Err(unsupported(what).place(place).found(format_args!("{name} for {:?}", token.content)).expected("false"));
            }
        }
        if let Some(&id) = self.ids.get(&token.content).filter(|&&id| id != token.id) {
            return Err(bad(format!("the token {:?} has two ids", token.content))
                .place(place)
                .found(format_args!("{id} in `model.vocab`, {} here", token.id)));
        }
        let slot = self.slot(token.id, &token.content, vocab, "added_tokens")?;
        // A token of the vocabulary may be an added one as well; then its bytes are those of its text.
        slot.bytes = token.content.clone().into_bytes();
        slot.added = Some(Added { special: token.special, normalized: token.normalized });
        match taken.insert(token.id, &token.content) {
            Some(other) if other != token.content => Err(twice(token.id, other, &token.content).place(place)),
            _ => Ok(()),
        }
    }

    /// Every byte that text can have must have a token: then every text has an encoding.
    fn check_bytes(&self) -> Result<()> {
        let mut known = [false; 256];
        for token in self.tokens.iter().filter(|t| t.merged) {
            if let [byte] = token.bytes.as_slice() {
                known[usize::from(*byte)] = true;
            }
        }
        // 0xc0, 0xc1 and 0xf5 to 0xff are never part of UTF-8.
        let missing = (0..=255u8).find(|&b| !known[usize::from(b)] && !matches!(b, 0xc0 | 0xc1 | 0xf5..));
        match missing {
            Some(byte) => {
                let what = "the vocabulary is not byte-level: a byte has no token";
                Err(unsupported(what)
                    .place("`model.vocab`")
                    .found(format_args!("no token for the byte {byte:#04x}"))
                    .expected("a token for each byte"))
            }
            None => Ok(()),
        }
    }

    /// The merges by ids, in order of rank.
    pub(super) fn merges(&self, merges: &[Merge]) -> Result<Vec<MergeSource>> {
        let comment = |m: &&Merge| !matches!(m, Merge::Text(text) if text.starts_with("#version"));
        merges.iter().filter(comment).enumerate().map(|(rank, merge)| self.merge(rank, merge)).collect()
    }

    fn merge(&self, rank: usize, merge: &Merge) -> Result<MergeSource> {
        let place = format!("`model.merges[{rank}]`");
        let (left, right) = merge.sides().ok_or_else(|| bad("a merge is not two tokens").place(&place).found(format!("{merge:?}")))?;
        let id = |text: &str| {
            let id = self.ids.get(text).and_then(|&id| u32::try_from(id).ok());
            id.ok_or_else(|| {
                bad("a merge names a token that is not in the vocabulary")
                    .place(&place)
                    .found(format!("{text:?} in the merge of {left:?} and {right:?}"))
            })
        };
        Ok([id(left)?, id(right)?, id(&format!("{left}{right}"))?])
    }
}

/// Fewer missing tokens than this are padding.
const MANY_MISSING: usize = 1024;

fn twice(id: u64, one: &str, other: &str) -> Diag {
    bad("two tokens have the same id").found(format!("{one:?} and {other:?} with id {id}")).expected("one token for each id")
}
