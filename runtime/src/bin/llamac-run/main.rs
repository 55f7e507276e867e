//! `llamac-run`: the runtime alone, as a small program. It parses its flags and calls `llamac_runtime::app`; nothing else is here.

mod args;

use args::Command;
use llamac_runtime::app::{self, Clock};
use std::io::Write;
use std::process::ExitCode;

/// Exit code of a wrong command line.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut clock = Clock::start();
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run { artifact, options }) => {
            let done = app::open(&artifact, &mut clock).and_then(|a| app::run(&a, &options, &mut clock));
            match done {
                Ok(()) => ExitCode::SUCCESS,
                Err(failure) => {
                    eprintln!("{failure}");
                    ExitCode::FAILURE
                }
            }
        }
        Ok(Command::Help) => show(args::HELP),
        Ok(Command::Version) => show(concat!("llamac-run ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(wrong) => {
            eprintln!("error[usage]: {wrong}\n  help:     llamac-run --help shows what is possible");
            ExitCode::from(USAGE)
        }
    }
}

/// A reader that has seen enough of a help text is no failure.
fn show(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
