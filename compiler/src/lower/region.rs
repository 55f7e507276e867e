//! Regions of the step program as plain data: what one does, the expressions on its tiles, where results go, and which buffers it touches.
//! Buffers and functions are in `program`.

use super::program::{BufferId, Elem};

/// A kernel body over an iteration space that is split statically among threads.
#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    /// Name of the value that it makes, for people.
    pub name: String,
    /// Row set that it iterates over.
    pub rows: usize,
    /// How often it iterates over the set: as [`super::program::Buffer::times`].
    pub times: usize,
    /// Whether every thread must have finished the regions before it.
    pub barrier: bool,
    /// What it does.
    pub body: Body,
}

/// What a region does.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Rows `tokens[t]` of a packed table, as f32.
    Gather {
        /// Table, in the function's area.
        table: usize,
        /// f32 rows.
        out: BufferId,
    },
    /// Cosine and sine of `pos[t] * inv_freq[i]`.
    RopeAngles {
        /// Vector of frequencies, in the function's area.
        inv_freq: usize,
        /// f32 rows of `cos, sin` pairs.
        out: BufferId,
    },
    /// Row `index[t]` of `x` for each row of set 1.
    RowGather {
        /// Rows of set 0.
        x: BufferId,
        /// Rows of set 1.
        out: BufferId,
    },
    /// RMS norm of each of `groups` parts of a row.
    Norm {
        /// f32 rows.
        x: View,
        /// Vector, in the function's area.
        gamma: Option<usize>,
        /// Added to the mean of squares.
        eps: f64,
        /// Parts of a row that are normed alone.
        groups: usize,
        /// Elements of a part that the mean is over, padding not counted.
        width: usize,
        /// Rows.
        out: BufferId,
    },
    /// Rounds rows to int8.
    Quantize {
        /// f32 rows.
        x: View,
        /// i8 rows.
        out: BufferId,
    },
    /// Products of weight rows with rows of `x`, with what follows them.
    Dot {
        /// Matrix, in the function's area.
        weight: usize,
        /// Rows in the weight format's activation format.
        x: View,
        /// What becomes of the result columns; in order, not overlapping.
        segments: Vec<Segment>,
    },
    /// Chooses the experts of each row.
    Route {
        /// f32 rows of scores.
        scores: View,
        /// Experts to choose from.
        experts: usize,
        /// Experts of a row.
        top_k: usize,
        /// i32 rows of `top_k` numbers of experts.
        ids: BufferId,
        /// f32 rows of `top_k` gates.
        gates: BufferId,
    },
    /// Sorts pairs of row and choice by expert, on one thread: a pair's number in that order is its place. `abi::GroupArgs` has the list.
    Group {
        /// Rows of numbers of experts.
        ids: BufferId,
        /// Experts to choose from.
        experts: usize,
        /// Experts of a row.
        top_k: usize,
        /// The list.
        list: BufferId,
    },
    /// The gated input of each place.
    ExpertRows {
        /// f32 rows.
        x: View,
        /// f32 rows of gates.
        gates: BufferId,
        /// Experts to choose from.
        experts: usize,
        /// Experts of a row.
        top_k: usize,
        /// The list.
        list: BufferId,
        /// f32 rows by place.
        out: BufferId,
    },
    /// As `Dot`, for each expert over its places alone; an expert without places is not read. Every thread has a share of the blocks of
    /// every expert, so that shares are equal however uneven the experts are.
    ExpertDot {
        /// Matrices of all experts, in the function's area.
        weight: usize,
        /// The list.
        list: BufferId,
        /// Rows by place in the weight format's activation format.
        x: View,
        /// What becomes of the result columns; in order, not overlapping.
        segments: Vec<Segment>,
    },
    /// Adds up the results of a row's experts and its residual.
    Combine {
        /// f32 rows by place.
        rows: BufferId,
        /// Experts to choose from.
        experts: usize,
        /// Experts of a row.
        top_k: usize,
        /// The list.
        list: BufferId,
        /// f32 rows.
        residual: View,
        /// f32 rows.
        out: BufferId,
    },
    /// Factor on the queries of each row by its position, in all sixteen columns.
    AttnTemperature {
        /// Positions from one step of it to the next.
        floor_scale: f64,
        /// Factor on the logarithm.
        attn_scale: f64,
        /// f32 rows.
        out: BufferId,
    },
    /// Elementwise work.
    Map {
        /// What is computed.
        segments: Vec<Segment>,
    },
    /// Rotation of half-split heads.
    RopeHalf {
        /// f32 rows.
        x: View,
        /// f32 rows of `cos, sin` pairs.
        angles: View,
        /// Heads.
        heads: usize,
        /// Size of a head, padding not counted.
        head_dim: usize,
        /// f32 rows.
        out: BufferId,
    },
    /// Rounds K and V to int8 and writes them to the pages of their positions.
    KvWrite {
        /// f32 rows.
        k: View,
        /// f32 rows.
        v: View,
        /// Shape of the cache.
        cache: Cache,
    },
    /// Attention over the cache.
    Attention {
        /// f32 queries.
        q: View,
        /// Shape of the cache.
        kv: Cache,
        /// Query heads per KV head.
        group: usize,
        /// Factor on the scores.
        scale: f64,
        /// Keys before the last multiple of this are invisible; 0: none.
        chunk: usize,
        /// Rows of `heads * head_dim`.
        out: BufferId,
    },
}

/// Columns of a buffer from `col` (in padded columns).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct View {
    /// The buffer.
    pub buffer: BufferId,
    /// First column.
    pub col: usize,
}

/// Shape of a layer's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cache {
    /// Element type.
    pub elem: Elem,
    /// KV heads.
    pub heads: usize,
    /// Padded size of a head.
    pub head_dim: usize,
}

/// Blocks of 16 result columns with one expression and one place to put them.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// First weight block (0 for a map).
    pub first: usize,
    /// Result blocks: each takes `lanes` weight blocks.
    pub blocks: usize,
    /// Weight blocks per result block: 1, or 2 for gate and up.
    pub lanes: usize,
    /// What is computed of 16 columns.
    pub expr: Expr,
    /// Where it goes.
    pub sink: Sink,
}

/// An expression over 16 neighbouring columns of one row, in f32. `b` is the number of the block in its segment.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// Result of the dot, of this lane.
    Acc(usize),
    /// Columns `col + 16 b ..` of the row.
    Load(View),
    /// Columns `col .. col + 16` of the row, whatever the block.
    Row(View),
    /// Elements `start + stride b ..` of a vector in the function's area.
    Vector {
        /// Which weight.
        weight: usize,
        /// First element.
        start: usize,
        /// Elements from block to block.
        stride: usize,
    },
    /// Sum.
    Add(Box<Expr>, Box<Expr>),
    /// Product.
    Mul(Box<Expr>, Box<Expr>),
    /// `x * sigmoid(x)`.
    Silu(Box<Expr>),
    /// Rotates pairs of neighbours; the angles of a head repeat every `head_dim` (padded) columns.
    Rope {
        /// What is rotated.
        x: Box<Expr>,
        /// `cos, sin` pairs.
        angles: View,
        /// Padded size of a head.
        head_dim: usize,
    },
    /// Zero from column `width` of the segment on.
    Keep {
        /// Of what.
        x: Box<Expr>,
        /// True columns.
        width: usize,
    },
    /// Rounded to bf16 and back.
    Round(Box<Expr>),
}

impl Expr {
    /// Calls `f` for every view that the expression reads.
    pub fn views(&self, f: &mut impl FnMut(View)) {
        match self {
            Expr::Acc(_) | Expr::Vector { .. } => {}
            Expr::Load(v) | Expr::Row(v) => f(*v),
            Expr::Add(a, b) | Expr::Mul(a, b) => {
                a.views(f);
                b.views(f);
            }
            Expr::Silu(x) | Expr::Round(x) | Expr::Keep { x, .. } => x.views(f),
            Expr::Rope { x, angles, .. } => {
                x.views(f);
                f(*angles);
            }
        }
    }
}

/// Where 16 columns go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// Columns `16 b ..` of the row of a buffer.
    Store(BufferId),
    /// K of the row's position.
    CacheK(Cache),
    /// V of the row's position.
    CacheV(Cache),
}

impl Body {
    /// Buffers that it reads and whether it reads the KV cache.
    pub fn reads(&self) -> (Vec<BufferId>, bool) {
        let mut out = Vec::new();
        match self {
            Body::Gather { .. } | Body::RopeAngles { .. } | Body::AttnTemperature { .. } => {}
            Body::Route { scores, .. } => out.push(scores.buffer),
            Body::Group { ids, .. } => out.push(*ids),
            Body::ExpertRows { x, gates, list, .. } => out.extend([x.buffer, *gates, *list]),
            Body::Combine { rows, list, residual, .. } => out.extend([*rows, *list, residual.buffer]),
            Body::ExpertDot { list, x, segments, .. } => {
                out.extend([*list, x.buffer]);
                segments.iter().for_each(|s| s.expr.views(&mut |v| out.push(v.buffer)));
            }
            Body::RowGather { x, .. } => out.push(*x),
            Body::Norm { x, .. } | Body::Quantize { x, .. } => out.push(x.buffer),
            Body::Dot { x, segments, .. } => {
                out.push(x.buffer);
                segments.iter().for_each(|s| s.expr.views(&mut |v| out.push(v.buffer)));
            }
            Body::Map { segments } => segments.iter().for_each(|s| s.expr.views(&mut |v| out.push(v.buffer))),
            Body::RopeHalf { x, angles, .. } => out.extend([x.buffer, angles.buffer]),
            Body::KvWrite { k, v, .. } => out.extend([k.buffer, v.buffer]),
            Body::Attention { q, .. } => out.push(q.buffer),
        }
        (out, matches!(self, Body::Attention { .. }))
    }

    /// Buffers that it writes and whether it writes the KV cache.
    pub fn writes(&self) -> (Vec<BufferId>, bool) {
        match self {
            Body::Gather { out, .. }
            | Body::RopeAngles { out, .. }
            | Body::RowGather { out, .. }
            | Body::Norm { out, .. }
            | Body::Quantize { out, .. }
            | Body::RopeHalf { out, .. }
            | Body::Group { list: out, .. }
            | Body::ExpertRows { out, .. }
            | Body::Combine { out, .. }
            | Body::AttnTemperature { out, .. }
            | Body::Attention { out, .. } => (vec![*out], false),
            Body::Route { ids, gates, .. } => (vec![*ids, *gates], false),
            Body::KvWrite { .. } => (Vec::new(), true),
            Body::Dot { segments, .. } | Body::ExpertDot { segments, .. } | Body::Map { segments } => {
                let stores = segments.iter().filter_map(|s| if let Sink::Store(b) = s.sink { Some(b) } else { None });
                (stores.collect(), segments.iter().any(|s| !matches!(s.sink, Sink::Store(_))))
            }
        }
    }

    /// Calls `f` for every buffer that it names, to change it.
    pub fn rename(&mut self, f: &mut impl FnMut(&mut BufferId)) {
        fn expr(e: &mut Expr, f: &mut impl FnMut(&mut BufferId)) {
            match e {
                Expr::Acc(_) | Expr::Vector { .. } => {}
                Expr::Load(v) | Expr::Row(v) => f(&mut v.buffer),
                Expr::Add(a, b) | Expr::Mul(a, b) => {
                    expr(a, f);
                    expr(b, f);
                }
                Expr::Silu(x) | Expr::Round(x) | Expr::Keep { x, .. } => expr(x, f),
                Expr::Rope { x, angles, .. } => {
                    expr(x, f);
                    f(&mut angles.buffer);
                }
            }
        }
        match self {
            Body::Gather { out, .. } | Body::RopeAngles { out, .. } | Body::AttnTemperature { out, .. } => f(out),
            Body::Route { scores, ids, gates, .. } => [&mut scores.buffer, ids, gates].into_iter().for_each(&mut *f),
            Body::Group { ids, list, .. } => [ids, list].into_iter().for_each(&mut *f),
            Body::ExpertRows { x, gates, list, out, .. } => [&mut x.buffer, gates, list, out].into_iter().for_each(&mut *f),
            Body::Combine { rows, list, residual, out, .. } => [rows, list, &mut residual.buffer, out].into_iter().for_each(&mut *f),
            Body::RowGather { x, out } => {
                f(x);
                f(out);
            }
            Body::Norm { x, out, .. } | Body::Quantize { x, out } => {
                f(&mut x.buffer);
                f(out);
            }
            Body::RopeHalf { x, angles, out, .. } => {
                f(&mut x.buffer);
                f(&mut angles.buffer);
                f(out);
            }
            Body::KvWrite { k, v, .. } => [&mut k.buffer, &mut v.buffer].into_iter().for_each(&mut *f),
            Body::Attention { q, out, .. } => {
                f(&mut q.buffer);
                f(out);
            }
            Body::Dot { segments, .. } | Body::ExpertDot { segments, .. } | Body::Map { segments } => {
                for s in segments.iter_mut() {
                    expr(&mut s.expr, f);
                    if let Sink::Store(b) = &mut s.sink {
                        f(b);
                    }
                }
            }
        }
        match self {
            Body::Dot { x, .. } => f(&mut x.buffer),
            Body::ExpertDot { x, list, .. } => [&mut x.buffer, list].into_iter().for_each(&mut *f),
            _ => {}
        }
    }
}
