//! Fixtures through the compiler and the engine: compiled once per test program, run by token ids.

use crate::fixture::Fixture;
use crate::numbers::argmax;
use llamac::calibrate::Text;
use llamac::driver::{self, Check, CompileOptions};
use llamac_runtime::artifact::{Artifact, OpenOptions};
use llamac_runtime::batch::{SeqInput, Want};
use llamac_runtime::step::{Engine, EngineOptions};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Artifacts made by this process: (fixture, weight format, target).
static MADE: Mutex<BTreeMap<(String, String, String), PathBuf>> = Mutex::new(BTreeMap::new());

/// The artifact of a fixture, compiled into `folder` when it is first asked for. `int4 calibrated` is calibrated on the default text,
/// `bf16 kv8` has an int8 cache.
///
/// # Panics
/// If it does not compile.
pub fn artifact(folder: &Path, fixture: &Fixture, quant: &str, target: &str) -> PathBuf {
    let mut made = MADE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let key = (fixture.name.clone(), quant.to_owned(), target.to_owned());
    made.entry(key)
        .or_insert_with(|| {
            let out = folder.join(format!("{}-{quant}-{target}.llx", fixture.name));
            let has = |word: &str| quant.split(' ').skip(1).any(|w| w == word);
            let options = CompileOptions {
                quant: quant.split(' ').next().map(str::to_owned),
                kv: has("kv8").then(|| "int8".into()),
                calibrate: has("calibrated").then_some(Text::Default),
                target: target.into(),
                max_context: Some(1024),
                check: Check::None,
                ..CompileOptions::default()
            };
            driver::compile(&fixture.model, &out, &options, &driver::Silent).unwrap_or_else(|e| panic!("{}: {e}", fixture.name));
            out
        })
        .clone()
}

/// Runs an artifact by token ids.
#[derive(Debug)]
pub struct Runner {
    engine: Engine,
}

impl Runner {
    /// Over this artifact, on so many threads.
    ///
    /// # Panics
    /// If it cannot be opened or run.
    pub fn open(path: &Path, threads: usize) -> Runner {
        let artifact = Artifact::open(path, &OpenOptions::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let options = EngineOptions { threads: Some(threads), ..EngineOptions::default() };
        Runner { engine: Engine::new(&artifact, &options).unwrap_or_else(|e| panic!("{}: {e}", path.display())) }
    }

    /// Logits of every row of a fresh sequence, fed in one call.
    pub fn logits(&mut self, ids: &[u32]) -> Vec<f32> {
        self.logits_in_pieces(ids, std::iter::repeat(ids.len()))
    }

    /// As [`Runner::logits`], fed in pieces of these lengths.
    ///
    /// # Panics
    /// If a step fails or the lengths end before the tokens.
    pub fn logits_in_pieces(&mut self, ids: &[u32], pieces: impl IntoIterator<Item = usize>) -> Vec<f32> {
        let mut pieces = pieces.into_iter();
        let mut rest = ids;
        let mut logits = Vec::new();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(pieces.next().expect("a length").min(rest.len()));
            self.feed(0, piece, Want::All, &mut logits);
            rest = after;
        }
        self.engine.truncate(0, 0);
        logits
    }

    /// Logits of every row of several fresh sequences that run side by side: `lengths(round, sequence)` new tokens of each in a round, those
    /// with 0 wait.
    ///
    /// # Panics
    /// If a step fails.
    pub fn logits_side_by_side(&mut self, sequences: &[&[u32]], mut lengths: impl FnMut(usize, usize) -> usize) -> Vec<Vec<f32>> {
        let mut fed = vec![0; sequences.len()];
        let mut logits = vec![Vec::new(); sequences.len()];
        for round in 0.. {
            let mut inputs = Vec::new();
            let mut owners = Vec::new();
            for (i, ids) in sequences.iter().enumerate() {
                let tokens = &ids[fed[i]..ids.len().min(fed[i] + lengths(round, i))];
                fed[i] += tokens.len();
                if !tokens.is_empty() {
                    inputs.push(SeqInput { slot: i, tokens, logits: Want::All });
                    owners.push(i);
                }
            }
            if !inputs.is_empty() {
                self.engine.step_each(&inputs, |input, _, row| logits[owners[input]].extend_from_slice(row)).expect("a step");
            }
            if fed.iter().zip(sequences).all(|(fed, ids)| *fed == ids.len()) {
                break;
            }
        }
        for slot in 0..sequences.len() {
            self.engine.truncate(slot, 0);
        }
        logits
    }

    /// The greedy continuation, `n` tokens, ends of sequence ignored.
    ///
    /// # Panics
    /// If a step fails.
    pub fn greedy(&mut self, ids: &[u32], n: usize) -> Vec<u32> {
        let mut row = Vec::new();
        self.feed(0, ids, Want::Last, &mut row);
        let mut chosen = Vec::new();
        while chosen.len() < n {
            let token = argmax(&row);
            chosen.push(token);
            row.clear();
            self.feed(0, &[token], Want::Last, &mut row);
        }
        self.engine.truncate(0, 0);
        chosen
    }

    fn feed(&mut self, slot: usize, tokens: &[u32], wanted: Want, logits: &mut Vec<f32>) {
        let batch = [SeqInput { slot, tokens, logits: wanted }];
        self.engine.step_each(&batch, |_, _, row| logits.extend_from_slice(row)).expect("a step");
    }
}
