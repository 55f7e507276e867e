//! Every op against numbers worked out by hand or by another formula, fused ops against their parts, and whole models step by step.

use super::*;
use crate::parse::parse;
use crate::testing::{self, Rng, Sources};

/// Halfway between two bf16: rounds to 1.
const TIE: f32 = 1.0 + 1.0 / 256.0;

fn f(columns: usize, data: &[f32]) -> Tensor {
    Tensor::f32(&[data.len() / columns, columns], data.to_vec())
}
fn ints(data: &[i32]) -> Tensor {
    Tensor::i32(&[data.len()], data.to_vec())
}

/// Evaluates `%y = OP` over values `%a, %b, ...` and the weights given as text.
fn run(op: &str, weights: &str, args: &[Tensor]) -> Vec<f32> {
    let mut cache = Cache::default();
    eval_text(&format!("{weights}\n%y = {op} return %y"), args, &Sources::default(), &mut cache).unwrap()[0].as_f32().unwrap().to_vec()
}

fn eval_text(body: &str, args: &[Tensor], source: &Sources, cache: &mut Cache) -> Result<Vec<Tensor>, EvalError> {
    let ty = |t: &Tensor| {
        let rest: String = t.shape()[1..].iter().map(|n| format!(", {n}")).collect();
        format!("{}[s{rest}]", t.dtype())
    };
    let params: Vec<String> = args.iter().zip("abcde".chars()).map(|(t, name)| format!("%{name}: {}", ty(t))).collect();
    let text = format!("module m stage=placed func @f({}) {{ {body} }}", params.join(", "));
    let module = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    eval_func(&module.funcs[0], source, None, args, cache)
}

#[track_caller]
fn near(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (a, b) in found.iter().zip(expected) {
        assert!((f64::from(*a) - b).abs() <= 1e-6 * b.abs().max(1e-3), "{found:?} is not {expected:?}");
    }
}

#[test]
fn embed_takes_rows_of_the_table() {
    let table = "weight @t = literal([3, 2], 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)";
    assert_eq!(run("embed %a, @t", table, &[ints(&[2, 0, 2])]), [5.0, 6.0, 1.0, 2.0, 5.0, 6.0]);
}

#[test]
fn gates_are_sigmoids_of_the_largest_scores_and_ties_go_to_the_lowest_index() {
    let half = 1.0 / (1.0 + (-0.5f64).exp());
    near(&run("top_gates %a, top_k=1", "", &[f(3, &[0.5, 0.5, 0.25, -9.0, 0.0, -1.0])]), &[half, 0.0, 0.0, 0.0, 0.5, 0.0]);
    near(&run("top_gates %a, top_k=2", "", &[f(3, &[0.5, 0.0, 0.0])]), &[half, 0.5, 0.0]);
}

#[test]
fn experts_scale_multiply_and_sum() {
    assert_eq!(run("expert_scale %a, %b", "", &[f(2, &[1.0, 2.0]), f(3, &[0.5, 0.0, 2.0])]), [0.5, 1.0, 0.0, 0.0, 2.0, 4.0]);
    let x = Tensor::f32(&[1, 2, 2], vec![1.0, 10.0, 2.0, 20.0]);
    let w = "weight @w = literal([2, 1, 2], 1.0, 2.0, 3.0, 4.0)";
    assert_eq!(run("expert_linear %a, @w", w, std::slice::from_ref(&x)), [21.0, 86.0]);
    assert_eq!(run("expert_sum %a", "", &[x]), [3.0, 30.0]);
}

#[test]
fn chosen_experts_are_every_expert_with_the_others_masked() {
    let mut rng = Rng(21);
    let (x, scores, residual) = (f(4, &rng.floats(12)), f(3, &rng.floats(9)), f(4, &rng.floats(12)));
    let mut weight = |name: &str, shape: [usize; 3]| {
        let data: Vec<String> = rng.floats(shape.iter().product()).iter().map(|x| format!(", {x:?}")).collect();
        format!("weight @{name} = literal([{}, {}, {}]{}) ", shape[0], shape[1], shape[2], data.concat())
    };
    let weights = weight("up", [3, 10, 4]) + &weight("down", [3, 4, 5]);
    for (top_k, act) in [(1, "f32"), (2, "bf16"), (3, "f32")] {
        let plain = format!(
            "{weights} %g = top_gates %b, top_k={top_k} %z = expert_scale %a, %g %u = expert_linear %z, @up, act={act} \
             %u0 = slice_cols %u, start=0, len=5 %u1 = slice_cols %u, start=5, len=5 %s = silu %u0 %m = mul %s, %u1 \
             %d = expert_linear %m, @down, act={act} %t = expert_sum %d %y = add %c, %t return %y"
        );
        let fused = format!(
            "{weights} %i, %g = route %b, top_k={top_k} %m = moe_linear_swiglu %a, %i, %g, @up, act={act} \
             %y = moe_linear_add %m, %i, @down, %c, act={act} return %y"
        );
        let args = [x.clone(), scores.clone(), residual.clone()];
        let [a, b] = [plain, fused].map(|t| eval_text(&t, &args, &Sources::default(), &mut Cache::default()).unwrap().remove(0));
        assert_eq!(a, b, "top_k={top_k}");
    }
}

#[test]
fn attention_temperature_is_one_until_the_floor_scale() {
    let factors = run(
        "attn_temperature %a, floor_scale=8192.0, attn_scale=0.1",
        "",
        &[ints(&[0, 8190, 8191, 16383, 131_071, 1_048_575, 10_485_759])],
    );
    near(&factors, &[1.0, 1.0, 1.069_314_7, 1.109_861_2, 1.283_321_3, 1.485_981_2, 1.715_539_6]);
    assert_eq!(run("row_scale %a, %b", "", &[f(2, &[1.0, 2.0, 3.0, 4.0]), f(1, &[2.0, 0.5])]), [2.0, 4.0, 1.5, 2.0]);
}

#[test]
fn linear_multiplies_by_the_transposed_weight_and_adds_the_bias() {
    let w = "weight @w = literal([3, 2], 1.0, 2.0, 3.0, 4.0, -1.0, 0.5) weight @b = literal([3], 10.0, 20.0, 30.0)";
    assert_eq!(run("linear %a, @w", w, &[f(2, &[1.0, 10.0, 2.0, 0.0])]), [21.0, 43.0, 4.0, 2.0, 6.0, -2.0]);
    assert_eq!(run("linear %a, @w, @b", w, &[f(2, &[1.0, 10.0])]), [31.0, 63.0, 34.0]);
    // Over eight columns and a rest, against a plain sum; the weight is a value here.
    let mut rng = Rng(5);
    let (x, w) = (rng.floats(19), rng.floats(19));
    let text: Vec<String> = w.iter().map(|x| format!(", {x:?}")).collect();
    let sum: f64 = x.iter().zip(&w).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    near(&run("linear %a, @w", &format!("weight @w = literal([1, 19]{})", text.concat()), &[f(19, &x)]), &[sum]);
}

#[test]
fn act_rounds_the_input_of_a_product_and_nothing_else() {
    // 1 + 1/256 is halfway between two bf16 and goes to 1; as a weight it stays.
    let w = "weight @w = literal([1, 1], 1.00390625)";
    assert_eq!(run("linear %a, @w, act=bf16", w, &[f(1, &[TIE])]), [TIE]);
    assert_eq!(run("linear %a, @w", w, &[f(1, &[TIE])]), [TIE * TIE]);
}

#[test]
fn sums_do_not_lose_small_terms() {
    let w = "weight @w = literal([1, 3], 1e8, 1.0, -1e8)";
    assert_eq!(run("linear %a, @w", w, &[f(3, &[1.0, 0.5, 1.0])]), [0.5]);
}

#[test]
fn norms_divide_by_the_root_of_the_mean_square() {
    // Mean squares 12.5 and 0.5.
    let x = f(4, &[3.0, 4.0, 3.0, 4.0, 1.0, 0.0, -1.0, 0.0]);
    let (a, b) = (1.0 / (12.5f64 + 0.5).sqrt(), 1.0 / (0.5f64 + 0.5).sqrt());
    let unit = [3.0 * a, 4.0 * a, 3.0 * a, 4.0 * a, b, 0.0, -b, 0.0];
    near(&run("rms_unit %a, eps=0.5", "", std::slice::from_ref(&x)), &unit);
    let gamma = "weight @g = literal([4], 2.0, 1.0, 1.0, -1.0)";
    let weighted: Vec<f64> = unit.iter().zip([2.0, 1.0, 1.0, -1.0].iter().cycle()).map(|(u, g)| u * g).collect();
    near(&run("rms_norm %a, @g, eps=0.5", gamma, &[x]), &weighted);
    // Groups of two: mean squares 12.5 and 2.
    let (a, b) = (1.0 / 12.5f64.sqrt(), 1.0 / 2f64.sqrt());
    near(&run("rms_unit %a, eps=0.0, group=2", "", &[f(4, &[3.0, 4.0, 0.0, 2.0])]), &[3.0 * a, 4.0 * a, 0.0, 2.0 * b]);
}

#[test]
fn angles_are_cosine_and_sine_of_the_f32_product() {
    let freqs = "weight @f = literal([2], 1.0, 0.3)";
    let far = f64::from(100_000f32 * 0.3f32);
    let expected = [2f64.cos(), 2f64.sin(), f64::from(2.0 * 0.3f32).cos(), f64::from(2.0 * 0.3f32).sin()];
    let mut expected = expected.to_vec();
    expected.extend([1e5f64.cos(), 1e5f64.sin(), far.cos(), far.sin()]);
    near(&run("rope_angles %a, @f", freqs, &[ints(&[2, 100_000])]), &expected);
}

#[test]
fn rope_rotates_pairs_in_both_layouts() {
    // A quarter turn for pair 0, a half turn for pair 1; two heads.
    let angles = f(4, &[0.0, 1.0, -1.0, 0.0]);
    let x = f(8, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    let args = [x, angles];
    let interleaved = run("rope %a, %b, head_dim=4, layout=interleaved", "", &args);
    assert_eq!(interleaved, [-2.0, 1.0, -3.0, -4.0, -6.0, 5.0, -7.0, -8.0]);
    let half = run("rope %a, %b, head_dim=4, layout=half", "", &args);
    assert_eq!(half, [-3.0, -2.0, 1.0, -4.0, -7.0, -6.0, 5.0, -8.0]);
}

#[test]
fn elementwise_ops_work_on_equal_shapes_and_on_vectors() {
    let (a, b) = (f(2, &[1.0, 2.0, 3.0, 4.0]), f(2, &[10.0, 20.0, 30.0, 40.0]));
    let v = "weight @v = literal([2], 2.0, -1.0)";
    assert_eq!(run("add %a, %b", "", &[a.clone(), b.clone()]), [11.0, 22.0, 33.0, 44.0]);
    assert_eq!(run("mul %a, %b", "", &[a.clone(), b.clone()]), [10.0, 40.0, 90.0, 160.0]);
    assert_eq!(run("add %a, @v", v, std::slice::from_ref(&a)), [3.0, 1.0, 5.0, 3.0]);
    assert_eq!(run("mul %a, @v", v, std::slice::from_ref(&a)), [2.0, -2.0, 6.0, -4.0]);
    near(&run("silu %a", "", &[f(3, &[0.0, 1.0, -2.0])]), &[0.0, 0.731_058_578_6, -0.238_405_844_0]);
    near(&run("swiglu %a, %b", "", &[f(1, &[1.0]), f(1, &[3.0])]), &[3.0 * 0.731_058_578_6]);
    assert_eq!(run("silu %a", "", &[f(2, &[-1e30, 1e30])]), [-0.0, 1e30]);
}

#[test]
fn columns_and_rows_are_picked() {
    let x = f(3, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(run("slice_cols %a, start=1, len=2", "", std::slice::from_ref(&x)), [2.0, 3.0, 5.0, 6.0]);
    assert_eq!(run("gather_rows %a, %b", "", &[x, ints(&[1, 1])]), [4.0, 5.0, 6.0, 4.0, 5.0, 6.0]);
}

#[test]
fn an_int8_cache_has_steps_of_its_own_for_each_head() {
    // Scales 1 and 2, ties to even; a head of zeros.
    let k = f(6, &[127.0, 0.5, 1.5, -254.0, 3.0, 5.0]);
    let args = [k, f(6, &[0.0, 0.0, 0.0, 1.0, 127.0, -126.6]), ints(&[3]), ints(&[1])];
    let mut cache = Cache::default();
    eval_text("kv_write %a, %b, %c, %d, head_dim=3, kv=i8 return", &args, &Sources::default(), &mut cache).unwrap();
    let entry = cache.get(1, 3).unwrap();
    assert_eq!((&entry.k[..], &entry.v[..]), (&[127.0, 0.0, 2.0, -254.0, 4.0, 4.0][..], &[0.0, 0.0, 0.0, 1.0, 127.0, -127.0][..]));
}

/// Keys of one element are the position plus one, values the square of it, of sequence 0 at positions 0..3.
fn cache(kv: &str) -> Cache {
    let mut cache = Cache::default();
    let args = [f(1, &[1.0, 2.0, 3.0]), f(1, &[1.0, 4.0, 9.0]), ints(&[0, 1, 2]), ints(&[0, 0, 0])];
    eval_text(&format!("kv_write %a, %b, %c, %d, head_dim=1, kv={kv} return"), &args, &Sources::default(), &mut cache).unwrap();
    cache
}

#[test]
fn attention_is_a_softmax_over_the_positions_up_to_its_own() {
    let mut cache = cache("f32");
    let attend = "%y = attention %a, %b, %c, heads=1, kv_heads=1, head_dim=1, scale=0.5 return %y";
    let args = [f(1, &[2.0, 2.0, 2.0]), ints(&[0, 1, 2]), ints(&[0, 0, 0])];
    let out = eval_text(attend, &args, &Sources::default(), &mut cache).unwrap();
    // Scores 0.5 * 2 * (1, 2, 3).
    let e = |x: f64| x.exp();
    let two = (e(1.0) + 4.0 * e(2.0)) / (e(1.0) + e(2.0));
    let three = (e(1.0) + 4.0 * e(2.0) + 9.0 * e(3.0)) / (e(1.0) + e(2.0) + e(3.0));
    near(out[0].as_f32().unwrap(), &[1.0, two, three]);
}

#[test]
fn a_chunk_hides_what_lies_before_it() {
    let mut cache = cache("f32");
    let attend = "%y = attention %a, %b, %c, heads=1, kv_heads=1, head_dim=1, scale=1.0, chunk=2 return %y";
    let args = [f(1, &[0.0, 0.0]), ints(&[1, 2]), ints(&[0, 0])];
    let out = eval_text(attend, &args, &Sources::default(), &mut cache).unwrap();
    near(out[0].as_f32().unwrap(), &[2.5, 9.0]);
}

#[test]
fn query_heads_share_key_heads_in_order_and_sequences_are_apart() {
    let mut cache = Cache::default();
    // Two KV heads of one element, two sequences; with one position each the result is the value.
    let args = [f(2, &[1.0, 1.0, 1.0, 1.0]), f(2, &[1.0, 2.0, 3.0, 4.0]), ints(&[0, 0]), ints(&[5, 9])];
    eval_text("kv_write %a, %b, %c, %d, head_dim=1 return", &args, &Sources::default(), &mut cache).unwrap();
    let attend = "%y = attention %a, %b, %c, heads=4, kv_heads=2, head_dim=1, scale=1.0 return %y";
    let args = [f(4, &[0.0; 8]), ints(&[0, 0]), ints(&[9, 5])];
    let out = eval_text(attend, &args, &Sources::default(), &mut cache).unwrap();
    assert_eq!(out[0].as_f32().unwrap(), [3.0, 3.0, 4.0, 4.0, 1.0, 1.0, 2.0, 2.0]);
}

#[test]
fn keys_and_values_are_rounded_to_the_format_of_the_cache() {
    let args = [f(1, &[TIE]), f(1, &[TIE]), ints(&[3]), ints(&[1])];
    // A head of one element is its own greatest.
    for (kv, kept) in [("f32", TIE), ("bf16", 1.0), ("i8", TIE)] {
        let mut cache = Cache::default();
        eval_text(&format!("kv_write %a, %b, %c, %d, head_dim=1, kv={kv} return"), &args, &Sources::default(), &mut cache).unwrap();
        let written: Vec<_> = cache.iter().map(|(at, entry)| (at, entry.k[0], entry.v[0])).collect();
        assert_eq!(written, [((1, 3), kept, kept)], "{kv}");
    }
}

#[test]
fn fused_ops_mean_exactly_their_parts() {
    let mut rng = Rng(21);
    let sources = Sources::default().with("g", 8, rng.floats(8)).with("w", 8, rng.floats(48)).with("b", 6, rng.floats(6));
    let weights = "weight @g = \"g\": f32[8] weight @w = \"w\": bf16[6, 8] weight @b = \"b\": f32[6]";
    let halves = "%g = slice_cols %l, start=0, len=3 %u = slice_cols %l, start=3, len=3 %s = silu %g %y = mul %s, %u";
    let norm = "%n = rms_norm %a, @g, eps=1e-5 %l = linear %n, @w, @b, act=bf16";
    let unit = "%n = rms_unit %a, eps=1e-5 %l = linear %n, @w, @b, act=bf16";
    let pairs = [
        ("%y = swiglu %a, %c", "%s = silu %a %y = mul %s, %c".to_owned()),
        ("%y = norm_linear %a, @g, @w, @b, eps=1e-5, act=bf16", format!("{norm} %y = slice_cols %l, start=0, len=6")),
        ("%y = unit_linear %a, @w, @b, eps=1e-5, act=bf16", format!("{unit} %y = slice_cols %l, start=0, len=6")),
        ("%y = norm_linear_swiglu %a, @g, @w, @b, eps=1e-5, act=bf16", format!("{norm} {halves}")),
        ("%y = unit_linear_swiglu %a, @w, @b, eps=1e-5, act=bf16", format!("{unit} {halves}")),
        ("%y = linear_add %a, @w, %b, @b, act=bf16", "%l = linear %a, @w, @b, act=bf16 %y = add %b, %l".to_owned()),
    ];
    let args = [f(8, &rng.floats(24)), f(6, &rng.floats(18)), f(8, &rng.floats(24))];
    for (fused, parts) in pairs {
        let value = |body: &str| eval_text(&format!("{weights} {body} return %y"), &args, &sources, &mut Cache::default()).unwrap();
        assert_eq!(value(fused), value(&parts), "{fused}");
    }
}

#[test]
fn a_fused_cache_write_means_exactly_its_parts() {
    let mut rng = Rng(22);
    let args = [f(8, &rng.floats(16)), f(8, &rng.floats(16)), f(4, &rng.floats(8)), ints(&[4, 0]), ints(&[0, 2])];
    let written = |body: &str| {
        let mut cache = Cache::default();
        eval_text(&format!("{body} return"), &args, &Sources::default(), &mut cache).unwrap();
        cache
    };
    let fused = written("rope_kv_write %a, %b, %c, %d, %e, head_dim=4, kv=bf16");
    let parts = written("%k = rope %a, %c, head_dim=4, layout=interleaved kv_write %k, %b, %d, %e, head_dim=4, kv=bf16");
    assert_eq!((fused.len(), fused.clone()), (2, parts));
    assert!(fused.get(2, 0).is_some() && fused.get(0, 0).is_none());
}

/// Logits of the small model for all of `ids`, positions from `first` on.
fn step(evaluator: &mut Evaluator<'_>, ids: &[i32], first: i32, seq: i32) -> Vec<f32> {
    let n = ids.len() as i32;
    let all: Vec<i32> = (0..n).collect();
    let pos: Vec<i32> = (first..first + n).collect();
    let inputs = [("ids", ints(ids)), ("pos", ints(&pos)), ("seq", ints(&vec![seq; ids.len()])), ("want", ints(&all))];
    evaluator.run(&inputs).unwrap()[0].as_f32().unwrap().to_vec()
}

#[test]
fn a_model_gives_the_same_logits_at_once_and_token_by_token() {
    let (module, sources) = testing::model();
    let ids = [3, 0, 10, 7, 3];
    let whole = step(&mut Evaluator::new(&module, &sources), &ids, 0, 0);
    let mut evaluator = Evaluator::new(&module, &sources);
    step(&mut evaluator, &[5, 5, 5], 0, 1);
    let mut single: Vec<f32> = Vec::new();
    for (i, id) in ids.iter().enumerate() {
        single.extend(step(&mut evaluator, &[*id], i as i32, 0));
    }
    assert_eq!(whole, single);
    assert_ne!(whole[..11], whole[44..], "the same token at another position must see more");
    assert_eq!(evaluator.cache(1).unwrap().len(), 8);
    evaluator.reset();
    assert!(evaluator.cache(0).is_none());
    assert_eq!(step(&mut evaluator, &ids, 0, 0), whole);
}

#[test]
fn layers_read_their_own_weights_and_caches() {
    let (mut module, sources) = testing::model();
    let both = step(&mut Evaluator::new(&module, &sources), &[1, 2], 0, 0);
    module.funcs[1].body[2].calls[0].first = 1;
    module.funcs[1].body[2].calls[0].count = 1;
    let second = step(&mut Evaluator::new(&module, &sources), &[1, 2], 0, 0);
    assert_ne!(both, second);
    // One layer evaluated by itself gives what the model gives up to its last product.
    let mut cache = Cache::default();
    let embed = f(8, &sources.0["embed"].1).gather(&[1, 2]).unwrap();
    let angles = [0.0f32, 1.0].iter().flat_map(|p| [p.cos(), p.sin(), (p * 0.01).cos(), (p * 0.01).sin()]).collect::<Vec<_>>();
    let args = [embed, f(4, &angles), ints(&[0, 1]), ints(&[0, 0])];
    let out = eval_func(&module.funcs[0], &sources, Some(1), &args, &mut cache).unwrap();
    let text: Vec<String> = sources.0["embed"].1.iter().map(|x| format!(", {x:?}")).collect();
    let logits = run("linear %a, @e", &format!("weight @e = literal([11, 8]{})", text.concat()), &out);
    near(&logits, &second.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
    assert_eq!(cache.len(), 2);
}

#[test]
fn what_is_out_of_range_is_an_error_that_says_where() {
    let (module, sources) = testing::model();
    let inputs = |id: i32, pos: i32, want: i32| {
        let one = |x| ints(&[x]);
        [("ids", one(id)), ("pos", one(pos)), ("seq", one(0)), ("want", one(want))]
    };
    let said = |inputs: &[(&str, Tensor)]| Evaluator::new(&module, &sources).run(inputs).unwrap_err().to_string();
    assert_eq!(said(&inputs(11, 0, 0)), "@main, `%x = embed %ids, @embed`: found id 11, expected 0..11");
    assert_eq!(said(&inputs(-1, 0, 0)), "@main, `%x = embed %ids, @embed`: found id -1, expected 0..11");
    assert_eq!(said(&inputs(0, 0, 1)), "@main, `%rows = gather_rows %y, %want`: found row 1, expected 0..1");
    assert!(said(&inputs(0, -1, 0)).contains("found position -1 of sequence 0"));
    assert!(said(&inputs(0, 4, 0)).contains("position 0 of sequence 0 is read but was never written"));
    assert!(said(&inputs(0, 0, 0)[1..]).contains("`ids` is missing"));
    let mut other = inputs(0, 0, 0);
    other[1].1 = ints(&[0, 1]);
    assert!(said(&other).contains("parameter %pos: found i32[2], expected i32[s] with s=1"));
    other[1] = ("positions", ints(&[0]));
    assert!(said(&other).contains("`positions`"));
    let lost = Sources::default();
    assert!(Evaluator::new(&module, &lost).run(&inputs(0, 0, 0)).unwrap_err().message.contains("`embed`"));
}

#[test]
fn a_module_that_does_not_verify_is_not_run() {
    let (mut module, sources) = testing::model();
    module.funcs[0].body[0].attrs.clear();
    let said = Evaluator::new(&module, &sources).run(&[]).unwrap_err().to_string();
    assert!(said.contains("number of attributes"), "{said}");
    let said = eval_func(&module.funcs[0], &sources, None, &[], &mut Cache::default()).unwrap_err().to_string();
    assert!(said.contains("number of attributes"), "{said}");
    let said = eval_func(&module.funcs[1], &sources, None, &vec![ints(&[0]); 4], &mut Cache::default()).unwrap_err().to_string();
    assert!(said.contains("`layers`"), "{said}");
}
