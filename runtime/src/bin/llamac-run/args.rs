//! The command line of `llamac-run`, parsed by hand: a parser crate would be a fifth of the program. The same flags as `llamac run`.

use llamac_runtime::app::{RunOptions, Source};
use llamac_runtime::memory::LoadMode;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    /// Run an artifact.
    Run {
        /// The artifact.
        artifact: PathBuf,
        /// How.
        options: Box<RunOptions>,
    },
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
}

/// The help text.
pub(crate) const HELP: &str = "\
Run a model that `llamac compile` wrote.

Usage: llamac-run FILE.llx [OPTIONS] [-]

Examples:
  llamac-run llama.llx -p \"Once upon a time\" -n 64         continue a text
  llamac-run llama.llx --chat                              talk, with the model's own chat template
  llamac-run llama.llx --chat -p \"Name a river.\"           one question, one answer
  llamac-run llama.llx --system \"Answer in verse.\"         talk, with instructions
  llamac-run llama.llx --temp 0 -f letter.txt > more.txt   the same text each time
  git diff | llamac-run llama.llx --chat -                 a message from a pipe

Text:
  -p, --prompt TEXT         continue this text
  -f, --file FILE           continue the text of this file (UTF-8)
  -                         continue what comes in on standard input
      --chat                the text is a message: put it into the model's chat template and answer it;
                            without a text: talk, until Ctrl-D
      --system TEXT         instructions before the first message; means --chat
      --raw                 never use the chat template, also when the text is typed
  -n, --max-tokens N        generate at most N tokens [default: 512; in a chat: as many as fit]
      --stop TEXT           end where this text comes up; may be given several times
      --ignore-eos          go on behind the model's end-of-text tokens

Choice of tokens (default: what the model's own settings say):
      --temp X              0: always the most probable token; 1: as the model says; above: wilder
      --top-k N             only the N most probable tokens; 0: all
      --top-p X             only the most probable tokens that have X of the probability together; 1: all
      --min-p X             only tokens with at least X times the highest probability; 0: all
      --repeat-penalty X    divide the scores of tokens that were there before; 1: off
      --frequency-penalty X subtract X for each time that a token was generated; 0: off
      --presence-penalty X  subtract X once for a token that was generated; 0: off
      --seed N              the same N gives the same text

Machine:
  -t, --threads N           threads [default: one for each core]; the text does not depend on it
      --load HOW            mmap: map the file, ready at once [default];
                            huge: copy the weights into huge pages first, faster afterwards on some systems;
                            auto: copy only where the file is mapped in small pages
      --timings             say how long the start took, and how near to the memory's limit decoding came
  -q, --quiet               print nothing but the text and errors
  -h, --help                this text
  -V, --version             the version

Text goes to standard output, everything else to standard error.
Exit codes: 0 fine, 1 it failed (the message says what to do), 2 the command line is wrong.
";

/// Parses the arguments behind the program's name.
///
/// # Errors
/// What is wrong, as a sentence without a full stop.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut args = Args { rest: args.into_iter(), attached: None };
    let (mut artifact, mut o) = (None, RunOptions::default());
    while let Some(arg) = args.next_flag()? {
        let flag = arg.to_string_lossy();
        match &*flag {
            "-h" | "--help" => return Ok(Command::Help),
            "-V" | "--version" => return Ok(Command::Version),
            "-p" | "--prompt" => source(&mut o, Source::Text(args.text(&flag)?))?,
            "-f" | "--file" => source(&mut o, Source::File(args.value(&flag)?.into()))?,
            "-" => source(&mut o, Source::Stdin)?,
            "--chat" => o.chat = true,
            "--system" => o.system = Some(args.text(&flag)?),
            "--raw" => o.raw = true,
            "-n" | "--max-tokens" => o.max_tokens = Some(args.number(&flag)?),
            "--stop" => o.stop.push(args.text(&flag)?),
            "--ignore-eos" => o.ignore_eos = true,
            "--temp" | "--temperature" => o.sampling.temperature = Some(args.number(&flag)?),
            "--top-k" => o.sampling.top_k = Some(args.number(&flag)?),
            "--top-p" => o.sampling.top_p = Some(args.number(&flag)?),
            "--min-p" => o.sampling.min_p = Some(args.number(&flag)?),
            "--repeat-penalty" | "--repetition-penalty" => o.sampling.repetition_penalty = Some(args.number(&flag)?),
            "--frequency-penalty" => o.sampling.frequency_penalty = Some(args.number(&flag)?),
            "--presence-penalty" => o.sampling.presence_penalty = Some(args.number(&flag)?),
            "--seed" => o.sampling.seed = Some(args.number(&flag)?),
            "-t" | "--threads" => o.threads = Some(args.number(&flag)?),
            "--load" => o.load = load(&args.text(&flag)?)?,
            "--timings" => o.timings = true,
            "-q" | "--quiet" => o.quiet = true,
            other if other.starts_with('-') => return Err(format!("there is no flag `{other}`")),
            other if artifact.is_some() => return Err(format!("`{other}` is one file too many; a text goes behind -p")),
            _ => artifact = Some(PathBuf::from(arg)),
        }
    }
    if o.raw && (o.chat || o.system.is_some()) {
        return Err("--raw and --chat (or --system) exclude each other".to_owned());
    }
    let artifact = artifact.ok_or("which artifact? Give a file that `llamac compile` wrote")?;
    Ok(Command::Run { artifact, options: Box::new(o) })
}

fn source(options: &mut RunOptions, source: Source) -> Result<(), String> {
    match options.source.replace(source) {
        None => Ok(()),
        Some(_) => Err("give one text: -p, -f or -".to_owned()),
    }
}

fn load(name: &str) -> Result<LoadMode, String> {
    match name {
        "mmap" => Ok(LoadMode::Mmap),
        "huge" => Ok(LoadMode::Huge),
        "auto" => Ok(LoadMode::Auto),
        _ => Err(format!("--load is `mmap`, `huge` or `auto`, not `{name}`")),
    }
}

/// Arguments, with `--flag=value` taken apart.
struct Args<I> {
    rest: I,
    /// What stood behind the `=` of the last flag and was not taken yet.
    attached: Option<OsString>,
}

impl<I: Iterator<Item = OsString>> Args<I> {
    fn next_flag(&mut self) -> Result<Option<OsString>, String> {
        if let Some(value) = &self.attached {
            return Err(format!("that flag takes no value, found `{}`", value.to_string_lossy()));
        }
        let Some(arg) = self.rest.next() else { return Ok(None) };
        match arg.to_str().filter(|a| a.starts_with("--")).and_then(|a| a.split_once('=')) {
            Some((flag, value)) => {
                self.attached = Some(value.into());
                Ok(Some(flag.into()))
            }
            None => Ok(Some(arg)),
        }
    }

    fn value(&mut self, flag: &str) -> Result<OsString, String> {
        self.attached.take().or_else(|| self.rest.next()).ok_or_else(|| format!("{flag} needs a value"))
    }

    fn text(&mut self, flag: &str) -> Result<String, String> {
        self.value(flag)?.into_string().map_err(|v| format!("the value of {flag} is not UTF-8: `{}`", v.to_string_lossy()))
    }

    fn number<T: FromStr>(&mut self, flag: &str) -> Result<T, String> {
        let text = self.text(flag)?;
        text.parse().map_err(|_| format!("{flag} needs a number, found `{text}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<(PathBuf, RunOptions), String> {
        match parse(args.iter().map(OsString::from))? {
            Command::Run { artifact, options } => Ok((artifact, *options)),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn every_flag_of_the_help_text_is_known() {
        let flags = HELP.lines().filter_map(|l| l.trim_start().strip_prefix('-').map(|_| l.trim_start()));
        let mut seen = 0;
        for line in flags {
            for word in line.split([' ', ',']).filter(|w| w.starts_with('-')).take(2) {
                let parsed = parse(["a.llx", word, "1"].map(OsString::from));
                let error = parsed.err().unwrap_or_default();
                assert!(!error.contains("no flag"), "{word}: {error}");
                seen += 1;
            }
        }
        assert!(seen > 25, "only {seen} flags found");
    }

    #[test]
    fn values_follow_or_stand_behind_an_equals_sign() {
        let (artifact, o) = run(&["a.llx", "-p", "x=y", "--temp=0.5", "-n", "7", "--stop", "A", "--stop=B=", "--seed", "9"]).expect("fine");
        assert_eq!((artifact, o.source), (PathBuf::from("a.llx"), Some(Source::Text("x=y".into()))));
        assert_eq!((o.sampling.temperature, o.max_tokens, o.sampling.seed), (Some(0.5), Some(7), Some(9)));
        assert_eq!(o.stop, ["A", "B="]);
    }

    #[test]
    fn a_prompt_may_look_like_a_flag_and_a_dash_means_standard_input() {
        assert_eq!(run(&["a.llx", "-p", "--help"]).expect("fine").1.source, Some(Source::Text("--help".into())));
        assert_eq!(run(&["a.llx", "-"]).expect("fine").1.source, Some(Source::Stdin));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |args: &[&str]| run(args).expect_err("must be refused");
        assert!(wrong(&[]).contains("which artifact"));
        assert!(wrong(&["a.llx", "--warp"]).contains("--warp"));
        assert!(wrong(&["a.llx", "b.llx"]).contains("b.llx"));
        assert!(wrong(&["a.llx", "-n", "many"]).contains("many"));
        assert!(wrong(&["a.llx", "-n"]).contains("needs a value"));
        assert!(wrong(&["a.llx", "--chat=yes"]).contains("yes"));
        assert!(wrong(&["a.llx", "--chat=yes", "-q"]).contains("yes"));
        assert!(wrong(&["a.llx", "-p", "x", "-"]).contains("one text"));
        assert!(wrong(&["a.llx", "--load", "floppy"]).contains("floppy"));
        assert!(wrong(&["a.llx", "--raw", "--chat"]).contains("exclude"));
    }
}
