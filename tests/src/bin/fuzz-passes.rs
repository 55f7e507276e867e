//! `fuzz-passes`: random modules through the passes, compared with the evaluator, until the time is over. What differs is made small and written
//! as a `.lir` file with the command that runs it again.
//!
//! `cargo run --release -p llamac-tests --bin fuzz-passes -- --seconds 3600 --seed 1 [--execute] [--out DIR]`

use llamac_passes::context::Fired;
use llamac_tests::fuzz::{self, Outcome, Shape};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const HELP: &str = "fuzz-passes: random modules through the pipeline, compared with the reference evaluator

  --seconds N     how long [60]
  --seed N        number of the first module [1]
  --cases N       stop after so many modules
  --execute       compile and run each module, too (about ten times slower)
  --out DIR       where what differs is written [.]
  --keep-going N  differences to write before it stops [3]
  --replay FILE   run one case again

Exit code 0: no difference. 1: at least one, each in a file. 2: the command line is wrong.";

struct Args {
    seconds: u64,
    seed: u64,
    cases: u64,
    execute: bool,
    out: PathBuf,
    keep_going: usize,
    replay: Option<PathBuf>,
}

fn parse() -> Result<Args, String> {
    let mut args = Args { seconds: 60, seed: 1, cases: u64::MAX, execute: false, out: ".".into(), keep_going: 3, replay: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("found `{text}`, expected a number"));
        match word.as_str() {
            "--seconds" => args.seconds = number(value()?)?,
            "--seed" => args.seed = number(value()?)?,
            "--cases" => args.cases = number(value()?)?,
            "--execute" => args.execute = true,
            "--out" => args.out = value()?.into(),
            "--keep-going" => args.keep_going = number(value()?)? as usize,
            "--replay" => args.replay = Some(value()?.into()),
            _ => return Err(format!("found `{word}`")),
        }
    }
    Ok(args)
}

fn main() -> ExitCode {
    let args = match parse() {
        Ok(args) => args,
        Err(e) => {
            eprintln!("{e}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    // A panic of a pass is a finding like any other; its text is in the report.
    std::panic::set_hook(Box::new(|_| {}));
    match &args.replay {
        Some(file) => replay(file),
        None => fuzz(&args),
    }
}

fn replay(file: &PathBuf) -> ExitCode {
    let case = std::fs::read_to_string(file).map_err(|e| e.to_string()).and_then(|text| fuzz::read(&text));
    match case {
        Err(e) => {
            eprintln!("{}: {e}", file.display());
            ExitCode::from(2)
        }
        Ok(case) => {
            let outcome = fuzz::run(&case);
            println!("{outcome:?}");
            if matches!(outcome, Outcome::Wrong(..)) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
    }
}

fn fuzz(args: &Args) -> ExitCode {
    let (start, mut told) = (Instant::now(), Instant::now());
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut fired, mut found) = (Fired::new(), 0);
    let mut seed = args.seed;
    while start.elapsed() < Duration::from_secs(args.seconds) && seed - args.seed < args.cases && found < args.keep_going {
        let shape = match seed % 4 {
            _ if args.execute => Shape::Decoder,
            0 => Shape::Decoder,
            2 => Shape::Graph,
            _ => Shape::Any,
        };
        let case = fuzz::case(seed, shape, args.execute);
        match fuzz::observed(&case, &mut fired) {
            Outcome::Same => *counts.entry("same").or_default() += 1,
            Outcome::Skipped(why) => *counts.entry(why).or_default() += 1,
            Outcome::Wrong(kind, details) => {
                *counts.entry("WRONG").or_default() += 1;
                found += 1;
                let (small, details) = fuzz::shrink(&case, kind, details);
                let file = args.out.join(format!("fuzz-{seed}.lir"));
                let text = fuzz::write(&small, &format!("{kind:?}: {details}"), &file.display().to_string());
                println!("seed {seed}: {kind:?}: {details}\n  written to {}", file.display());
                if let Err(e) = std::fs::write(&file, text) {
                    eprintln!("{}: {e}", file.display());
                    return ExitCode::from(2);
                }
            }
        }
        seed += 1;
        if told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            println!("{:>6} s: {} modules, {counts:?}", start.elapsed().as_secs(), seed - args.seed);
        }
    }
    println!("rules applied: {fired:?}");
    println!("{} modules in {} s from seed {}: {counts:?}", seed - args.seed, start.elapsed().as_secs(), args.seed);
    if found > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
