//! The command line: one file per command. Only this layer prints; the library returns values and diagnostics.

mod args;
mod bench;
mod compile;
mod eval;
mod explain;
mod infer;
mod inspect;
mod kl;
mod logits;
mod machine;
mod opt;
mod output;
mod plan;
pub(crate) mod run;
mod targets;
mod tensors;
mod verify;

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

/// Ahead-of-time inference compiler for Meta's Llama 3 family.
///
/// `llamac compile MODEL` turns a Hugging Face directory into one artifact file: code, packed weights, tokenizer, memory plan.
/// `llamac run FILE.llx` maps that file and streams text.
#[derive(Debug, Parser)]
#[command(name = "llamac", version, arg_required_else_help = true, max_term_width = 110, after_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER: &str = "\
Try it:
  llamac compile path/to/Llama-3.2-1B -o llama.llx     # seconds; nothing but the file is needed afterwards
  llamac run llama.llx -p \"Once upon a time\" -n 64
  llamac run llama.llx --chat                          # interactive, with the model's own chat template
  llamac plan path/to/config.json                      # exact memory before anything is compiled

Exit codes: 0 fine, 1 the command failed (the message says what to do), 2 the command line is wrong.";

#[derive(Debug, Subcommand)]
enum Command {
    Compile(compile::CompileArgs),
    Run(Box<run::RunArgs>),
    Plan(plan::PlanArgs),
    Infer(infer::InferArgs),
    Inspect(inspect::InspectArgs),
    Explain(explain::ExplainArgs),
    Opt(opt::OptArgs),
    Bench(bench::BenchArgs),
    Eval(eval::EvalArgs),
    Logits(logits::LogitsArgs),
    Verify(verify::VerifyArgs),
    Targets(targets::TargetsArgs),
    Completions(CompletionsArgs),
}

/// Print a completion script for a shell.
///
/// Example: `llamac completions bash > ~/.local/share/bash-completion/completions/llamac`
#[derive(Debug, clap::Args)]
struct CompletionsArgs {
    /// Which shell.
    shell: clap_complete::Shell,
}

/// Parses the command line, runs the command, renders errors. Returns the exit code.
pub fn main() -> ExitCode {
    end_quietly_on_a_closed_pipe();
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Compile(args) => compile::main(&args),
        Command::Run(args) => run::main(&args),
        Command::Plan(args) => plan::main(&args),
        Command::Infer(args) => infer::main(&args),
        Command::Inspect(args) => inspect::main(&args),
        Command::Explain(args) => explain::main(&args),
        Command::Opt(args) => opt::main(&args),
        Command::Bench(args) => bench::main(&args),
        Command::Eval(args) => eval::main(&args),
        Command::Logits(args) => logits::main(&args),
        Command::Verify(args) => verify::main(&args),
        Command::Targets(args) => targets::main(&args),
        Command::Completions(args) => {
            clap_complete::generate(args.shell, &mut Cli::command(), "llamac", &mut std::io::stdout());
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(diag) => {
            eprintln!("{diag}");
            ExitCode::FAILURE
        }
    }
}

/// `llamac inspect FILE | head` is no bug: `println!` panics where nobody reads any more.
fn end_quietly_on_a_closed_pipe() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload_as_str().unwrap_or_default();
        if said.starts_with("failed printing to stdout") && said.contains("Broken pipe") {
            std::process::exit(0);
        }
        report(panic);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_flag_has_a_help_text() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "`{}` has no help", command.get_name());
            for arg in command.get_arguments().filter(|a| !["help", "version"].contains(&a.get_id().as_str())) {
                assert!(arg.get_help().is_some(), "`{} --{}` has no help", command.get_name(), arg.get_id());
            }
        }
    }
}
