//! Cases with a past: the raised decoder, its cache filled with the past keys and values of the case, gives the logits and the new cache of ONNX
//! Runtime. Where the past is of tokens, compiled code is fed them and must give the same; some cases have a past of random numbers.

use llamac::frontend;
use llamac::lower::Limits;
use llamac_ir::eval::{Cache, Entry, Evaluator, Tensor};
use llamac_tests::model::Runner;
use llamac_tests::onnx::{self, OnnxFixture};

const LIMITS: Limits = Limits { max_step: 64, max_rows: 64, max_batch: 4, max_context: 256 };

/// `[batch, heads, tokens, d]` of a sequence at a position as one row.
fn row(data: &[f32], [heads, tokens, d]: [usize; 3], sequence: usize, at: usize) -> Vec<f32> {
    (0..heads).flat_map(|h| &data[((sequence * heads + h) * tokens + at) * d..][..d]).copied().collect()
}

fn check(fixture: &OnnxFixture) -> usize {
    let model = frontend::load(&fixture.model).unwrap_or_else(|e| panic!("{}: {e}", fixture.name));
    let module = model.module(&LIMITS).unwrap_or_else(|e| panic!("{}: {e}", fixture.name));
    let mut checked = 0;
    for case in fixture.cases().into_iter().filter(|c| !c.contains("padded")) {
        let io = |name: String| fixture.io.get(&name).unwrap_or_else(|| panic!("{} {name}", fixture.name));
        let ids = io(format!("{case}.in.input_ids"));
        let [batch, seq] = ids.shape[..] else { panic!("{case}") };
        let past = io(format!("{case}.in.past_key_values.0.key")).shape[2];
        let mut evaluator = Evaluator::new(&module, model.weights().expect("weights"));
        for layer in 0..model.config.layers {
            let [k, v] = ["key", "value"].map(|kind| io(format!("{case}.in.past_key_values.{layer}.{kind}")));
            let shape = [k.shape[1], past, k.shape[3]];
            let mut cache = Cache::default();
            for s in 0..batch {
                for p in 0..past {
                    let entry = Entry { k: row(&k.f32, shape, s, p), v: row(&v.f32, shape, s, p) };
                    cache.insert(s as i32, p as i32, entry);
                }
            }
            evaluator.set_cache(layer, cache);
        }
        let n = batch * seq;
        let ints = |f: &dyn Fn(usize) -> usize| Tensor::i32(&[n], (0..n).map(|i| f(i) as i32).collect());
        let inputs = [
            ("ids", ints(&|i| ids.i64[i] as usize)),
            ("pos", ints(&|i| past + i % seq)),
            ("seq", ints(&|i| i / seq)),
            ("want", ints(&|i| i)),
        ];
        let found = evaluator.run(&inputs).unwrap_or_else(|e| panic!("{} {case}: {e}", fixture.name));
        let (logits, limit) = fixture.reference(&case, "logits").expect("logits");
        limit.check(&format!("{} {case} logits", fixture.name), found[0].as_f32().expect("floats"), &logits.f32);
        let key = io(format!("{case}.out.present.1.key"));
        let shape = [key.shape[1], past + seq, key.shape[3]];
        let cache = evaluator.cache(1).expect("a cache");
        let written: Vec<f32> = cache.iter().flat_map(|(_, e)| e.k.clone()).collect();
        let expected: Vec<f32> = (0..batch).flat_map(|s| (0..past + seq).flat_map(move |p| row(&key.f32, shape, s, p))).collect();
        let (_, limit) = fixture.reference(&case, "present.1.key").expect("keys");
        limit.check(&format!("{} {case} keys of layer 1", fixture.name), &written, &expected);
        checked += usize::from(past > 0);
    }
    checked
}

#[test]
fn a_decoder_goes_on_from_a_past_that_onnx_runtime_computed() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in super::imported::DECODERS {
        let checked = check(&onnx::one(folder.path(), name));
        assert!(checked >= 2, "{name}: {checked} cases with a past");
    }
}

/// The tokens whose values of the first layer the past has: those depend on the token alone. `None`: the past is of no tokens.
fn tokens_of_past(fixture: &OnnxFixture, case: &str, vocab: usize, evaluator: &mut Evaluator<'_>) -> Option<Vec<Vec<u32>>> {
    let past = &fixture.io[&format!("{case}.in.past_key_values.0.value")];
    let [batch, heads, tokens, d] = past.shape[..] else { panic!("{case}") };
    let ints = |v: Vec<i32>| Tensor::i32(&[v.len()], v);
    let all = || (0..vocab as i32).collect::<Vec<_>>();
    let inputs = [("ids", ints(all())), ("pos", ints(vec![0; vocab])), ("seq", ints(all())), ("want", ints(vec![0]))];
    evaluator.run(&inputs).unwrap_or_else(|e| panic!("{}: {e}", fixture.name));
    let values: Vec<Vec<f32>> = evaluator.cache(0).expect("a cache").iter().map(|(_, e)| e.v.clone()).collect();
    let found = |s: usize, p: usize| {
        let row = row(&past.f32, [heads, tokens, d], s, p);
        let distance = |v: &Vec<f32>| v.iter().zip(&row).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
        let mut order: Vec<(f32, u32)> = values.iter().zip(0..).map(|(v, token)| (distance(v), token)).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        (order[0].0 < 0.1 * order[1].0).then_some(order[0].1)
    };
    (0..batch).map(|s| (0..tokens).map(|p| found(s, p)).collect()).collect()
}

/// Cases with a past through compiled code: the tokens that the past is of, then the new ones, at once and one by one.
fn check_compiled(name: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let fixture = onnx::one(folder.path(), name);
    let model = frontend::load(&fixture.model).unwrap_or_else(|e| panic!("{name}: {e}"));
    let module = model.module(&LIMITS).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut runner = Runner::open(&super::compiled::artifact(&fixture, folder.path()), 2);
    let mut checked = 0;
    for case in fixture.cases().into_iter().filter(|c| !c.starts_with("prefill")) {
        let mut evaluator = Evaluator::new(&module, model.weights().expect("weights"));
        let past =
            tokens_of_past(&fixture, &case, model.config.vocab, &mut evaluator).unwrap_or_else(|| panic!("{name} {case}: no tokens"));
        let ids = &fixture.io[&format!("{case}.in.input_ids")];
        let (expected, limit) = fixture.reference(&case, "logits").expect("logits");
        let (batch, seq) = (past.len(), ids.shape[1]);
        let each = expected.f32.len() / batch;
        for (s, past) in past.iter().enumerate() {
            let new = ids.i64[s * seq..][..seq].iter().map(|&t| u32::try_from(t).expect("a token"));
            let tokens: Vec<u32> = past.iter().copied().chain(new).collect();
            for rest in [seq, 1] {
                let found = runner.logits_in_pieces(&tokens, std::iter::once(past.len()).chain(std::iter::repeat(rest)));
                let what = format!("{name} {case} {s}: {} tokens, then {seq} in pieces of {rest}", past.len());
                limit.check(&what, &found[found.len() - each..], &expected.f32[s * each..][..each]);
                checked += 1;
            }
        }
    }
    assert!(checked >= 4, "{name}: {checked} sequences");
}

#[test]
fn compiled_code_goes_on_from_the_past_of_a_case() {
    check_compiled("llama3-onnx_optimum");
    check_compiled("llama3-onnx_genai_int4_b32");
}
