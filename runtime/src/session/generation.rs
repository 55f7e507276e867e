//! One continuation of a prompt, as an iterator over pieces of text. Which prompt and which options is the session's matter; running a
//! step is the engine's.

use super::stats::{Stats, step_bytes};
use super::{GenerateOptions, SLOT, Session, SessionError};
use crate::batch::{SeqInput, Want};
use crate::detok::Detokenizer;
use crate::sampler::Sampler;
use crate::step::EngineError;
use crate::stop::StopStrings;
use std::time::Instant;

/// One generated token and the text that may be shown after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Whole characters, often none: a character may be split over tokens, and what may begin a stop string waits until that is decided.
    /// The last piece has everything that was held back. Special tokens have no text.
    pub text: String,
    /// The token that was chosen.
    pub token: u32,
}

/// Why a text ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The model ended it with this token.
    Eos(u32),
    /// This stop string was found.
    Stop(String),
    /// As many tokens as were asked for.
    MaxTokens,
    /// No token fits behind the last one.
    ContextFull,
}

/// A running continuation: an iterator over [`Piece`]s, one for each token. Each call of `next` runs one step. It may be dropped at any time.
#[derive(Debug)]
pub struct Generation<'s> {
    session: &'s mut Session,
    sampler: Sampler,
    stops: StopStrings,
    detok: Detokenizer,
    options: GenerateOptions,
    /// Tokens that the next step takes: first the prompt's new ones, then the last token.
    input: Vec<u32>,
    stats: Stats,
    end: Option<End>,
    /// A step was refused; it would be refused again.
    failed: bool,
}

impl<'s> Generation<'s> {
    pub(super) fn new(session: &'s mut Session, prompt: Vec<u32>, options: &GenerateOptions) -> Result<Generation<'s>, SessionError> {
        let sampling = options.sampling.clone().unwrap_or_else(|| session.default_sampling());
        if let Some((name, found, expected)) = sampling.problem() {
            return Err(SessionError::BadSampling { name, found, expected });
        }
        let (vocab, max) = (session.engine.artifact().meta().model.vocab, session.engine.kv().max_context());
        if prompt.is_empty() {
            return Err(SessionError::NoPrompt);
        }
        if prompt.len() > max {
            return Err(SessionError::PromptTooLong { tokens: prompt.len(), max });
        }
        if let Some(&token) = prompt.iter().find(|t| **t as usize >= vocab) {
            return Err(EngineError::BadToken { token, vocab }.into());
        }
        let mut sampler = Sampler::new(&sampling);
        sampler.observe_prompt(&prompt);
        let common = prompt.iter().zip(&session.cached).take_while(|(a, b)| a == b).count();
        // The last token is always run: its logits are not kept.
        let reused = session.keep(common.min(prompt.len() - 1));
        let end = (options.max_tokens == Some(0)).then_some(End::MaxTokens);
        Ok(Generation {
            session,
            sampler,
            stops: StopStrings::new(&options.stop),
            detok: Detokenizer::default(),
            options: options.clone(),
            input: prompt[reused..].to_vec(),
            stats: Stats { prompt_tokens: prompt.len(), reused_tokens: reused, ..Stats::default() },
            end,
            failed: false,
        })
    }

    /// Why the text ended; `None` while it goes on.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// What it cost so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Runs to the end; returns the text that was not taken yet.
    ///
    /// # Errors
    /// As the iterator's items.
    pub fn into_text(mut self) -> Result<String, SessionError> {
        let mut text = String::new();
        for piece in &mut self {
            text.push_str(&piece?.text);
        }
        Ok(text)
    }

    fn advance(&mut self) -> Result<Piece, SessionError> {
        let start = Instant::now();
        let session = &mut *self.session;
        let logits = session.engine.step(&[SeqInput { slot: SLOT, tokens: &self.input, logits: Want::Last }])?;
        let token = self.sampler.choose(logits.last().unwrap_or_default());
        self.sampler.accept(token);
        session.cached.append(&mut self.input);
        self.input.push(token);
        self.stats.generated_tokens += 1;
        let text = self.show(token);
        if self.stats.generated_tokens == 1 {
            self.stats.prefill = start.elapsed();
        } else {
            self.stats.decode += start.elapsed();
            self.stats.decode_steps += 1;
            self.stats.decode_bytes += step_bytes(&self.session.engine.artifact().meta().plan, self.session.cached.len());
        }
        Ok(Piece { text, token })
    }

    /// What may be shown after a token; sets the end if it is one.
    fn show(&mut self, token: u32) -> String {
        let session = &*self.session;
        let eos = session.engine.artifact().meta().generation.eos.contains(&token);
        let bytes: &[u8] = if session.tokenizer.is_special(token) || eos { &[] } else { session.tokenizer.token_bytes(token) };
        let mut text = self.detok.push(bytes);
        self.end = if eos && !self.options.ignore_eos {
            Some(End::Eos(token))
        } else if self.options.max_tokens.is_some_and(|most| self.stats.generated_tokens >= most) {
            Some(End::MaxTokens)
        } else if session.cached.len() >= session.engine.kv().max_context() {
            Some(End::ContextFull)
        } else {
            None
        };
        if self.end.is_some() {
            text.push_str(&self.detok.flush());
        }
        let mut shown = self.stops.push(&text);
        if let Some(stop) = shown.stop {
            self.end = Some(End::Stop(self.options.stop[stop].clone()));
        } else if self.end.is_some() {
            shown.text.push_str(&self.stops.flush());
        }
        shown.text
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Piece, SessionError>;

    fn next(&mut self) -> Option<Result<Piece, SessionError>> {
        if self.failed || self.end.is_some() {
            return None;
        }
        let piece = self.advance();
        self.failed = piece.is_err();
        Some(piece)
    }
}
