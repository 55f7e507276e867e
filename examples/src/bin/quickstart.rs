//! Compiles a model and streams a text, with the library: what `llamac compile` and `llamac run` do.

use llamac::driver::{self, CompileOptions};
use llamac_runtime::{GenerateOptions, Session};
use std::io::Write;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = std::env::args().nth(1).map_or_else(|| PathBuf::from("tests/fixtures/tiny-llama3/model"), PathBuf::from);
    let artifact = std::env::temp_dir().join(format!("quickstart-{}.llx", std::process::id()));
    driver::compile(&model, &artifact, &CompileOptions::default(), &driver::Silent)?;

    let mut session = Session::open(&artifact)?;
    let options = GenerateOptions { max_tokens: Some(60), ..GenerateOptions::default() };
    let mut generation = session.generate("ROMEO:", &options)?;
    for piece in &mut generation {
        print!("{}", piece?.text);
        std::io::stdout().flush()?;
    }
    println!("\n[{:?}, {:.0} tokens/s]", generation.end(), generation.stats().decode_rate());
    std::fs::remove_file(artifact)?;
    Ok(())
}
