//! The `llamac` binary: parses the command line and calls [`llamac::cli`]. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    llamac::cli::main()
}
