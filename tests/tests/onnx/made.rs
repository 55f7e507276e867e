//! Decoders made in memory through `llamac infer`: compiled code against the graph interpreted, for what the exports of the fixtures do not have.

use llamac::driver::{self, CompileOptions, Summary};
use llamac::frontend::onnx::eager::Value;
use llamac_ir::dtype::DType;
use llamac_runtime::artifact::signature::Role;
use llamac_runtime::artifact::{Artifact, OpenOptions};
use llamac_tests::decoders::{Attends, Decoder, VOCAB};
use llamac_tests::graph::{DataType, Graph};
use llamac_tests::tensors::{Named, floats, infer, longs, numbers, words};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn compile(model: &Path, out: &Path, max_context: usize) -> Summary {
    let options = CompileOptions { quant: Some("f32".into()), max_context: Some(max_context), ..CompileOptions::default() };
    driver::compile(model, out, &options, &driver::Silent).unwrap_or_else(|e| panic!("{}: {e}", model.display()))
}

/// A decoder as an artifact, and the graph in f32 that it must compute: of the same weights, nothing between ops rounded.
struct Both {
    spec: Decoder,
    exact: PathBuf,
    artifact: PathBuf,
    _folder: TempDir,
}

impl Both {
    fn of(spec: Decoder) -> Both {
        let folder = tempfile::tempdir().expect("a folder");
        let exact = Decoder { dtype: DataType::Float, weights: spec.dtype, ..spec }.graph().write(&folder.path().join("exact"));
        let model = Decoder { weights: spec.dtype, ..spec }.graph().write(&folder.path().join("own"));
        let artifact = folder.path().join("own.llx");
        compile(&model, &artifact, 64);
        Both { spec, exact, artifact, _folder: folder }
    }

    fn dtype(&self) -> DType {
        match self.spec.dtype {
            DataType::Float16 => DType::F16,
            DataType::Bfloat16 => DType::Bf16,
            _ => DType::F32,
        }
    }

    /// Runs both; the graph in f32 gets the same numbers.
    fn run(&self, given: &Named) -> [Named; 2] {
        let wide = |v: &Value| match v.tensor.as_f32() {
            Some(data) => floats(DType::F32, v.tensor.shape(), data),
            None => v.clone(),
        };
        let exact = given.iter().map(|(name, v)| (name.clone(), wide(v))).collect();
        let run = |file: &Path, given: &Named| infer(file, given).unwrap_or_else(|e| panic!("{:?}: {e}", self.spec));
        [run(&self.artifact, given), run(&self.exact, &exact)]
    }

    /// Runs both and compares what they give, but for columns `skipped(sequence, column)` of outputs with so many columns.
    fn check(&self, what: &str, given: &Named, skipped: &dyn Fn(&str, usize, usize) -> bool) -> Named {
        let [found, expected] = self.run(given);
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{:?} {what}", self.spec);
        let step = match self.spec.dtype {
            DataType::Float16 => 1.0 / 2048.0,
            DataType::Bfloat16 => 1.0 / 256.0,
            _ => 1e-5,
        };
        for (name, value) in &found {
            let shape = value.tensor.shape();
            assert_eq!((value.dtype, shape), (self.dtype(), expected[name].tensor.shape()), "{:?} {what} {name}", self.spec);
            let (columns, width) = (shape[shape.len() - 2], shape[shape.len() - 1]);
            let each = shape.iter().skip(1).product::<usize>();
            for (i, (a, b)) in numbers(value).iter().zip(numbers(&expected[name])).enumerate() {
                let (sequence, column) = (i / each, i / width % columns);
                match skipped(name, sequence, column) {
                    true => assert_eq!(*a, 0.0, "{:?} {what} {name}: padding of sequence {sequence}, column {column}", self.spec),
                    false => assert!((a - b).abs() <= 2e-5 + step * b.abs(), "{:?} {what} {name}[{i}]: {a}, expected {b}", self.spec),
                }
            }
        }
        found
    }
}

/// Tokens of a batch: sequences of these lengths, `new` columns of them new ones, padding on the left.
fn tokens(spec: &Decoder, lengths: &[usize], new: usize, past: usize, padded: &[usize]) -> Named {
    let (batch, total) = (lengths.len(), past + new);
    let all = |n: usize, f: &dyn Fn(usize, usize) -> i64| (0..batch * n).map(|i| f(i / n, i % n)).collect::<Vec<_>>();
    let ids = all(new, &|b, c| ((7 * b + 11 * (past + c) + 3) % VOCAB) as i64);
    let mut given = Named::new();
    given.insert("input_ids".into(), longs(&[batch, new], &ids));
    match spec.attends {
        Attends::Masked => {
            given.insert("attention_mask".into(), longs(&[batch, total], &all(total, &|b, c| i64::from(c >= padded[b]))));
            let at = all(new, &|b, c| (past + c).saturating_sub(padded[b]) as i64);
            given.insert("position_ids".into(), longs(&[batch, new], &at));
        }
        Attends::Causal => {}
        Attends::Grouped => {
            let last: Vec<i32> = lengths.iter().map(|n| *n as i32 - 1).collect();
            given.insert("seqlens_k".into(), words(&[batch], &last));
            given.insert("total_sequence_length".into(), words(&[1], &[total as i32]));
        }
    }
    given
}

/// With the past that a run gave, or with none.
fn with_past(both: &Both, mut given: Named, before: Option<&Named>) -> Named {
    let batch = given["input_ids"].tensor.shape()[0];
    for layer in (0..both.spec.layers).filter(|_| both.spec.cache) {
        for kind in ["key", "value"] {
            let past = match before {
                Some(before) => before[&format!("present.{layer}.{kind}")].clone(),
                None => floats(both.dtype(), &[batch, both.spec.kv_heads, 0, both.spec.head_dim], &[]),
            };
            given.insert(Decoder::past(layer, kind), past);
        }
    }
    given
}

/// A prompt of two sequences, then one token, then three, each with the past that the step before gave.
fn steps(spec: Decoder) {
    let both = Both::of(spec);
    let all = |_: &str, _: usize, _: usize| false;
    let prompt = with_past(&both, tokens(&spec, &[5, 5], 5, 0, &[0, 0]), None);
    let mut found = both.check("prompt", &prompt, &all);
    if spec.cache {
        found = both.check("one token", &with_past(&both, tokens(&spec, &[6, 6], 1, 5, &[0, 0]), Some(&found)), &all);
        both.check("three tokens", &with_past(&both, tokens(&spec, &[9, 9], 3, 6, &[0, 0]), Some(&found)), &all);
    }
    if spec.attends == Attends::Masked {
        let padded = with_past(&both, tokens(&spec, &[4, 2], 4, 0, &[0, 2]), None);
        if spec.chunk > 0 {
            // Chunks of this graph begin with its first column, padding or not.
            let said = infer(&both.artifact, &padded).expect_err("chunks that padding moves");
            assert!(said.contains("tokens behind padding are not what they are without it"), "{said}");
            return;
        }
        let found = both.check("padding", &padded, &|_, sequence, column| sequence == 1 && column < 2);
        if spec.cache {
            let next = with_past(&both, tokens(&spec, &[6, 4], 2, 4, &[0, 2]), Some(&found));
            both.check("padding in the past", &next, &|name, sequence, column| name != "logits" && sequence == 1 && column < 2);
        }
    }
}

#[test]
fn sizes_of_heads_that_are_padded_compute_what_the_graph_says() {
    for (heads, kv_heads, head_dim) in [(4, 2, 16), (3, 1, 24), (2, 2, 10), (6, 3, 20), (1, 1, 8)] {
        steps(Decoder { heads, kv_heads, head_dim, ..Decoder::default() });
    }
    steps(Decoder { chunk: 4, head_dim: 12, ..Decoder::default() });
}

#[test]
fn graphs_in_sixteen_bits_compute_what_their_weights_say_and_give_their_type() {
    for dtype in [DataType::Float16, DataType::Bfloat16] {
        steps(Decoder { dtype, ..Decoder::default() });
        steps(Decoder { dtype, head_dim: 12, layers: 1, attends: Attends::Causal, cache: false, ..Decoder::default() });
    }
}

#[test]
fn decoders_without_a_cache_give_logits_alone() {
    for attends in [Attends::Masked, Attends::Causal] {
        for head_dim in [16, 12] {
            steps(Decoder { attends, head_dim, cache: false, ..Decoder::default() });
        }
    }
    steps(Decoder { chunk: 3, cache: false, ..Decoder::default() });
    let both = Both::of(Decoder { cache: false, ..Decoder::default() });
    let mut given = tokens(&both.spec, &[3], 3, 0, &[0]);
    given.insert("past_key_values.0.key".into(), floats(DType::F32, &[1, 2, 0, 16], &[]));
    let said = infer(&both.artifact, &given).expect_err("a past that the graph does not have");
    assert!(said.contains("no input of that name") && said.contains("position_ids"), "{said}");
}

#[test]
fn a_mask_without_a_cache_is_tried_so_far_and_longer_contexts_are_warned_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let warned = |spec: Decoder, context: usize| {
        let model = spec.graph().write(folder.path());
        let done = compile(&model, &folder.path().join("a.llx"), context);
        done.warnings.iter().any(|w| w.0.what.contains("tried for sequences of up to 2048 tokens"))
    };
    let alone = Decoder { layers: 1, cache: false, ..Decoder::default() };
    assert!(warned(alone, 4096) && !warned(alone, 2048));
    // Nothing is open where a chunk was found, where the op itself is causal, and where a cache lets longer ones be tried.
    assert!(!warned(Decoder { chunk: 5, ..alone }, 4096));
    assert!(!warned(Decoder { attends: Attends::Causal, ..alone }, 4096));
    assert!(!warned(Decoder { cache: true, ..alone }, 4096));
}

#[test]
fn experts_that_are_weighed_behind_are_refused_by_compile_and_run_by_infer() {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = Decoder { experts: 3, cache: false, ..Decoder::default() };
    let model = spec.graph().write(folder.path());
    let options = CompileOptions { quant: Some("f32".into()), max_context: Some(64), ..CompileOptions::default() };
    let said = driver::compile(&model, &folder.path().join("a.llx"), &options, &driver::Silent).expect_err("no such layer").to_string();
    let words = ["not recognised as a Llama", "%l0.moe", "experts on rows without their gate", "llamac infer"];
    assert!(words.iter().all(|w| said.contains(w)), "{said}");
    let found = infer(&model, &tokens(&spec, &[4, 4], 4, 0, &[0, 0])).expect("runs");
    assert!(numbers(&found["logits"]).iter().all(|x| x.is_finite() && *x != 0.0));
}

#[test]
fn a_past_of_other_heads_is_refused_where_the_graph_leaves_their_size_open() {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = Decoder { attends: Attends::Grouped, layers: 1, ..Decoder::default() };
    let mut graph = spec.graph();
    for port in graph.proto.input.iter_mut().chain(&mut graph.proto.output).filter(|p| p.name.ends_with("key") || p.name.ends_with("value"))
    {
        Graph::open_axis(port, 3, "size_of_a_head");
    }
    let artifact = folder.path().join("open.llx");
    compile(&graph.write(folder.path()), &artifact, 64);
    let given = |d: usize| {
        let mut given = tokens(&spec, &[3], 1, 2, &[0]);
        for kind in ["key", "value"] {
            given.insert(Decoder::past(0, kind), floats(DType::F32, &[1, 2, 2, d], &vec![0.5; 4 * d]));
        }
        infer(&artifact, &given)
    };
    assert_eq!(numbers(&given(16).expect("runs")["logits"]).len(), VOCAB);
    let said = given(8).expect_err("heads of another size");
    assert!(said.contains("other heads than the layer") && said.contains("[1, 2, 2, 8]") && said.contains("[1, 2, 2, 16]"), "{said}");
}

#[test]
fn lengths_that_are_inputs_of_the_graph_say_which_tokens_are_real() {
    let spec = Decoder { attends: Attends::Grouped, ..Decoder::default() };
    steps(spec);
    let both = Both::of(spec);
    let artifact = Artifact::open(&both.artifact, &OpenOptions::default()).expect("an artifact");
    let signature = artifact.meta().signature.as_ref().expect("a signature");
    let role = |name: &str| signature.inputs.iter().find(|p| p.name == name).map(|p| p.role);
    assert_eq!((role("seqlens_k"), role("total_sequence_length")), (Some(Role::Last), Some(Role::Total)));
    assert!(signature.counts);

    // Two sequences of three and five tokens side by side are what each is alone.
    let side = with_past(&both, tokens(&spec, &[3, 5], 5, 0, &[0, 0]), None);
    let found = infer(&both.artifact, &side).expect("runs");
    let mut alone = with_past(&both, tokens(&spec, &[3], 3, 0, &[0]), None);
    let ids = side["input_ids"].tensor.as_i64().expect("ids");
    alone.insert("input_ids".into(), longs(&[1, 3], &ids[..3]));
    let single = infer(&both.artifact, &alone).expect("runs");
    let [a, b] = [&found, &single].map(|t| numbers(&t["logits"])[..3 * VOCAB].to_vec());
    assert!(a == b, "another company, other logits");
    assert!(numbers(&found["logits"])[3 * VOCAB..5 * VOCAB].iter().all(|x| *x == 0.0), "padding");
    // Then one more token of each: the shorter one's past is padded on its right.
    let next = with_past(&both, tokens(&spec, &[4, 6], 1, 5, &[0, 0]), Some(&found));
    let found = infer(&both.artifact, &next).expect("runs");
    let mut next = with_past(&both, tokens(&spec, &[4], 1, 3, &[0]), Some(&single));
    next.insert("input_ids".into(), longs(&[1, 1], &[(11 * 5 + 3) % VOCAB as i64]));
    let single = infer(&both.artifact, &next).expect("runs");
    assert!(numbers(&found["logits"])[..VOCAB] == *numbers(&single["logits"]), "a past with padding behind it");

    let wrong = |name: &str, value: Value| {
        let mut given = side.clone();
        given.insert(name.into(), value);
        infer(&both.artifact, &given).expect_err("an error")
    };
    let total = wrong("total_sequence_length", words(&[1], &[9]));
    assert!(total.contains("the number of past and new tokens is another") && total.contains('9') && total.contains('5'), "{total}");
    let last = wrong("seqlens_k", words(&[2], &[4, 5]));
    assert!(last.contains("`seqlens_k`, sequence 1") && last.contains("-1 to 4"), "{last}");
    let other = wrong("seqlens_k", longs(&[2], &[4, 4]));
    assert!(other.contains("another element type") && other.contains("I32"), "{other}");
}
