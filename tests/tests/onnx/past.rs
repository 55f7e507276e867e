//! Cases with a past: the raised decoder, its cache filled with the past keys and values of the case, gives the logits and the new cache of ONNX
//! Runtime. That compiled code computes what the decoder means is checked when it is compiled.

use llamac::frontend;
use llamac::lower::Limits;
use llamac_ir::eval::{Cache, Entry, Evaluator, Tensor};
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
