//! Running an artifact from a command line: plain continuation, one answer, interactive chat, and what is said about speed. `llamac run` and
//! `llamac-run` parse their own flags and share everything here.

mod chat;
mod clock;
mod failure;
mod interrupt;
mod options;
mod report;
mod stream;

pub use clock::Clock;
pub use failure::Failure;
pub use options::{DEFAULT_MAX_TOKENS, RunOptions, SamplingFlags, Source};

use crate::artifact::{Artifact, OpenOptions};
use crate::pages;
use crate::roof;
use crate::session::{self, Session, SessionError, Stats};
use crate::step::Engine;
use crate::template::Message;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

/// Why a run ends before its end.
enum Quit {
    /// Something to tell the user.
    Failed(Failure),
    /// Nobody reads the text any more.
    ClosedPipe,
}

/// Opens an artifact to be run.
///
/// # Errors
/// What is wrong with it.
pub fn open(path: &Path, clock: &mut Clock) -> Result<Artifact, Failure> {
    let artifact = Artifact::open(path, &OpenOptions::default()).map_err(|e| Failure::artifact(path, &e))?;
    clock.mark("artifact open");
    Ok(artifact)
}

/// Runs an open artifact: text to standard output, everything else to standard error. Returns when the text ends or nobody reads on.
///
/// # Errors
/// A message for the user.
pub fn run(artifact: &Artifact, options: &RunOptions, clock: &mut Clock) -> Result<(), Failure> {
    match try_run(artifact, options, clock) {
        Ok(()) | Err(Quit::ClosedPipe) => Ok(()),
        Err(Quit::Failed(failure)) => Err(failure),
    }
}

fn try_run(artifact: &Artifact, options: &RunOptions, clock: &mut Clock) -> Result<(), Quit> {
    let path = artifact.path();
    let failed = |e: SessionError| Quit::Failed(Failure::session(path, &e));
    let mut session = start(artifact, options, clock).map_err(failed)?;
    let out = &mut io::stdout();
    let (mode, system) = (mode(options, session.template().is_some()), options.system.as_deref());
    if session.template().is_none() && !matches!(mode, Mode::Continue(_)) {
        return Err(failed(SessionError::NoTemplate));
    }
    let stats = match mode {
        Mode::Talk => chat::talk(path, &mut session, options, &mut io::stdin().lock(), out, clock)?,
        Mode::Answer(source) => {
            let text = read(source)?;
            let mut messages: Vec<Message> = system.map(|s| Message::new("system", s)).into_iter().collect();
            messages.push(Message::new("user", text.trim()));
            say_end(&chat::answer(path, &mut session, &messages, options, out, clock)?, options)
        }
        Mode::Continue(source) => {
            let text = read(source)?;
            let generate = options.generate(&session.default_sampling(), 0);
            let generation = session.generate(&text, &generate).map_err(failed)?;
            say_end(&stream::stream(path, generation, out, clock)?, options)
        }
    };
    if let Some(at) = session.engine().first_step() {
        clock.mark_at("first prefill instruction", at);
    }
    finish(&session, &stats, options, clock);
    Ok(())
}

/// A session, with the times of its parts.
fn start(artifact: &Artifact, options: &RunOptions, clock: &mut Clock) -> Result<Session, SessionError> {
    let tokenizer = session::tokenizer(artifact)?;
    clock.mark("tokenizer");
    let engine = Engine::new(artifact, &options.session().engine())?;
    clock.mark("code, weights and threads");
    let session = Session::with_engine(engine, tokenizer)?;
    clock.mark("session ready");
    Ok(session)
}

/// What to do with which text.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mode<'o> {
    Talk,
    Answer(&'o Source),
    Continue(&'o Source),
}

/// Without a text: a person at a terminal gets a chat if the model has a template, a pipe is read.
fn mode(options: &RunOptions, has_template: bool) -> Mode<'_> {
    match &options.source {
        Some(source) if options.is_chat() => Mode::Answer(source),
        Some(source) => Mode::Continue(source),
        None if options.is_chat() || has_template && !options.raw && io::stdin().is_terminal() => Mode::Talk,
        None => Mode::Continue(&Source::Stdin),
    }
}

fn read(source: &Source) -> Result<String, Quit> {
    let (place, bytes) = match source {
        Source::Text(text) => return Ok(text.clone()),
        Source::File(path) => (path.display().to_string(), std::fs::read(path)),
        Source::Stdin => {
            let mut bytes = Vec::new();
            if io::stdin().is_terminal() {
                eprintln!("Type the text to continue, then Ctrl-D.");
            }
            ("standard input".to_owned(), io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes))
        }
    };
    let text = bytes.and_then(|b| String::from_utf8(b).map_err(io::Error::other));
    text.map_err(|e| Quit::Failed(Failure::io("cannot read the prompt", &place, &e)))
}

/// Says why a text ended, if that is worth a word; returns what it cost.
fn say_end(outcome: &stream::Outcome, options: &RunOptions) -> Stats {
    if let Some(why) = report::ended(outcome).filter(|_| !options.quiet) {
        eprintln!("[{why}]");
    }
    outcome.stats
}

/// The last lines. The roof costs a moment to measure: scripts do not wait for it.
fn finish(session: &Session, stats: &Stats, options: &RunOptions, clock: &Clock) {
    if options.timings {
        eprintln!("{}", report::start(clock));
        pages::mapped(session.engine().artifact().path()).iter().for_each(|p| eprintln!("{}", report::pages(*p)));
    }
    if stats.generated_tokens > 0 && (options.timings || !options.quiet) {
        let measure = stats.decode_steps > 0 && (options.timings || io::stderr().is_terminal());
        let roof = measure.then(|| roof::read_gbs(session.engine().threads(), roof::READ_BYTES) * 1e9);
        let _ = writeln!(io::stderr(), "[{}]", report::cost(stats, roof));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_continued_and_a_message_answered() {
        let source = Source::Text("x".into());
        let mut options = RunOptions { source: Some(source.clone()), ..RunOptions::default() };
        assert_eq!(mode(&options, true), Mode::Continue(&source));
        options.chat = true;
        assert_eq!(mode(&options, true), Mode::Answer(&source));
        options.source = None;
        assert_eq!(mode(&options, false), Mode::Talk);
        options.chat = false;
        assert_eq!(mode(&options, false), Mode::Continue(&Source::Stdin));
    }
}
