//! Tiny decoders as ONNX graphs, made of what is asked for: element type, cache, how attention is written, sizes. Weights are random and the same for
//! the same sizes and seed.

use crate::fuzz::Rng;
use crate::graph::{Attr, DataType, Graph, rounded, spread};

/// How attention is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attends {
    /// `Attention` with a mask that the graph computes from `attention_mask`, and `position_ids`.
    Masked,
    /// `Attention` with `is_causal`, positions counted by the graph; there is no cache then.
    Causal,
    /// `GroupQueryAttention`, with lengths as inputs of the graph.
    Grouped,
}

/// A decoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decoder {
    /// How attention is written.
    pub attends: Attends,
    /// Whether there is a past that comes in and goes out.
    pub cache: bool,
    /// Element type of the graph.
    pub dtype: DataType,
    /// What weights are rounded to first.
    pub weights: DataType,
    /// Layers.
    pub layers: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Size of a head.
    pub head_dim: usize,
    /// Attention chunk, 0: none.
    pub chunk: i64,
    /// Experts of a `QMoE` in place of the MLP, 0: none.
    pub experts: usize,
    /// Seed of the weights.
    pub seed: u64,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder {
            attends: Attends::Masked,
            cache: true,
            dtype: DataType::Float,
            weights: DataType::Float,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            chunk: 0,
            experts: 0,
            seed: 1,
        }
    }
}

/// Width of the residual stream.
pub const HIDDEN: usize = 32;
/// Width of the MLP.
const INNER: usize = 48;
/// Tokens.
pub const VOCAB: usize = 40;
/// Positions that stored rotary tables have.
const POSITIONS: usize = 64;

/// A graph under way.
struct Made<'a> {
    spec: &'a Decoder,
    g: Graph,
    rng: Rng,
    /// Cosine and sine; or the tables, for `GroupQueryAttention`.
    turns: [String; 2],
    mask: String,
}

impl Decoder {
    /// The graph.
    pub fn graph(&self) -> Graph {
        let mut made = Made { spec: self, g: Graph::new(23), rng: Rng::new(self.seed), turns: Default::default(), mask: String::new() };
        made.decoder();
        made.g
    }

    /// Name of the past of a layer.
    pub fn past(layer: usize, kind: &str) -> String {
        format!("past_key_values.{layer}.{kind}")
    }
}

impl Made<'_> {
    fn weight(&mut self, name: &str, shape: &[usize], scale: f32) -> String {
        let data = spread(&mut self.rng, shape.iter().product(), scale);
        self.stored(name, shape, &data)
    }

    fn stored(&mut self, name: &str, shape: &[usize], data: &[f32]) -> String {
        let data: Vec<f32> = data.iter().map(|x| rounded(self.spec.weights, *x)).collect();
        self.g.floats(name, self.spec.dtype, shape, &data)
    }

    fn cast(&mut self, x: &str, to: DataType) -> String {
        self.g.op("Cast", &[x], &[("to", Attr::Int(i64::from(to as i32)))])
    }

    fn axes(&mut self, op: &str, x: &str, axes: &[i64]) -> String {
        let name = format!("axes_{}", self.g.proto.node.len());
        let axes = self.g.ints(&name, &[axes.len()], axes);
        self.g.op(op, &[x, &axes], &[])
    }

    /// The length of an axis, one number.
    fn length(&mut self, x: &str, axis: i64) -> String {
        let shape = self.g.op("Shape", &[x], &[]);
        let name = format!("axis_{}", self.g.proto.node.len());
        let axis = self.g.ints(&name, &[], &[axis]);
        self.g.op("Gather", &[&shape, &axis], &[("axis", Attr::Int(0))])
    }

    fn decoder(&mut self) {
        let spec = *self.spec;
        let all = if spec.cache { "past + sequence" } else { "sequence" };
        let ids = self.g.input("input_ids", DataType::Int64, &["batch", "sequence"]);
        match spec.attends {
            Attends::Masked => {
                self.g.input("attention_mask", DataType::Int64, &["batch", all]);
                self.g.input("position_ids", DataType::Int64, &["batch", "sequence"]);
            }
            Attends::Causal => {}
            Attends::Grouped => {
                self.g.input("seqlens_k", DataType::Int32, &["batch"]);
                self.g.input("total_sequence_length", DataType::Int32, &["1"]);
            }
        }
        let [kv, d] = [spec.kv_heads, spec.head_dim].map(|n| n.to_string());
        for layer in (0..spec.layers).filter(|_| spec.cache) {
            for kind in ["key", "value"] {
                self.g.input(&Decoder::past(layer, kind), spec.dtype, &["batch", &kv, "past", &d]);
            }
        }
        self.g.ints("zero", &[], &[0]);
        self.g.ints("one", &[], &[1]);
        self.positions();
        self.masks();
        let table = self.weight("embed", &[VOCAB, HIDDEN], 1.0);
        let mut x = self.g.op("Gather", &[&table, &ids], &[("axis", Attr::Int(0))]);
        let mut presents = Vec::new();
        for layer in 0..spec.layers {
            let normed = self.norm(&x, &format!("l{layer}.norm"));
            let (attended, present) = self.attention(&normed, layer);
            presents.push(present);
            x = self.g.op("Add", &[&x, &attended], &[]);
            let normed = self.norm(&x, &format!("l{layer}.norm2"));
            let fed = self.mlp(&normed, layer);
            x = self.g.op("Add", &[&x, &fed], &[]);
        }
        let normed = self.norm(&x, "norm");
        let head = self.weight("head", &[HIDDEN, VOCAB], 0.4);
        self.g.node("", "MatMul", &[&normed, &head], &["logits"], &[]);
        self.g.output("logits", spec.dtype, &["batch", "sequence", &VOCAB.to_string()]);
        for (layer, names) in presents.iter().enumerate().filter(|_| spec.cache) {
            for (kind, name) in ["key", "value"].into_iter().zip(names) {
                let public = format!("present.{layer}.{kind}");
                if *name != public {
                    self.g.node("", "Identity", &[name], &[&public], &[]);
                }
                self.g.output(&public, spec.dtype, &["batch", &kv, all, &d]);
            }
        }
    }

    /// Cosine and sine of all angles: of positions that come in or are counted, or as tables.
    fn positions(&mut self) {
        let spec = *self.spec;
        let half = spec.head_dim / 2;
        let frequencies: Vec<f32> = (0..half).map(|i| 10000f32.powf(-(i as f32) / half as f32)).collect();
        if spec.attends == Attends::Grouped {
            let angles =
                |f: fn(f32) -> f32| (0..POSITIONS).flat_map(|p| frequencies.iter().map(move |w| f(p as f32 * w))).collect::<Vec<_>>();
            self.turns = [("cos", f32::cos as fn(f32) -> f32), ("sin", f32::sin as fn(f32) -> f32)]
                .map(|(name, f)| self.g.floats(name, spec.dtype, &[POSITIONS, half], &angles(f)));
            return;
        }
        let positions = match spec.attends {
            Attends::Masked => self.axes("Unsqueeze", "position_ids", &[2]),
            _ => {
                let len = self.length("input_ids", 1);
                let counted = self.g.op("Range", &["zero", &len, "one"], &[]);
                let rows = self.axes("Unsqueeze", &counted, &[0, 2]);
                let batch = self.length("input_ids", 0);
                let parts: Vec<String> = [batch.as_str(), len.as_str(), "one"].map(|n| self.axes("Unsqueeze", n, &[0])).to_vec();
                let shape = self.g.op("Concat", &parts.iter().map(String::as_str).collect::<Vec<_>>(), &[("axis", Attr::Int(0))]);
                self.g.op("Expand", &[&rows, &shape], &[])
            }
        };
        let positions = self.cast(&positions, DataType::Float);
        let frequencies = self.g.floats("inv_freq", DataType::Float, &[half], &frequencies);
        let angles = self.g.op("Mul", &[&positions, &frequencies], &[]);
        self.turns = ["Cos", "Sin"].map(|f| {
            let wide = self.g.op(f, &[&angles], &[]);
            self.cast(&wide, spec.dtype)
        });
    }

    /// What is seen, `[batch, 1, sequence, past + sequence]`: tokens that are none later, in the same chunk, and no padding.
    fn masks(&mut self) {
        if self.spec.attends != Attends::Masked {
            return;
        }
        let total = self.length("attention_mask", 1);
        let new = self.length("input_ids", 1);
        let past = self.g.op("Sub", &[&total, &new], &[]);
        let keys = self.g.op("Range", &["zero", &total, "one"], &[]);
        let queries = self.g.op("Range", &[&past, &total, "one"], &[]);
        let queries = self.axes("Unsqueeze", &queries, &[1]);
        let mut seen = self.g.op("LessOrEqual", &[&keys, &queries], &[]);
        if self.spec.chunk > 0 {
            let chunk = self.g.ints("chunk", &[], &[self.spec.chunk]);
            let [a, b] = [&keys, &queries].map(|x| self.g.op("Div", &[x, &chunk], &[]));
            let same = self.g.op("Equal", &[&a, &b], &[]);
            seen = self.g.op("And", &[&seen, &same], &[]);
        }
        let real = self.cast("attention_mask", DataType::Bool);
        let real = self.axes("Unsqueeze", &real, &[1, 2]);
        self.mask = self.g.op("And", &[&seen, &real], &[]);
    }

    fn norm(&mut self, x: &str, name: &str) -> String {
        let gamma = spread(&mut self.rng, HIDDEN, 0.2).iter().map(|g| 1.0 + g).collect::<Vec<_>>();
        let gamma = self.stored(name, &[HIDDEN], &gamma);
        self.g.op("RMSNormalization", &[x, &gamma], &[("axis", Attr::Int(-1)), ("epsilon", Attr::Float(1e-5))])
    }

    fn product(&mut self, x: &str, name: &str, from: usize, to: usize) -> String {
        let w = self.weight(name, &[from, to], (3.0 / from as f32).sqrt());
        self.g.op("MatMul", &[x, &w], &[])
    }

    fn mlp(&mut self, x: &str, layer: usize) -> String {
        if self.spec.experts > 0 {
            return self.experts(x, layer);
        }
        let [gate, up] = ["gate", "up"].map(|n| self.product(x, &format!("l{layer}.{n}"), HIDDEN, INNER));
        let sigmoid = self.g.op("Sigmoid", &[&gate], &[]);
        let gated = self.g.op("Mul", &[&gate, &sigmoid], &[]);
        let both = self.g.op("Mul", &[&gated, &up], &[]);
        self.product(&both, &format!("l{layer}.down"), INNER, HIDDEN)
    }

    /// Two experts of each token, of `experts`, in codes of 8 bits.
    fn experts(&mut self, x: &str, layer: usize) -> String {
        let experts = self.spec.experts;
        let scores = self.product(x, &format!("l{layer}.router"), HIDDEN, experts);
        let name = format!("l{layer}.flat");
        let shape = self.g.ints(&name, &[2], &[-1, experts as i64]);
        let scores = self.g.op("Reshape", &[&scores, &shape], &[]);
        let mut coded = |name: &str, rows: usize, columns: usize| {
            let codes = (0..experts * rows * columns).map(|_| self.rng.below(256) as u8).collect();
            let codes = self.g.tensor(&format!("l{layer}.{name}"), DataType::Uint8, &[experts, rows, columns], codes);
            (codes, self.g.floats(&format!("l{layer}.{name}.scale"), self.spec.dtype, &[experts, rows], &vec![0.004; experts * rows]))
        };
        let ((up, up_scale), (down, down_scale)) = (coded("up", INNER, HIDDEN), coded("down", HIDDEN, INNER));
        let out = format!("l{layer}.moe");
        let attrs = [
            ("k", Attr::Int(2)),
            ("expert_weight_bits", Attr::Int(8)),
            ("activation_type", Attr::Text("silu".into())),
            ("normalize_routing_weights", Attr::Int(1)),
        ];
        self.g.node("com.microsoft", "QMoE", &[x, &scores, &up, &up_scale, "", &down, &down_scale], &[&out], &attrs);
        out
    }

    /// `[batch, sequence, heads * d]` to `[batch, heads, sequence, d]`.
    fn heads(&mut self, x: &str, heads: usize) -> String {
        let name = format!("shape_{}", self.g.proto.node.len());
        let shape = self.g.ints(&name, &[4], &[0, 0, heads as i64, self.spec.head_dim as i64]);
        let split = self.g.op("Reshape", &[x, &shape], &[]);
        self.g.op("Transpose", &[&split], &[("perm", Attr::Ints(vec![0, 2, 1, 3]))])
    }

    /// What attention adds, and the names of keys and values behind it.
    fn attention(&mut self, x: &str, layer: usize) -> (String, [String; 2]) {
        let spec = *self.spec;
        let [wide, narrow] = [spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim];
        let q = self.product(x, &format!("l{layer}.q"), HIDDEN, wide);
        let k = self.product(x, &format!("l{layer}.k"), HIDDEN, narrow);
        let v = self.product(x, &format!("l{layer}.v"), HIDDEN, narrow);
        let [cos, sin] = self.turns.clone();
        let (attended, present) = if spec.attends == Attends::Grouped {
            let present = ["key", "value"].map(|kind| format!("present.{layer}.{kind}"));
            let [past_k, past_v] = ["key", "value"].map(|kind| Decoder::past(layer, kind));
            let stored = [&q, &k, &v, &past_k, &past_v].map(String::as_str);
            let inputs = [&stored[..], &["seqlens_k", "total_sequence_length", &cos, &sin]].concat();
            let out = format!("l{layer}.gqa");
            let attrs = [
                ("num_heads", Attr::Int(spec.heads as i64)),
                ("kv_num_heads", Attr::Int(spec.kv_heads as i64)),
                ("do_rotary", Attr::Int(1)),
            ];
            self.g.node("com.microsoft", "GroupQueryAttention", &inputs, &[&out, &present[0], &present[1]], &attrs);
            (out, present)
        } else {
            let [q, k, v] = [(&q, spec.heads), (&k, spec.kv_heads), (&v, spec.kv_heads)].map(|(x, n)| self.heads(x, n));
            let q = self.g.op("RotaryEmbedding", &[&q, &cos, &sin], &[]);
            let k = self.g.op("RotaryEmbedding", &[&k, &cos, &sin], &[]);
            let mut all = [k, v];
            for (x, kind) in all.iter_mut().zip(["key", "value"]).filter(|_| spec.cache) {
                let past = Decoder::past(layer, kind);
                *x = self.g.op("Concat", &[&past, x.as_str()], &[("axis", Attr::Int(2))]);
            }
            let [k, v] = &all;
            let out = match spec.attends {
                Attends::Causal => self.g.op("Attention", &[&q, k, v], &[("is_causal", Attr::Int(1))]),
                _ => {
                    let mask = self.mask.clone();
                    self.g.op("Attention", &[&q, k, v, &mask], &[])
                }
            };
            let turned = self.g.op("Transpose", &[&out], &[("perm", Attr::Ints(vec![0, 2, 1, 3]))]);
            let name = format!("shape_{}", self.g.proto.node.len());
            let shape = self.g.ints(&name, &[3], &[0, 0, wide as i64]);
            (self.g.op("Reshape", &[&turned, &shape], &[]), all)
        };
        (self.product(&attended, &format!("l{layer}.o"), wide, HIDDEN), present)
    }
}
