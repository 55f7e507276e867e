//! Text to standard output while it is generated. A reader that closes the pipe (`| head`) ends the run quietly.

use super::clock::Clock;
use super::{Failure, Quit, interrupt};
use crate::session::{End, Generation, SessionError, Stats};
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

/// What came of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) text: String,
    pub(super) stats: Stats,
    /// `None`: Ctrl-C.
    pub(super) end: Option<End>,
}

/// Prints a text as it comes, and ends it with a line end.
pub(super) fn stream(path: &Path, mut generation: Generation<'_>, out: &mut impl Write, clock: &mut Clock) -> Result<Outcome, Quit> {
    let failed = |e: SessionError| Quit::Failed(Failure::session(path, &e));
    let mut text = String::new();
    while !interrupt::stopped() {
        let Some(piece) = generation.next().transpose().map_err(failed)? else { break };
        clock.mark_at("first token", Instant::now());
        if !piece.text.is_empty() {
            write_all(out, &piece.text)?;
            text.push_str(&piece.text);
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        write_all(out, "\n")?;
    }
    Ok(Outcome { text, stats: generation.stats(), end: generation.end().cloned() })
}

fn write_all(out: &mut impl Write, text: &str) -> Result<(), Quit> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| match e.kind() {
        io::ErrorKind::BrokenPipe => Quit::ClosedPipe,
        _ => Quit::Failed(Failure::io("cannot write the text", "standard output", &e)),
    })
}
