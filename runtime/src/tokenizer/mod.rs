//! The tokenizer of an artifact: byte-level BPE read in place from a mapped table, so that opening costs nothing. How the table is made
//! from `tokenizer.json` is in the compiler; text held back while a character is incomplete is in `detok`.

mod added;
mod bpe;
pub mod build;
mod classes;
mod scan;
mod split;
mod table;

use crate::artifact::Artifact;
use crate::artifact::layout::SectionKind;
use bpe::Bpe;
use split::Split;
use std::fmt;
use std::sync::Arc;
use table::{Layout, Table};

/// Why a tokenizer table cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenizerError {
    /// The bytes are no table of this version.
    NotATable,
    /// A part of the table that does not fit the others.
    Damaged {
        /// Which part.
        part: &'static str,
    },
    /// The split expression does not compile.
    Expression {
        /// What the expression engine says.
        detail: String,
    },
}

impl fmt::Display for TokenizerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenizerError::NotATable => write!(f, "not a tokenizer table of this version"),
            TokenizerError::Damaged { part } => write!(f, "the tokenizer table is damaged in its {part}"),
            TokenizerError::Expression { detail } => write!(f, "the split expression of the tokenizer does not compile: {detail}"),
        }
    }
}

impl std::error::Error for TokenizerError {}

/// How to encode a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Whether the text of a special token (`<|eot_id|>`) becomes that token. Off: it is text like any other.
    pub parse_special: bool,
    /// Whether the begin-of-sequence token, if there is one, is put in front.
    pub add_bos: bool,
}

/// A tokenizer over the bytes of a table. Cloning is cheap.
#[derive(Clone)]
pub struct Tokenizer {
    bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    layout: Layout,
    split: Arc<Split>,
    /// First bytes of added tokens: all others are passed over without a look-up.
    starts: Arc<added::Starts>,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokenizer({} tokens)", self.vocab_len())
    }
}

/// The tokenizer section of an artifact, kept mapped.
struct Section(Artifact);

impl AsRef<[u8]> for Section {
    fn as_ref(&self) -> &[u8] {
        self.0.section(SectionKind::Tokenizer).unwrap_or_default()
    }
}

impl Tokenizer {
    /// A tokenizer over a table. Checks the header and that every part lies inside; a damaged part that lies inside gives wrong tokens,
    /// never a panic. The split expression is compiled only if it is none of the well-known ones.
    ///
    /// # Errors
    /// See [`TokenizerError`].
    pub fn from_bytes(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Tokenizer, TokenizerError> {
        let layout = Layout::parse(bytes.as_ref())?;
        let table = Table::new(bytes.as_ref(), &layout).ok_or(TokenizerError::NotATable)?;
        let split = Arc::new(Split::of(table.expression()?)?);
        let starts = Arc::new(added::Starts::of(&table));
        Ok(Tokenizer { bytes: Arc::new(bytes), layout, split, starts })
    }

    /// The tokenizer of an artifact, read in place; `None` if the artifact has none.
    ///
    /// # Errors
    /// See [`TokenizerError`].
    pub fn of_artifact(artifact: &Artifact) -> Result<Option<Tokenizer>, TokenizerError> {
        match artifact.section(SectionKind::Tokenizer) {
            Some(_) => Tokenizer::from_bytes(Section(artifact.clone())).map(Some),
            None => Ok(None),
        }
    }

    fn table(&self) -> Table<'_> {
        // The layout was taken from these bytes; an owner whose bytes shrink gets an empty table.
        Table::new((*self.bytes).as_ref(), &self.layout).unwrap_or_default()
    }

    /// Tokens of a text. Every text has an encoding.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Vec<u32> {
        let table = self.table();
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        if options.add_bos {
            ids.extend(self.bos());
        }
        let mut bpe = Bpe::new(&table);
        added::split(&table, &self.starts, text, options.parse_special, &mut |part| match part {
            added::Part::Token(id) => ids.push(id),
            added::Part::Text(text) => self.split.pieces(text, &table, |piece| bpe.encode(piece.as_bytes(), &mut ids)),
        });
        ids
    }

    /// The bytes that a token stands for, which may be part of a character; nothing for an id that is not in the vocabulary.
    /// A special token gives its text.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.table().token(id)
    }

    /// Text of tokens. What is not UTF-8 becomes U+FFFD; `skip_special` leaves special tokens out.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let table = self.table();
        let shown = ids.iter().filter(|&&id| !(skip_special && table.flags(id) & table::SPECIAL != 0));
        let bytes: Vec<u8> = shown.flat_map(|&id| table.token(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether a token is special: a mark of structure that no text is meant to contain.
    pub fn is_special(&self, id: u32) -> bool {
        self.table().flags(id) & table::SPECIAL != 0
    }

    /// One more than the highest id.
    pub fn vocab_len(&self) -> usize {
        self.layout.tokens
    }

    /// The token that stands for exactly these characters, special ones included.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        let table = self.table();
        added::exact(&table, text.as_bytes()).or_else(|| table.find_token(text.as_bytes()))
    }

    /// The begin-of-sequence token that the checkpoint's tokenizer puts in front of a text.
    pub fn bos(&self) -> Option<u32> {
        self.layout.bos
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
