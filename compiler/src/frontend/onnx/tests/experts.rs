//! `QMoE` against a second evaluation in plain loops: bits, blocks, zero points, biases, activations and gates; and what of it is refused.

use super::super::eager::{Value, run};
use super::*;
use llamac_ir::dtype::DType;
use llamac_ir::eval::{Cache, Tensor, eval_func};
use std::collections::BTreeMap;

const HIDDEN: usize = 32;
const INNER: usize = 16;
const EXPERTS: usize = 3;
const TOKENS: usize = 4;

/// One product of all experts: `[EXPERTS, rows, columns]`.
struct Weights {
    rows: usize,
    columns: usize,
    /// Columns that share a scale.
    block: usize,
    codes: Vec<u8>,
    scales: Vec<f32>,
    zeros: Option<Vec<u8>>,
    bias: Option<Vec<f32>>,
}

/// A mixture and how it is coded.
struct Mixture {
    bits: usize,
    block: usize,
    k: usize,
    activation: &'static str,
    fusion: i64,
    up: Weights,
    down: Weights,
    third: Option<Weights>,
    /// Alpha, beta and limit.
    unit: Option<[f32; 3]>,
}

/// Numbers that look random, the same each time.
fn sequence(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    }
}

fn real(next: &mut impl FnMut() -> u64) -> f32 {
    (next() % 2001) as f32 / 1000.0 - 1.0
}

impl Weights {
    fn of(seed: u64, rows: usize, columns: usize, bits: usize, block: usize, zeros: bool, bias: bool) -> Weights {
        let mut next = sequence(seed);
        let most = 1 << bits;
        let count = EXPERTS * rows * columns;
        let blocks = EXPERTS * rows * (columns / block);
        Weights {
            rows,
            columns,
            block,
            codes: (0..count).map(|_| (next() % most) as u8).collect(),
            scales: (0..blocks).map(|_| (0.5 + 0.5 * real(&mut next).abs()) * 4.0 / most as f32 / (columns as f32).sqrt()).collect(),
            zeros: zeros.then(|| (0..blocks).map(|_| (next() % most) as u8).collect()),
            bias: bias.then(|| (0..EXPERTS * rows).map(|_| real(&mut next)).collect()),
        }
    }

    /// Row by row: codes less zero points, times scales, plus biases.
    fn times(&self, m: &Mixture, expert: usize, x: &[f64]) -> Vec<f64> {
        let one = |row: usize| {
            let at = expert * self.rows + row;
            let dot = (0..self.columns).map(|c| {
                let block = at * (self.columns / self.block) + c / self.block;
                let zero = self.zeros.as_ref().map_or(1 << (m.bits - 1), |z| i64::from(z[block]));
                (i64::from(self.codes[at * self.columns + c]) - zero) as f64 * f64::from(self.scales[block]) * x[c]
            });
            dot.sum::<f64>() + self.bias.as_ref().map_or(0.0, |b| f64::from(b[at]))
        };
        (0..self.rows).map(one).collect()
    }
}

fn packed(codes: &[u8], bits: usize) -> Vec<u8> {
    if bits == 8 { codes.to_vec() } else { codes.chunks(2).map(|c| c[0] | c.get(1).map_or(0, |h| h << 4)).collect() }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

impl Mixture {
    fn expected(&self, x: &[f32], scores: &[f32], given: Option<&[f32]>, normal: bool) -> Vec<f64> {
        let mut out = Vec::new();
        for token in 0..TOKENS {
            let x: Vec<f64> = x[token * HIDDEN..][..HIDDEN].iter().map(|x| f64::from(*x)).collect();
            let score = |e: usize| f64::from(scores[token * EXPERTS + e]);
            let mut order: Vec<usize> = (0..EXPERTS).collect();
            order.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
            let chosen = &order[..self.k];
            let mut weights: Vec<f64> = match given {
                Some(given) => chosen.iter().map(|e| f64::from(given[token * EXPERTS + e])).collect(),
                None => chosen.iter().map(|e| (score(*e) - score(order[0])).exp()).collect(),
            };
            if normal || given.is_none() {
                let sum: f64 = weights.iter().sum();
                weights.iter_mut().for_each(|w| *w /= sum);
            }
            let mut y = vec![0.0; HIDDEN];
            for (e, weight) in chosen.iter().zip(weights) {
                let h = self.up.times(self, *e, &x);
                let h = self.activated(h, self.third.as_ref().map(|t| t.times(self, *e, &x)));
                y.iter_mut().zip(self.down.times(self, *e, &h)).for_each(|(y, v)| *y += weight * v);
            }
            out.extend(y);
        }
        out
    }

    fn activated(&self, h: Vec<f64>, third: Option<Vec<f64>>) -> Vec<f64> {
        let [alpha, beta, limit] = self.unit.map_or([1.0, 0.0, f64::INFINITY], |u| u.map(f64::from));
        let unit = |g: f64, v: f64| {
            let (g, v) = (g.min(limit), v.clamp(-limit, limit));
            g * sigmoid(alpha * g) * (v + beta)
        };
        match (self.activation, self.fusion, third) {
            (_, _, Some(value)) => h.into_iter().zip(value).map(|(g, v)| unit(g, v)).collect(),
            ("swiglu", 1, _) => h.chunks(2).map(|p| unit(p[0], p[1])).collect(),
            ("swiglu", _, _) => (0..INNER).map(|i| unit(h[i], h[INNER + i])).collect(),
            ("relu", ..) => h.into_iter().map(|x| x.max(0.0)).collect(),
            ("silu", ..) => h.into_iter().map(|x| x * sigmoid(x)).collect(),
            ("gelu", ..) => h.into_iter().map(|x| 0.5 * x * (1.0 + (0.797_884_560_8 * (x + 0.044_715 * x * x * x)).tanh())).collect(),
            _ => h,
        }
    }

    fn attributes(&self, normal: bool) -> Vec<AttributeProto> {
        let text = AttributeProto {
            name: "activation_type".into(),
            s: self.activation.into(),
            r#type: AttributeType::String as i32,
            ..AttributeProto::default()
        };
        let mut all = vec![
            text,
            int("k", self.k as i64),
            int("expert_weight_bits", self.bits as i64),
            int("swiglu_fusion", self.fusion),
            int("normalize_routing_weights", i64::from(normal)),
        ];
        if self.block < INNER {
            all.push(int("block_size", self.block as i64));
        }
        for (name, f) in ["activation_alpha", "activation_beta", "swiglu_limit"].into_iter().zip(self.unit.into_iter().flatten()) {
            all.push(AttributeProto { name: name.into(), f, r#type: AttributeType::Float as i32, ..AttributeProto::default() });
        }
        all
    }

    /// The model; `x` is `[tokens, HIDDEN]` or has the axes that are given.
    fn model(&self, attributes: Vec<AttributeProto>, dims: &[&str], weights: bool) -> ModelProto {
        let mut tensors = Vec::new();
        let mut inputs = vec!["x".to_owned(), "scores".to_owned()];
        inputs.resize(15, String::new());
        let bytes = |name: &str, dims: &[usize], data: Vec<u8>| TensorProto {
            data_type: DataType::Uint8 as i32,
            raw_data: data,
            ..floats(name, &dims.iter().map(|d| *d as i64).collect::<Vec<_>>(), &[])
        };
        let all = [(Some(&self.up), 2, 11, "fc1"), (Some(&self.down), 5, 12, "fc2"), (self.third.as_ref(), 8, 13, "fc3")];
        for (w, at, zero, name) in all.into_iter().filter_map(|(w, a, z, n)| Some((w?, a, z, n))) {
            let blocks = w.columns / w.block;
            let shape: Vec<i64> = [EXPERTS, w.rows, blocks].iter().map(|d| *d as i64).collect();
            let scale_shape = if self.block < INNER { &shape[..] } else { &shape[..2] };
            inputs[at] = name.to_owned();
            tensors.push(bytes(name, &[EXPERTS, w.rows, w.columns * self.bits / 8], packed(&w.codes, self.bits)));
            inputs[at + 1] = format!("{name}.scale");
            tensors.push(floats(&inputs[at + 1], scale_shape, &w.scales));
            if let Some(zeros) = &w.zeros {
                inputs[zero] = format!("{name}.zero");
                let zeros = packed(zeros, self.bits);
                tensors.push(bytes(&inputs[zero], &[zeros.len()], zeros));
            }
            if let Some(bias) = &w.bias {
                inputs[at + 2] = format!("{name}.bias");
                tensors.push(floats(&inputs[at + 2], &[EXPERTS as i64, w.rows as i64], bias));
            }
        }
        let mut ports = vec![value("x", DataType::Float, dims), value("scores", DataType::Float, &["t", &EXPERTS.to_string()])];
        if weights {
            inputs[14] = "weights".to_owned();
            ports.push(value("weights", DataType::Float, &["t", &EXPERTS.to_string()]));
        }
        let names: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let mut whole = super::model(node("com.microsoft", "QMoE", &names, attributes), tensors);
        let graph = whole.graph.as_mut().unwrap();
        graph.input = ports;
        graph.output = vec![value("y", DataType::Float, dims)];
        whole
    }
}

fn mixture(bits: usize, block: usize, activation: &'static str, fusion: i64, extras: bool) -> Mixture {
    let wide = if fusion > 0 { 2 * INNER } else { INNER };
    // Without blocks a row has one scale, however long it is.
    let of = |seed, rows, columns: usize| Weights::of(seed, rows, columns, bits, block.min(columns), extras, extras);
    Mixture { bits, block, k: 2, activation, fusion, up: of(1, wide, HIDDEN), down: of(2, HIDDEN, INNER), third: None, unit: None }
}

/// Three ways to the same numbers: node by node with a batch, the imported graph with symbols, and plain loops.
fn check(m: &Mixture, given: bool, normal: bool) {
    let mut next = sequence(9);
    let x: Vec<f32> = (0..TOKENS * HIDDEN).map(|_| real(&mut next)).collect();
    let scores: Vec<f32> = (0..TOKENS * EXPERTS).map(|_| 3.0 * real(&mut next)).collect();
    let weights: Vec<f32> = (0..TOKENS * EXPERTS).map(|_| real(&mut next).abs()).collect();
    let expected = m.expected(&x, &scores, given.then_some(&weights[..]), normal);
    let what = format!("{} {} bits, block {}, fusion {}", m.activation, m.bits, m.block, m.fusion);
    let near = |found: &[f32]| {
        assert_eq!(found.len(), expected.len());
        let most = expected.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
        for (a, b) in found.iter().zip(&expected) {
            assert!((f64::from(*a) - b).abs() < 1e-5 * most, "{what}: {a}, expected {b}");
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let hidden = HIDDEN.to_string();
    let path = write(folder.path(), &m.model(m.attributes(normal), &["b", "s", &hidden], given));
    let tensor = |shape: &[usize], data: &[f32]| Value { dtype: DType::F32, tensor: Tensor::f32(shape, data.to_vec()) };
    let mut inputs = BTreeMap::from([
        ("x".to_owned(), tensor(&[2, TOKENS / 2, HIDDEN], &x)),
        ("scores".to_owned(), tensor(&[TOKENS, EXPERTS], &scores)),
    ]);
    if given {
        inputs.insert("weights".into(), tensor(&[TOKENS, EXPERTS], &weights));
    }
    let found = run(&path, &inputs).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(found[0].1.tensor.shape(), [2, TOKENS / 2, HIDDEN]);
    near(found[0].1.tensor.as_f32().unwrap());

    let graph =
        import(&write(folder.path(), &m.model(m.attributes(normal), &["t", &hidden], given))).unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut args = vec![Tensor::f32(&[TOKENS, HIDDEN], x.clone()), Tensor::f32(&[TOKENS, EXPERTS], scores.clone())];
    args.extend(given.then(|| Tensor::f32(&[TOKENS, EXPERTS], weights.clone())));
    let found = eval_func(&graph.module.funcs[0], &graph.weights, None, &args, &mut Cache::default()).unwrap();
    near(found[0].as_f32().unwrap());
}

#[test]
fn experts_in_codes_compute_what_their_formula_says() {
    for bits in [4, 8] {
        for block in [8, HIDDEN] {
            for extras in [false, true] {
                check(&mixture(bits, block, "silu", 0, extras), false, true);
                check(&Mixture { unit: Some([1.702, 1.0, 0.5]), ..mixture(bits, block, "swiglu", 1, extras) }, false, true);
            }
        }
    }
    for activation in ["relu", "gelu", "identity"] {
        check(&mixture(8, HIDDEN, activation, 0, true), false, true);
    }
    check(&mixture(4, 8, "swiglu", 2, true), false, true);
    let third = || Some(Weights::of(3, INNER, HIDDEN, 4, 8, false, true));
    check(&Mixture { third: third(), ..mixture(4, 8, "silu", 0, false) }, false, true);
    check(&Mixture { third: third(), unit: Some([1.5, 0.25, 1.0]), ..mixture(4, 8, "swiglu", 0, false) }, false, true);
}

#[test]
fn gates_are_a_softmax_of_what_is_chosen_or_given() {
    check(&Mixture { k: 1, ..mixture(8, HIDDEN, "silu", 0, false) }, false, true);
    check(&Mixture { k: EXPERTS, ..mixture(8, HIDDEN, "silu", 0, false) }, false, false);
    check(&mixture(8, HIDDEN, "silu", 0, false), true, false);
    check(&mixture(8, HIDDEN, "silu", 0, false), true, true);
}

#[test]
fn mixtures_that_mean_something_else_are_refused_by_name() {
    let m = mixture(4, 8, "silu", 0, true);
    let with = |attribute: AttributeProto| {
        let mut all = m.attributes(true);
        all.retain(|a| a.name != attribute.name);
        all.push(attribute);
        m.model(all, &["t", "32"], false)
    };
    let text = |name: &str, s: &str| AttributeProto {
        name: name.into(),
        s: s.into(),
        r#type: AttributeType::String as i32,
        ..AttributeProto::default()
    };
    refused(&with(int("use_sparse_mixer", 1)), &["`use_sparse_mixer`", "QMoE"]);
    refused(&with(int("expert_weight_bits", 2)), &["`expert_weight_bits`", "found:    2", "4 or 8"]);
    refused(&with(int("normalize_routing_weights", 0)), &["`normalize_routing_weights`", "CPU and CUDA"]);
    refused(&with(int("k", 4)), &["`k`", "1 to 3"]);
    refused(&with(int("block_size", 5)), &["`block_size`", "found:    5"]);
    refused(&with(int("block_size", 16)), &["the scale of the experts does not fit"]);
    refused(&with(int("swiglu_fusion", 1)), &["`swiglu_fusion` 1", "without"]);
    refused(&with(text("activation_type", "tanh")), &["`activation_type` tanh", "relu, gelu"]);
    refused(&with(text("activation_type", "swiglu")), &["`swiglu_fusion` 0"]);
    refused(&with(text("quant_type", "fp4")), &["`quant_type`", "fp4"]);
    refused(&with(int("unknown", 1)), &["an attribute is not compiled", "`unknown`"]);
    refused(&m.model(m.attributes(true), &["t", "48"], false), &["the weight of the experts does not fit", "48 columns"]);
}
