//! The session: one conversation over one artifact. It turns text into tokens, runs them through the engine and streams text back; what
//! the cache holds already is not computed again. Many sequences at a time are the engine's ([`crate::step`]), not this module's.
//!
//! ```no_run
//! use llamac_runtime::{GenerateOptions, Session};
//!
//! let mut session = Session::open("llama.llx")?;
//! let options = GenerateOptions { max_tokens: Some(64), ..GenerateOptions::default() };
//! let mut generation = session.generate("Once upon a time", &options)?;
//! for piece in &mut generation {
//!     print!("{}", piece?.text);
//! }
//! println!("\n{:?}, {:.1} tokens/s", generation.end(), generation.stats().decode_rate());
//! # Ok::<(), llamac_runtime::SessionError>(())
//! ```

mod error;
mod generation;
mod options;
mod stats;

pub use error::SessionError;
pub use generation::{End, Generation, Piece};
pub use options::{GenerateOptions, Prompt, SessionOptions};
pub use stats::{Stats, step_bytes};

use crate::artifact::{Artifact, ArtifactError, OpenOptions, SectionKind};
use crate::sampler::Sampling;
use crate::step::Engine;
use crate::template::{RenderOptions, Template};
use crate::tokenizer::{EncodeOptions, Tokenizer};
use serde::Serialize;
use std::path::Path;

/// A conversation: an engine with one sequence, and the tokenizer and chat template of its artifact.
#[derive(Debug)]
pub struct Session {
    engine: Engine,
    tokenizer: Tokenizer,
    template: Option<Template>,
    /// Tokens whose keys and values are in the cache, by position.
    cached: Vec<u32>,
}

/// The engine's only sequence.
const SLOT: usize = 0;

impl Session {
    /// Opens an artifact and makes a session over it, with all options at their defaults.
    ///
    /// # Errors
    /// As [`Artifact::open`] and [`Session::new`].
    pub fn open(path: impl AsRef<Path>) -> Result<Session, SessionError> {
        Session::new(&Artifact::open(path, &OpenOptions::default())?, &SessionOptions::default())
    }

    /// A session over an open artifact. Maps code and weights, takes memory, starts threads; reads no weights.
    ///
    /// # Errors
    /// The artifact has no usable tokenizer, an option is beyond what it was compiled for, or the system refuses memory or threads.
    pub fn new(artifact: &Artifact, options: &SessionOptions) -> Result<Session, SessionError> {
        let tokenizer = tokenizer(artifact)?;
        Session::with_engine(Engine::new(artifact, &options.engine())?, tokenizer)
    }

    pub(crate) fn with_engine(engine: Engine, tokenizer: Tokenizer) -> Result<Session, SessionError> {
        let template = engine.artifact().section(SectionKind::Template).map(Template::from_bytes).transpose()?;
        Ok(Session { engine, tokenizer, template, cached: Vec::new() })
    }

    /// Continues a prompt. Nothing is computed before the first piece is asked for. Tokens at the beginning that an earlier call of this
    /// session had too are taken from the cache; the text is the same as without them.
    ///
    /// # Errors
    /// The prompt is empty, too long or has tokens that the model does not have, or a sampling setting means nothing.
    pub fn generate<'p>(&mut self, prompt: impl Into<Prompt<'p>>, options: &GenerateOptions) -> Result<Generation<'_>, SessionError> {
        let tokens = match prompt.into() {
            Prompt::Tokens(tokens) => tokens.to_vec(),
            Prompt::Text(text) => self.encode(text),
        };
        Generation::new(self, tokens, options)
    }

    /// Answers the last message of a conversation, which the model's chat template turns into a prompt. Give the whole conversation each
    /// time: what is in the cache already is not computed again. A message is a [`crate::template::Message`], or anything that serializes to
    /// what the template expects.
    ///
    /// ```no_run
    /// # use llamac_runtime::{GenerateOptions, Message, Session};
    /// # let mut session = Session::open("llama.llx")?;
    /// let mut messages = vec![Message::new("user", "Name a river.")];
    /// let answer = session.chat(&messages, &GenerateOptions::default())?.into_text()?;
    /// messages.push(Message::new("assistant", &answer));
    /// messages.push(Message::new("user", "And another?"));
    /// let answer = session.chat(&messages, &GenerateOptions::default())?.into_text()?;
    /// # Ok::<(), llamac_runtime::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// The model has no chat template, or it refuses the conversation; else as [`Session::generate`].
    pub fn chat<M: Serialize>(&mut self, messages: &[M], options: &GenerateOptions) -> Result<Generation<'_>, SessionError> {
        let template = self.template.as_ref().ok_or(SessionError::NoTemplate)?;
        let text = template.render(messages, &RenderOptions { add_generation_prompt: true, ..RenderOptions::default() })?;
        // Where a begin-of-sequence token belongs is the template's matter.
        let tokens = self.tokenizer.encode(&text, EncodeOptions { parse_special: true, add_bos: false });
        Generation::new(self, tokens, options)
    }

    /// How the model's own settings ask for tokens to be chosen.
    pub fn default_sampling(&self) -> Sampling {
        Sampling::from_meta(&self.engine.artifact().meta().generation)
    }

    /// The model's chat template, for conversations with tools or with variables of their own; `None`: [`Session::chat`] is not possible.
    pub fn template(&self) -> Option<&Template> {
        self.template.as_ref()
    }

    /// The artifact's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The engine: threads, cache, artifact.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Tokens in the cache, by position: prompts and answers so far.
    pub fn cached(&self) -> &[u32] {
        &self.cached
    }

    /// Forgets everything that is in the cache.
    pub fn clear(&mut self) {
        self.keep(0);
    }

    /// Forgets the cached tokens from position `length` on, or from an earlier one if the cache cannot go back just there; returns how
    /// many are left.
    fn keep(&mut self, length: usize) -> usize {
        let kept = self.engine.truncate(SLOT, length);
        self.cached.truncate(kept);
        kept
    }

    fn encode(&self, text: &str) -> Vec<u32> {
        let mut tokens = self.tokenizer.encode(text, EncodeOptions { parse_special: true, add_bos: false });
        if let Some(bos) = self.tokenizer.bos().filter(|bos| tokens.first() != Some(bos)) {
            tokens.insert(0, bos);
        }
        tokens
    }
}

/// The tokenizer of an artifact.
///
/// # Errors
/// There is none, or its bytes are damaged.
pub fn tokenizer(artifact: &Artifact) -> Result<Tokenizer, SessionError> {
    Tokenizer::of_artifact(artifact)?.ok_or_else(|| ArtifactError::Missing { section: SectionKind::Tokenizer.name() }.into())
}

#[cfg(test)]
mod tests;
