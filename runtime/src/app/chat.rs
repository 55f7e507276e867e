//! The interactive chat: reads lines, knows a few commands, keeps the conversation. Answers come from the session, whose cache holds what
//! was said already.

use super::clock::Clock;
use super::options::RunOptions;
use super::stream::{self, Outcome};
use super::{Failure, Quit, interrupt, report};
use crate::session::{Session, SessionError, Stats};
use crate::template::Message;
use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;

const HELP: &str = "\
Write a message and press Enter; a \\ at the end of a line goes on in the next one. Ctrl-C stops an answer.
  /clear           forget the conversation
  /system TEXT     forget the conversation and begin one with these instructions
  /help            this text
  /quit or Ctrl-D  leave";

/// What a line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Line<'l> {
    Message(&'l str),
    Clear,
    System(&'l str),
    Help,
    Quit,
    Nothing,
    Unknown(&'l str),
}

fn parse(line: &str) -> Line<'_> {
    let line = line.trim();
    let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    match command {
        "" => Line::Nothing,
        "/clear" => Line::Clear,
        "/system" => Line::System(rest.trim()),
        "/help" | "/?" => Line::Help,
        "/quit" | "/exit" | "/bye" => Line::Quit,
        // A path is a message too.
        word if word.starts_with('/') && !word[1..].contains('/') => Line::Unknown(word),
        _ => Line::Message(line),
    }
}

/// A chat's beginning.
fn beginning(system: Option<&str>) -> Vec<Message> {
    system.filter(|s| !s.is_empty()).map(|s| Message::new("system", s)).into_iter().collect()
}

/// One message, one answer.
pub(super) fn answer(
    path: &Path,
    session: &mut Session,
    messages: &[Message],
    options: &RunOptions,
    out: &mut impl Write,
    clock: &mut Clock,
) -> Result<Outcome, Quit> {
    let turn = messages.iter().filter(|m| m.role == "assistant").count();
    let generate = options.generate(&session.default_sampling(), turn as u64);
    let generation = session.chat(messages, &generate).map_err(|e| refused(path, &e))?;
    stream::stream(path, generation, out, clock)
}

fn refused(path: &Path, error: &SessionError) -> Quit {
    Quit::Failed(Failure::session(path, error))
}

/// The whole conversation; returns what all answers cost.
pub(super) fn talk(
    path: &Path,
    session: &mut Session,
    options: &RunOptions,
    input: &mut impl BufRead,
    out: &mut impl Write,
    clock: &mut Clock,
) -> Result<Stats, Quit> {
    let person = std::io::stdin().is_terminal() && !options.quiet;
    if person {
        eprintln!("{}. /help shows what you can type.", session.engine().artifact().meta().model.name);
    }
    interrupt::install();
    let mut system = options.system.clone();
    let mut messages = beginning(system.as_deref());
    let mut total = Stats::default();
    while let Some(line) = read(input, person)? {
        match parse(&line) {
            Line::Nothing => {}
            Line::Quit => break,
            Line::Help => eprintln!("{HELP}"),
            Line::Unknown(word) => eprintln!("{word} is no command; /help lists them"),
            Line::Clear => messages = beginning(system.as_deref()),
            Line::System(text) => {
                system = Some(text.to_owned());
                messages = beginning(system.as_deref());
            }
            Line::Message(text) => {
                messages.push(Message::new("user", text));
                interrupt::begin();
                let done = answer(path, session, &messages, options, out, clock);
                interrupt::end();
                match done {
                    Ok(outcome) => {
                        total += outcome.stats;
                        report::ended(&outcome).filter(|_| !options.quiet).iter().for_each(|why| eprintln!("[{why}]"));
                        messages.push(Message::new("assistant", &outcome.text));
                    }
                    // The conversation so far is still good; without this message it may go on.
                    Err(Quit::Failed(failure)) if person => {
                        eprintln!("{failure}\n  or type /clear to begin a new conversation");
                        messages.pop();
                    }
                    Err(quit) => return Err(quit),
                }
            }
        }
    }
    Ok(total)
}

/// A message of one or more lines; `None` at the end of the input.
fn read(input: &mut impl BufRead, person: bool) -> Result<Option<String>, Quit> {
    let mut text = String::new();
    let mut mark = "> ";
    loop {
        if person {
            eprint!("{mark}");
        }
        let from = text.len();
        let read = input.read_line(&mut text).map_err(|e| Quit::Failed(Failure::io("cannot read a message", "standard input", &e)))?;
        if read == 0 {
            return Ok((from > 0).then_some(text));
        }
        text.truncate(text.trim_end_matches(['\n', '\r']).len());
        if text.len() < from || !text.ends_with('\\') {
            return Ok(Some(text));
        }
        text.pop();
        text.push('\n');
        mark = "  ";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands_or_messages() {
        assert_eq!(parse("  /clear \n"), Line::Clear);
        assert_eq!(parse("/system be brief"), Line::System("be brief"));
        assert_eq!(parse("/usr/bin is what?"), Line::Message("/usr/bin is what?"));
        assert_eq!(parse("/frobnicate now"), Line::Unknown("/frobnicate"));
        assert_eq!((parse(" "), parse("/quit"), parse("hi")), (Line::Nothing, Line::Quit, Line::Message("hi")));
    }

    #[test]
    fn a_backslash_goes_on_in_the_next_line() {
        let mut input = "one\\\r\ntwo\n\nthree\\\n".as_bytes();
        let mut next = || read(&mut input, false).ok().flatten();
        assert_eq!([next(), next(), next(), next()], [Some("one\ntwo".into()), Some(String::new()), Some("three\n".into()), None]);
    }
}
