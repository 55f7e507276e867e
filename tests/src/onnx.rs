//! ONNX fixtures: exported models with inputs and outputs of ONNX Runtime. Those of the repository have no weights of their own: their data is put
//! together from the checkpoint that they were exported from.

use crate::fixture::{self, Tensor};
use crate::repo;
use llamac_ir::eval;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// An exported model with what it computes.
#[derive(Debug)]
pub struct OnnxFixture {
    /// Name of the folder.
    pub name: String,
    /// `model.onnx`.
    pub model: PathBuf,
    /// `CASE.in.NAME` and `CASE.out.NAME`.
    pub io: BTreeMap<String, Tensor>,
    /// Whether ONNX Runtime rounded inputs of products to bytes when it computed the outputs.
    pub rounded: bool,
}

impl OnnxFixture {
    /// Reads a folder with `model.onnx` and `io.safetensors`.
    ///
    /// # Panics
    /// If they cannot be read.
    pub fn read(folder: &Path) -> OnnxFixture {
        let bytes = std::fs::read(folder.join("io.safetensors")).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let rounded = ["genai_int4", "dynamic_int8"].iter().any(|part| name.contains(part));
        OnnxFixture { name, model: folder.join("model.onnx"), io: fixture::tensors(&bytes), rounded }
    }

    /// Names of the cases.
    pub fn cases(&self) -> Vec<String> {
        let mut cases: Vec<String> = self.io.keys().filter_map(|k| k.split_once(".in.")).map(|(case, _)| case.to_owned()).collect();
        cases.dedup();
        cases
    }

    /// A tensor of a case as the evaluator takes it.
    pub fn input(&self, case: &str, name: &str) -> Option<eval::Tensor> {
        let tensor = self.io.get(&format!("{case}.in.{name}"))?;
        let count: usize = tensor.shape.iter().product();
        Some(match tensor.i64.len() == count && (count > 0 || tensor.f32.is_empty() && !name.contains("past")) {
            true => eval::Tensor::i64(&tensor.shape, tensor.i64.clone()),
            false => eval::Tensor::f32(&tensor.shape, tensor.f32.clone()),
        })
    }

    /// What a case computes, and whether a graph of floats must come to the very numbers. Where ONNX Runtime rounds the inputs of products to
    /// bytes, it need not; the fixture may have the output of the graph without that rounding, too.
    pub fn reference(&self, case: &str, output: &str) -> Option<(&Tensor, Limit)> {
        if let Some(exact) = self.io.get(&format!("{case}.float_dequantized.{output}")) {
            return Some((exact, Limit::EXACT));
        }
        Some((self.output(case, output)?, if self.rounded { Limit::ROUNDED } else { Limit::EXACT }))
    }

    /// What a case computes.
    pub fn output(&self, case: &str, name: &str) -> Option<&Tensor> {
        self.io.get(&format!("{case}.out.{name}"))
    }
}

/// How near numbers must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// Largest difference.
    pub most: f32,
    /// rms of the difference, relative to the rms of what is expected.
    pub rms: f64,
}

impl Limit {
    /// The same numbers but for the order of sums: the tolerance of the fixtures.
    pub const EXACT: Limit = Limit { most: 2e-4, rms: 1e-5 };
    /// Numbers of products whose inputs ONNX Runtime rounded to bytes.
    pub const ROUNDED: Limit = Limit { most: f32::INFINITY, rms: 0.08 };

    /// Asserts that numbers are as near as that, and says how near they are.
    ///
    /// # Panics
    /// If they are not.
    pub fn check(self, what: &str, found: &[f32], expected: &[f32]) {
        let pairs = || found.iter().zip(expected).map(|(a, b)| a - b);
        let largest = pairs().map(f32::abs).fold(0.0, |a: f32, b| if b.is_nan() { b } else { a.max(b) });
        let squares = |v: &mut dyn Iterator<Item = f32>| v.map(|x| f64::from(x).powi(2)).sum::<f64>();
        let rms = (squares(&mut pairs()) / squares(&mut expected.iter().copied()).max(1e-30)).sqrt();
        eprintln!("{what}: largest difference {largest:.1e}, rms {rms:.1e}");
        assert!(found.len() == expected.len(), "{what}: {} numbers, expected {}", found.len(), expected.len());
        assert!(largest <= self.most && rms <= self.rms, "{what}: largest difference {largest:.1e}, rms {rms:.1e}, at most {self:?}");
    }
}

/// The ONNX fixtures of a folder that has one folder for each.
pub fn in_folder(folder: &Path) -> Vec<OnnxFixture> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    folders.retain(|f| f.join("model.onnx").exists() && f.join("io.safetensors").exists());
    folders.sort();
    let mut fixtures: Vec<OnnxFixture> = folders.iter().map(|f| OnnxFixture::read(f)).collect();
    // Int4 in QDQ form is a product with int8 activations to ONNX Runtime; the repository has outputs without that.
    fixtures.iter_mut().for_each(|f| f.rounded |= f.name.contains("qdq_int4"));
    fixtures
}

/// The fixtures in `LLAMAC_FIXTURES/onnx`, if there are any.
pub fn more() -> Vec<OnnxFixture> {
    std::env::var_os("LLAMAC_FIXTURES").map_or_else(Vec::new, |root| in_folder(&Path::new(&root).join("onnx")))
}

/// The fixtures of the repository, put together below `folder`.
///
/// # Panics
/// If they cannot be read or written.
pub fn all(folder: &Path) -> Vec<OnnxFixture> {
    let home = repo::root().join("tests/fixtures/onnx");
    let mut names: Vec<PathBuf> = std::fs::read_dir(home).into_iter().flatten().flatten().map(|e| e.path()).collect();
    names.sort();
    names.iter().map(|from| assemble(from, folder)).collect()
}

/// One fixture of the repository, put together below `folder`.
///
/// # Panics
/// As [`all`].
pub fn one(folder: &Path, name: &str) -> OnnxFixture {
    assemble(&repo::root().join("tests/fixtures/onnx").join(name), folder)
}

/// Copies a stripped model and writes the data that it says it has: tensors of its checkpoint as f32, some transposed.
fn assemble(from: &Path, folder: &Path) -> OnnxFixture {
    let name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let to = folder.join(&name);
    std::fs::create_dir_all(&to).expect("a folder");
    for file in ["model.onnx", "io.safetensors"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap_or_else(|e| panic!("{name}/{file}: {e}"));
    }
    let checkpoint = name.split('_').next().unwrap_or_default();
    let bytes =
        std::fs::read(repo::root().join("tests/fixtures").join(checkpoint).join("model/model.safetensors")).expect("the checkpoint");
    let checkpoint = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let mut data = Vec::new();
    for line in std::fs::read_to_string(from.join("weights.txt")).expect("weights.txt").lines() {
        let (tensor, transposed) = line.split_once(' ').expect("a name and a flag");
        let tensor = checkpoint.tensor(tensor).expect("a tensor of the checkpoint");
        let value = |c: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*c)) << 16);
        let values: Vec<f32> = tensor.data().as_chunks().0.iter().map(value).collect();
        let shape = tensor.shape();
        let (rows, columns) = match shape {
            [.., rows, columns] if transposed == "1" => (*rows, *columns),
            _ => (1, values.len()),
        };
        for matrix in values.chunks(rows * columns) {
            (0..columns).for_each(|c| (0..rows).for_each(|r| data.extend(matrix[r * columns + c].to_le_bytes())));
        }
    }
    std::fs::write(to.join("weights.bin"), data).expect("weights.bin");
    OnnxFixture::read(&to)
}
