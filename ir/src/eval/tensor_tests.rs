//! The tensor dialect against numbers worked out by hand: each op as a line of text.

use super::{Cache, Tensor, eval_func};
use crate::parse::parse;
use crate::recipe::Source;
use crate::testing::Sources;

/// Runs lines that define `%y` from `%x: f32[2, 3] = 1 ..= 6`, `%i: i64[2] = [1, -1]` and `%b: bool[2, 1] = [1, 0]`.
fn run(lines: &str) -> Tensor {
    run_with(lines, &Sources::default())
}

fn run_with(lines: &str, source: &dyn Source) -> Tensor {
    let text = format!(
        "module t stage=graph\ndim a = 0..9\ndim b = 0..9\nfunc @main(%x: f32[a, b], %i: i64[a], %b: bool[a, 1]) {{\n{lines}\n  return %y\n}}\n"
    );
    let module = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    crate::verify::verify(&module, module.stage).unwrap_or_else(|e| panic!("{}", crate::verify::listed(&e)));
    let args = [Tensor::f32(&[2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), Tensor::i64(&[2], vec![1, -1]), Tensor::i64(&[2, 1], vec![1, 0])];
    let results = eval_func(&module.funcs[0], source, None, &args, &mut Cache::default()).unwrap_or_else(|e| panic!("{e}"));
    results.into_iter().next().unwrap()
}

fn floats(lines: &str, shape: &[usize], expected: &[f32]) {
    let found = run(lines);
    assert_eq!((found.shape(), found.as_f32().unwrap_or(&[])), (shape, expected), "{lines}");
}

fn ints(lines: &str, shape: &[usize], expected: &[i64]) {
    let found = run(lines);
    assert_eq!((found.shape(), found.as_i64().unwrap_or(&[])), (shape, expected), "{lines}");
}

#[test]
fn elements_are_combined_with_broadcasting() {
    let column = "%c = tensor.slice %x, axis=1, start=[1], len=[1]\n";
    floats(&format!("{column}%y = tensor.add %x, %c"), &[2, 3], &[3.0, 4.0, 5.0, 9.0, 10.0, 11.0]);
    floats(&format!("{column}%y = tensor.sub %c, %x"), &[2, 3], &[1.0, 0.0, -1.0, 1.0, 0.0, -1.0]);
    floats(&format!("{column}%y = tensor.mul %x, %c"), &[2, 3], &[2.0, 4.0, 6.0, 20.0, 25.0, 30.0]);
    floats(&format!("{column}%y = tensor.div %x, %c"), &[2, 3], &[0.5, 1.0, 1.5, 0.8, 1.0, 1.2]);
    floats(&format!("{column}%y = tensor.max %x, %c"), &[2, 3], &[2.0, 2.0, 3.0, 5.0, 5.0, 6.0]);
    floats(&format!("{column}%y = tensor.min %x, %c"), &[2, 3], &[1.0, 2.0, 2.0, 4.0, 5.0, 5.0]);
    floats(&format!("{column}%y = tensor.pow %x, %c"), &[2, 3], &[1.0, 4.0, 9.0, 1024.0, 3125.0, 7776.0]);
    ints(&format!("{column}%y = tensor.less %x, %c"), &[2, 3], &[1, 0, 0, 1, 0, 0]);
    ints(&format!("{column}%y = tensor.less_or_equal %x, %c"), &[2, 3], &[1, 1, 0, 1, 1, 0]);
    ints(&format!("{column}%y = tensor.greater %x, %c"), &[2, 3], &[0, 0, 1, 0, 0, 1]);
    ints(&format!("{column}%y = tensor.greater_or_equal %x, %c"), &[2, 3], &[0, 1, 1, 0, 1, 1]);
    ints(&format!("{column}%e = tensor.equal %x, %c\n%n = tensor.not %e\n%y = tensor.and %n, %b"), &[2, 3], &[1, 0, 1, 0, 0, 0]);
    ints(&format!("{column}%e = tensor.equal %x, %c\n%y = tensor.or %e, %b"), &[2, 3], &[1, 1, 1, 0, 1, 0]);
    ints(&format!("{column}%e = tensor.equal %x, %c\n%y = tensor.xor %e, %b"), &[2, 3], &[1, 0, 1, 0, 1, 0]);
    floats("%n = tensor.neg %x\n%y = tensor.where %b, %x, %n", &[2, 3], &[1.0, 2.0, 3.0, -4.0, -5.0, -6.0]);
}

#[test]
fn integers_stay_integers() {
    ints("%y = tensor.mul %i, %i", &[2], &[1, 1]);
    ints("%v = tensor.values shape=[2], values=[7, -7]\n%w = tensor.values shape=[], values=[2]\n%y = tensor.div %v, %w", &[2], &[3, -3]);
    ints("%v = tensor.values shape=[2], values=[7, -7]\n%w = tensor.values shape=[], values=[3]\n%y = tensor.mod %v, %w", &[2], &[1, 2]);
    ints("%y = tensor.values shape=[2], values=[a*b, b-a]", &[2], &[6, 1]);
    ints("%y = tensor.range start=[a], len=[b], step=2", &[3], &[2, 4, 6]);
    ints("%h = tensor.fill shape=[2], value=-1.5, dtype=f32\n%y = tensor.cast %h, to=i64", &[2], &[-1, -1]);
    ints("%h = tensor.fill shape=[2], value=300.0, dtype=f32\n%y = tensor.cast %h, to=u8", &[2], &[44, 44]);
    ints("%h = tensor.fill shape=[1], value=0.5, dtype=f32\n%y = tensor.cast %h, to=bool", &[1], &[1]);
    floats("%h = tensor.fill shape=[1], value=0.1, dtype=bf16\n%y = tensor.cast %h, to=f32", &[1], &[0.100_097_656]);
}

#[test]
fn functions_of_one_number() {
    let quarter = "%q = tensor.fill shape=[1], value=0.25, dtype=f32\n";
    for (op, expected) in [
        ("neg", -0.25),
        ("abs", 0.25),
        ("sqrt", 0.5),
        ("reciprocal", 4.0),
        ("exp", 1.284_025_4),
        ("log", -1.386_294_4),
        ("floor", 0.0),
        ("ceil", 1.0),
        ("round", 0.0),
        ("cos", 0.968_912_4),
        ("sin", 0.247_403_96),
        ("tanh", 0.244_918_66),
        ("sigmoid", 0.562_176_5),
        ("silu", 0.140_544_13),
        ("relu", 0.25),
        ("sign", 1.0),
        ("erf", 0.276_326_4),
        ("tan", 0.255_341_92),
        ("asin", 0.252_680_24),
        ("acos", 1.318_116_1),
        ("atan", 0.244_978_67),
        ("sinh", 0.252_612_32),
        ("cosh", 1.031_413_1),
        ("asinh", 0.247_466_46),
        ("atanh", 0.255_412_82),
    ] {
        floats(&format!("{quarter}%y = tensor.{op} %q"), &[1], &[expected]);
    }
    ints(&format!("{quarter}%y = tensor.is_nan %q"), &[1], &[0]);
    floats("%q = tensor.fill shape=[1], value=3.0, dtype=f32\n%e = tensor.erf %q\n%y = tensor.sub %e, %q", &[1], &[-2.000_022_2]);
    floats("%q = tensor.fill shape=[1], value=2.0, dtype=f32\n%y = tensor.acosh %q", &[1], &[1.316_958]);
    let zero = "%o = tensor.fill shape=[1], value=0.0, dtype=f32\n%l = tensor.log %o\n";
    ints(&format!("{zero}%y = tensor.is_inf %l"), &[1], &[1]);
    ints(&format!("{zero}%y = tensor.is_inf %l, negative=0"), &[1], &[0]);
}

#[test]
fn bits_and_remainders() {
    let two = "%p = tensor.values shape=[2], values=[12, -7]\n%q = tensor.values shape=[2], values=[10, 3]\n";
    for (op, expected) in [
        ("bit_and", [8, 1]),
        ("bit_or", [14, -5]),
        ("bit_xor", [6, -6]),
        ("shift_left", [12 << 10, -56]),
        ("shift_right", [0, -1]),
        ("fmod", [2, -1]),
    ] {
        ints(&format!("{two}%y = tensor.{op} %p, %q"), &[2], &expected);
    }
    ints(&format!("{two}%y = tensor.bit_not %p"), &[2], &[-13, 6]);
    let small = "%f = tensor.fill shape=[1], value=500.0, dtype=f32\n";
    floats(&format!("{small}%y = tensor.cast %f, to=f8e4m3"), &[1], &[448.0]);
    floats(&format!("{small}%y = tensor.cast %f, to=f8e5m2, saturate=0"), &[1], &[512.0]);
    floats(&format!("{small}%m = tensor.mul %f, %f\n%y = tensor.cast %m, to=f8e5m2, saturate=0"), &[1], &[f32::INFINITY]);
}

#[test]
fn axes_are_reduced() {
    floats("%y = tensor.reduce_prod %x, axes=[1]", &[2, 1], &[6.0, 120.0]);
    floats("%y = tensor.cumprod %x, axis=1", &[2, 3], &[1.0, 2.0, 6.0, 4.0, 20.0, 120.0]);
    ints("%y = tensor.arg_max %x, axis=1", &[2, 1], &[2, 2]);
    ints("%c = tensor.fill shape=[3], value=1.0, dtype=f32\n%y = tensor.arg_min %c, axis=0, last=1", &[1], &[2]);
    floats("%y, %n = tensor.top_k %x, axis=1, k=2, largest=0", &[2, 2], &[1.0, 2.0, 4.0, 5.0]);
    floats("%y = tensor.reduce_sum %x, axes=[-1]", &[2, 1], &[6.0, 15.0]);
    floats("%y = tensor.reduce_mean %x, axes=[0, 1]", &[1, 1], &[3.5]);
    floats("%y = tensor.reduce_max %x, axes=[0]", &[1, 3], &[4.0, 5.0, 6.0]);
    floats("%y = tensor.reduce_min %x, axes=[1]", &[2, 1], &[1.0, 4.0]);
    floats("%y = tensor.cumsum %x, axis=1", &[2, 3], &[1.0, 3.0, 6.0, 4.0, 9.0, 15.0]);
    floats("%y = tensor.cumsum %x, axis=1, exclusive=1, reverse=1", &[2, 3], &[5.0, 3.0, 0.0, 11.0, 6.0, 0.0]);
    floats("%l = tensor.log %x\n%y = tensor.softmax %l, axis=1", &[2, 3], &[1.0 / 6.0, 1.0 / 3.0, 0.5, 0.266_666_65, 1.0 / 3.0, 0.4]);
    floats("%t = tensor.transpose %x, perm=[1, 0]\n%y = tensor.matmul %x, %t", &[2, 2], &[14.0, 32.0, 32.0, 77.0]);
    floats("%y, %n = tensor.top_k %x, axis=1, k=2", &[2, 2], &[3.0, 2.0, 6.0, 5.0]);
    ints("%n, %y = tensor.top_k %x, axis=0, k=1", &[1, 3], &[1, 1, 1]);
}

#[test]
fn elements_are_moved() {
    floats("%y = tensor.reshape %x, shape=[1, a*b]", &[1, 6], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    floats("%y = tensor.transpose %x, perm=[1, 0]", &[3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    ints("%y = tensor.expand %b, shape=[a, 2]", &[2, 2], &[1, 1, 0, 0]);
    ints("%y = tensor.tile %b, repeats=[2, 2]", &[4, 2], &[1, 1, 0, 0, 1, 1, 0, 0]);
    floats("%y = tensor.gather %x, %i, axis=1", &[2, 2], &[2.0, 3.0, 5.0, 6.0]);
    floats("%y = tensor.slice %x, axis=1, start=[2], len=[2], step=-2", &[2, 2], &[3.0, 1.0, 6.0, 4.0]);
    floats("%y = tensor.concat %x, %x, axis=-1", &[2, 6], &[1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 4.0, 5.0, 6.0]);
    floats("%y = tensor.trilu %x, upper=1", &[2, 3], &[1.0, 2.0, 3.0, 0.0, 5.0, 6.0]);
    floats("%y = tensor.trilu %x, upper=0, k=-1", &[2, 3], &[0.0, 0.0, 0.0, 4.0, 0.0, 0.0]);
    floats("%p = tensor.values shape=[2, 2], values=[1, 2, 0, 0]\n%y = tensor.gather_nd %x, %p", &[2], &[6.0, 1.0]);
    let places = "%p = tensor.values shape=[2, 1], values=[2, 0]\n";
    floats(&format!("{places}%y = tensor.gather_elements %x, %p, axis=1"), &[2, 1], &[3.0, 4.0]);
    let updates = "%u = tensor.fill shape=[2, 1], value=9.0, dtype=f32\n";
    floats(&format!("{places}{updates}%y = tensor.scatter_elements %x, %p, %u, axis=1"), &[2, 3], &[1.0, 2.0, 9.0, 9.0, 5.0, 6.0]);
}

#[test]
fn elements_are_written_where_indices_say() {
    let rows = "%p = tensor.values shape=[2, 1], values=[1, 1]\n%u = tensor.fill shape=[2, b], value=10.0, dtype=f32\n";
    floats(&format!("{rows}%y = tensor.scatter_nd %x, %p, %u"), &[2, 3], &[1.0, 2.0, 3.0, 10.0, 10.0, 10.0]);
    floats(&format!("{rows}%y = tensor.scatter_nd %x, %p, %u, reduction=add"), &[2, 3], &[1.0, 2.0, 3.0, 24.0, 25.0, 26.0]);
    let places = "%p = tensor.values shape=[2, 1], values=[2, 0]\n%u = tensor.fill shape=[2, 1], value=9.0, dtype=f32\n";
    floats(&format!("{places}%y = tensor.scatter_elements %x, %p, %u, axis=1, reduction=mul"), &[2, 3], &[1.0, 2.0, 27.0, 36.0, 5.0, 6.0]);
    let pairs = "%v = tensor.values shape=[2, 3], values=[1, 2, 3, 4, 5, 6]\n%p = tensor.values shape=[2, 1], values=[2, 0]\n";
    ints(&format!("{pairs}%y = tensor.gather_nd %v, %p, batch_dims=1"), &[2], &[3, 4]);
}

#[test]
fn norms_rotation_and_attention() {
    let source = Sources::default().with("g", 3, vec![1.0, 2.0, 0.5]);
    let found = run_with(
        "weight @g = \"g\": f32[3]\n%v = tensor.values shape=[2, 3], values=[1, 2, 3, 4, 5, 6]\n%r = tensor.cast %v, to=f32\n%y = tensor.rms_norm %r, @g, eps=0.0",
        &source,
    );
    let factor = 1.0 / (14.0f32 / 3.0).sqrt();
    assert!((found.as_f32().unwrap()[1] - 4.0 * factor).abs() < 1e-6);
    let unit =
        run("%v = tensor.values shape=[2, 3], values=[1, 2, 3, 4, 5, 6]\n%r = tensor.cast %v, to=f32\n%y = tensor.rms_unit %r, eps=0.0");
    assert!((unit.as_f32().unwrap()[2] - 3.0 * factor).abs() < 1e-6);
    // A quarter turn: (a, b) becomes (-b, a).
    let turn = "%c = tensor.fill shape=[1, 1, 2], value=0.0, dtype=f32\n%s = tensor.fill shape=[1, 1, 2], value=1.0, dtype=f32\n\
                %v = tensor.values shape=[1, 1, 1, 4], values=[1, 2, 3, 4]\n%f = tensor.cast %v, to=f32\n";
    floats(&format!("{turn}%y = tensor.rotary %f, %c, %s"), &[1, 1, 1, 4], &[-3.0, -4.0, 1.0, 2.0]);
    floats(&format!("{turn}%y = tensor.rotary %f, %c, %s, interleaved=1"), &[1, 1, 1, 4], &[-2.0, 1.0, -4.0, 3.0]);
    // One key head of two tokens, two query heads; scores are equal, so that the result is the mean of what is seen.
    let qkv = "%q = tensor.fill shape=[1, 2, 2, 1], value=1.0, dtype=f32\n%k = tensor.fill shape=[1, 1, 2, 1], value=1.0, dtype=f32\n\
               %w = tensor.values shape=[1, 1, 2, 1], values=[3, 5]\n%v = tensor.cast %w, to=f32\n";
    floats(&format!("{qkv}%y = tensor.attention %q, %k, %v, scale=1.0"), &[1, 2, 2, 1], &[4.0; 4]);
    floats(&format!("{qkv}%y = tensor.attention %q, %k, %v, scale=1.0, is_causal=1"), &[1, 2, 2, 1], &[3.0, 4.0, 3.0, 4.0]);
    let mask = "%m = tensor.values shape=[2, 2], values=[0, 1, 1, 1]\n%n = tensor.cast %m, to=bool\n";
    floats(&format!("{qkv}{mask}%y = tensor.attention %q, %k, %v, %n, scale=1.0"), &[1, 2, 2, 1], &[5.0, 4.0, 5.0, 4.0]);
    floats(
        &format!("{qkv}{mask}%o = tensor.cast %n, to=f32\n%l = tensor.log %o\n%y = tensor.attention %q, %k, %v, %l, scale=1.0"),
        &[1, 2, 2, 1],
        &[5.0, 4.0, 5.0, 4.0],
    );
}

#[test]
fn shapes_that_do_not_fit_are_refused_with_both_types() {
    let refused = |lines: &str, words: &str| {
        let text = format!("module t stage=graph\ndim a = 0..9\nfunc @main(%x: f32[a, 3], %i: i64[a]) {{\n{lines}\n  return %y\n}}\n");
        let said = parse(&text).unwrap_err().to_string();
        assert!(said.contains(words), "{words} is not in: {said}");
    };
    refused("%y = tensor.add %x, %i", "elements of type f32");
    refused("%y = tensor.matmul %x, %x", "3 rows");
    refused("%y = tensor.reshape %x, shape=[a, 4]", "as many elements as f32[a, 4]");
    refused("%y = tensor.transpose %x, perm=[0, 0]", "every axis once");
    refused("%y = tensor.gather %i, %x, axis=0", "i64 or i32");
    refused("%y = tensor.softmax %x, axis=2", "an axis of 2");
    refused("%y = tensor.not %x", "bool");
    refused("%y = tensor.top_k %x, axis=1, k=4", "at most 3");
    refused("%y = tensor.slice %x, axis=1, start=[0, 1], len=[1]", "one number");
}

#[test]
fn bytes_spread_over_a_tensor_and_zero() {
    floats("%y = tensor.dynamic_scale %x", &[], &[6.0 / 255.0]);
    ints("%y = tensor.dynamic_zero %x", &[], &[0]);
    let below = "%n = tensor.neg %x\n";
    floats(&format!("{below}%y = tensor.dynamic_scale %n"), &[], &[6.0 / 255.0]);
    ints(&format!("{below}%y = tensor.dynamic_zero %n"), &[], &[255]);
    floats("%n = tensor.sub %x, %x\n%y = tensor.dynamic_scale %n", &[], &[1.0]);
    let codes = "%s = tensor.fill shape=[], value=0.5, dtype=f32\n%z = tensor.fill shape=[], value=3.0, dtype=u8\n";
    ints(&format!("{codes}%y = tensor.quantize %x, %s, %z"), &[2, 3], &[5, 7, 9, 11, 13, 15]);
    ints(&format!("{codes}%n = tensor.neg %x\n%y = tensor.quantize %n, %s, %z"), &[2, 3], &[1, 0, 0, 0, 0, 0]);
    // Halves go to the even code.
    ints(&format!("{}%y = tensor.quantize %x, %s, %z", codes.replace("0.5", "2.0")), &[2, 3], &[3, 4, 5, 5, 5, 6]);
}
