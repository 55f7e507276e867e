//! `llamac run`: flags of a run and their way to the runtime, which does the work (`llamac_runtime::app`); and what every command that opens
//! an artifact needs to tell its user.

use super::args::{BuildArgs, Load};
use super::compile::Bar;
use crate::diag::{Diag, Result};
use crate::driver;
use llamac_runtime::app::{self, Clock, Failure, RunOptions, SamplingFlags, Source};
use llamac_runtime::artifact::{Artifact, ArtifactError};
use llamac_runtime::session;
use llamac_runtime::step::EngineError;
use llamac_runtime::tokenizer::Tokenizer;
use std::path::{Path, PathBuf};

/// Run a model: continue a text, answer a message, or talk.
///
/// Text goes to standard output, everything else to standard error. Without -p, -f or - the text is read from a pipe; at a terminal a
/// model with a chat template talks. A model directory is compiled first, into a temporary file.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(super) struct RunArgs {
    /// Artifact that `llamac compile` wrote, or a model directory.
    #[arg(value_name = "ARTIFACT|MODEL")]
    model: PathBuf,
    /// `-`: continue what comes in on standard input.
    #[arg(value_name = "-", value_parser = ["-"], conflicts_with_all = ["prompt", "file"])]
    stdin: Option<String>,
    /// Continue this text.
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "file")]
    prompt: Option<String>,
    /// Continue the text of this file (UTF-8).
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The text is a message: put it into the model's chat template and answer it. Without a text: talk, until Ctrl-D.
    #[arg(long)]
    chat: bool,
    /// Instructions before the first message; means --chat.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Never use the chat template, also when the text is typed.
    #[arg(long, conflicts_with_all = ["chat", "system"])]
    raw: bool,
    /// Generate at most N tokens [default: 512; in a chat: as many as fit].
    #[arg(short = 'n', long, value_name = "N")]
    max_tokens: Option<usize>,
    /// End where this text comes up; may be given several times.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Go on behind the model's end-of-text tokens.
    #[arg(long)]
    ignore_eos: bool,
    #[command(flatten, next_help_heading = "Choice of tokens (default: what the model's own settings say)")]
    sampling: SamplingArgs,
    #[command(flatten, next_help_heading = "Machine")]
    machine: MachineArgs,
    #[command(flatten, next_help_heading = "Compiling a model directory")]
    build: BuildArgs,
}

const AFTER: &str = "\
Examples:
  llamac run llama.llx -p \"Once upon a time\" -n 64       continue a text
  llamac run llama.llx --chat                            talk, with the model's own chat template
  llamac run llama.llx --chat -p \"Name a river.\"         one question, one answer
  llamac run llama.llx --temp 0 -f letter.txt > more.txt the same text each time
  git diff | llamac run llama.llx --system \"Review.\" -   a message from a pipe";

/// How tokens are chosen.
#[derive(Debug, Clone, clap::Args)]
struct SamplingArgs {
    /// 0: always the most probable token; 1: as the model says; above: wilder.
    #[arg(long, visible_alias = "temperature", value_name = "X")]
    temp: Option<f32>,
    /// Only the N most probable tokens; 0: all.
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Only the most probable tokens that have X of the probability together; 1: all.
    #[arg(long, value_name = "X")]
    top_p: Option<f32>,
    /// Only tokens with at least X times the highest probability; 0: all.
    #[arg(long, value_name = "X")]
    min_p: Option<f32>,
    /// Divide the scores of tokens that were there before; 1: off.
    #[arg(long, visible_alias = "repetition-penalty", value_name = "X")]
    repeat_penalty: Option<f32>,
    /// Subtract X for each time that a token was generated; 0: off.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Subtract X once for a token that was generated; 0: off.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// The same N gives the same text.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// How to run, and what to say about it.
#[derive(Debug, Clone, clap::Args)]
struct MachineArgs {
    /// Threads [default: one for each core]; the text does not depend on it.
    #[arg(short, long, value_name = "N")]
    threads: Option<usize>,
    /// How weights come into memory.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Load::Mmap)]
    load: Load,
    /// Say how long the start took, and how near to the memory's limit decoding came.
    #[arg(long)]
    timings: bool,
    /// Print nothing but the text and errors.
    #[arg(short, long)]
    quiet: bool,
}

impl RunArgs {
    fn options(&self) -> RunOptions {
        let stdin = self.stdin.as_ref().map(|_| Source::Stdin);
        let text = self.prompt.clone().map(Source::Text);
        let s = &self.sampling;
        RunOptions {
            source: stdin.or(text).or(self.file.clone().map(Source::File)),
            chat: self.chat,
            system: self.system.clone(),
            raw: self.raw,
            sampling: SamplingFlags {
                temperature: s.temp,
                top_k: s.top_k,
                top_p: s.top_p,
                min_p: s.min_p,
                repetition_penalty: s.repeat_penalty,
                frequency_penalty: s.frequency_penalty,
                presence_penalty: s.presence_penalty,
                seed: s.seed,
            },
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
            threads: self.machine.threads,
            load: self.machine.load.mode(),
            timings: self.machine.timings,
            quiet: self.machine.quiet,
        }
    }
}

pub(super) fn main(args: &RunArgs) -> Result<()> {
    let mut clock = Clock::start();
    let artifact = match args.model.is_dir() {
        true => compile(args, &mut clock)?,
        false => app::open(&args.model, &mut clock).map_err(diag)?,
    };
    app::run(&artifact, &args.options(), &mut clock).map_err(diag)
}

/// Compiles a model directory into a file that has no name any more when this returns: the mapping keeps it.
fn compile(args: &RunArgs, clock: &mut Clock) -> Result<Artifact> {
    let folder = tempfile::tempdir().map_err(|e| Diag::io("cannot make a temporary folder", std::env::temp_dir().display(), &e))?;
    let out = folder.path().join("model.llx");
    if !args.machine.quiet {
        let model = args.model.display();
        eprintln!("[compiling {model} into a temporary file; `llamac compile {model} -o OUT.llx` keeps it]");
    }
    let bar = Bar::new(args.machine.quiet);
    let options = driver::CompileOptions { check: driver::Check::None, ..args.build.options() };
    let summary = driver::compile(&args.model, &out, &options, &bar);
    bar.finish();
    let summary = summary?;
    if !args.machine.quiet {
        summary.warnings.iter().for_each(|w| eprintln!("{w}"));
    }
    clock.mark("compiled");
    app::open(&out, clock).map_err(diag)
}

fn diag(failure: Failure) -> Diag {
    let diag = Diag::new(failure.code, failure.what).help(failure.help);
    match failure.place {
        Some(place) => diag.place(place),
        None => diag,
    }
}

/// An artifact that cannot be opened.
pub(crate) fn open_error(path: &Path, error: &ArtifactError) -> Diag {
    diag(Failure::artifact(path, error))
}

/// An artifact that cannot be run.
pub(crate) fn engine_error(path: &Path, error: &EngineError) -> Diag {
    Diag::new(error.code(), error.to_string()).place(path.display()).help(error.help())
}

/// The tokenizer of an artifact.
pub(super) fn tokenizer(artifact: &Artifact) -> Result<Tokenizer> {
    session::tokenizer(artifact).map_err(|e| diag(Failure::session(artifact.path(), &e)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use llamac_runtime::app::DEFAULT_MAX_TOKENS;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        run: RunArgs,
    }

    fn options(args: &[&str]) -> Option<RunOptions> {
        Cli::try_parse_from(["run"].iter().chain(args)).ok().map(|cli| cli.run.options())
    }

    #[test]
    fn flags_arrive_in_the_options() {
        let o = options(&["a.llx", "-p", "-x", "-n", "3", "--temp", "0", "--presence-penalty", "-1", "--load", "huge"]).expect("fine");
        assert_eq!((o.source, o.max_tokens, o.load), (Some(Source::Text("-x".into())), Some(3), llamac_runtime::memory::LoadMode::Huge));
        assert_eq!((o.sampling.temperature, o.sampling.presence_penalty), (Some(0.0), Some(-1.0)));
        assert_eq!(options(&["a.llx", "-"]).expect("fine").source, Some(Source::Stdin));
    }

    #[test]
    fn one_text_and_one_way_to_read_it() {
        for wrong in [&["a.llx", "-p", "x", "-f", "y"][..], &["a.llx", "-", "-p", "x"], &["a.llx", "--raw", "--chat"], &["a.llx", "b.llx"]]
        {
            assert!(options(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn the_help_text_states_the_true_default() {
        assert!(
            <RunArgs as clap::Args>::augment_args(clap::Command::new("run"))
                .render_long_help()
                .to_string()
                .contains(&format!("default: {DEFAULT_MAX_TOKENS};"))
        );
    }
}
