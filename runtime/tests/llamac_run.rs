//! The program `llamac-run` as a user starts it, on a stored artifact: text to standard output, the rest to standard error, exit codes.
#![cfg(target_arch = "x86_64")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const PROMPT: &str = "KING RICHARD II:";
/// What the random weights of that model say, the same on every CPU.
const TEXT: &str =
    "\u{fffd} sp sp sp \u{fffd} willGLO\u{7f}?\n\nn\u{fffd}\u{fffd}\u{fffd}zen.\n\n\u{fffd}Zck spm\u{fffd}\u{fffd}\u{fffd}\n";
const GREEDY: [&str; 5] = ["--temp", "0", "-n", "24", "--quiet"];

fn artifact() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/artifacts/v1-llama3-onnx.llx")
}

fn run(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_llamac-run"))
        .arg(artifact())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("llamac-run starts");
    // A program that fails early does not read.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("llamac-run ends")
}

#[test]
fn the_same_text_comes_from_an_argument_and_a_pipe_on_one_thread_or_two() {
    let argument = run(&[&["-p", PROMPT], &GREEDY[..]].concat(), "");
    assert_eq!(String::from_utf8(argument.stdout.clone()).expect("UTF-8"), TEXT);
    assert!(argument.status.success() && argument.stderr.is_empty());
    let piped = run(&[&["-", "--threads", "1"], &GREEDY[..]].concat(), PROMPT);
    assert_eq!(piped.stdout, argument.stdout);
}

#[test]
fn the_times_and_the_speed_go_to_standard_error() {
    let done = run(&["-p", PROMPT, "--temp", "0", "-n", "24", "--timings"], "");
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(String::from_utf8_lossy(&done.stdout), TEXT);
    assert!(said.contains("first prefill instruction") && said.contains("tok/s") && said.contains("GB/s"), "{said}");
}

#[test]
fn a_mistake_in_the_command_line_and_one_in_the_input_have_their_own_exit_codes() {
    assert_eq!(run(&["--no-such-flag"], "").status.code(), Some(2));
    let missing = run(&["-f", "no/such/file"], "");
    let said = String::from_utf8_lossy(&missing.stderr);
    assert_eq!(missing.status.code(), Some(1), "{said}");
    assert!(said.contains("no/such/file") && !said.contains("panicked"), "{said}");
}
