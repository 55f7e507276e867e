//! The binary contract between compiled step programs, kernels and the runtime: `repr(C)` structures, their sizes and
//! constants. No behaviour is here. Everything is append-only: a field never moves, `ABI_VERSION` rises when one is added.

/// Version of every structure in this file. An artifact records the one it was compiled for.
pub const ABI_VERSION: u32 = 4;

/// Since this version compiled code passes over calls whose function is [`SKIPPED`].
pub const ABI_SKIPS: u32 = 3;

/// Since this version the code takes tiles of [`ATTENTION_TILE_ROWS`] rows whatever the width of the queries, which it has checked; code of
/// before gets tiles of [`OLD_TILE_ROWS`].
pub const ABI_WIDE_TILES: u32 = 4;

/// Number of no function: see [`ScheduleEntry::function`].
pub const SKIPPED: u64 = u64::MAX;

/// Rows of a weight matrix are stored in blocks of this many: one 64-byte line is 16 rows x 4 bytes.
pub const ROWS: usize = 16;

/// Tokens in one page of the KV cache.
pub const PAGE_TOKENS: usize = 64;

/// Bytes added behind every activation row, so that rows of power-of-two widths do not share cache sets.
pub const ROW_GAP: usize = 64;

/// At most this many row sets (0: all new tokens, 1: rows whose logits are wanted).
pub const ROW_SETS: usize = 2;

/// At most this many groups of layers with their own page tables (0: full attention; others: chunked layers).
pub const KV_GROUPS: usize = 2;

/// Bytes of private scratch per thread: the tile that a kernel writes and generated code consumes, and what attention needs.
pub const SCRATCH_BYTES: usize = 512 * 1024;

/// A kernel: takes a pointer to its argument structure ([`DotArgs`], [`AttentionArgs`], [`GatherArgs`], ...).
pub type Kernel = unsafe extern "C" fn(*const u8);

/// The compiled entry: every thread calls it once per step with its own `thread` in `0..threads`.
pub type StepFn = unsafe extern "C" fn(ctx: *const StepContext, thread: u64);

/// Everything that a compiled step reads. One per session, shared by all threads, constant during a step.
#[repr(C)]
#[derive(Debug)]
pub struct StepContext {
    /// Kernel pointers in the order of the artifact's kernel list.
    pub kernels: *const Kernel,
    /// Start of the mapped weight section.
    pub weights: *const u8,
    /// Activation arena: buffers lie at the byte offsets of the artifact's buffer plan.
    pub arena: *mut u8,
    /// Scratch of thread `t` starts at `scratch + t * SCRATCH_BYTES`.
    pub scratch: *mut u8,
    /// Number of threads that run this step.
    pub threads: u64,
    /// Barrier words shared by the threads.
    pub barrier: *mut Barrier,
    /// Calls of layer functions, in order.
    pub schedule: *const ScheduleEntry,
    /// Number of `schedule` entries.
    pub schedule_len: u64,
    /// Token ids of row set 0, `u32[n]`.
    pub tokens: *const u32,
    /// Row sets: 0 is all new tokens, 1 the rows whose logits are wanted.
    pub rows: [RowSet; ROW_SETS],
    /// KV page pools, one per group of layers.
    pub kv: [KvGroup; KV_GROUPS],
    /// What each thread's share of the running region has come to, `Work[threads]`. Since version 2.
    pub work: *const Work,
    /// [`PARTS_BYTES`] for each thread, shared by all: what parts of keys have come to. Since version 4.
    pub parts: *mut f32,
    /// For the layers of each KV group: the most parts that the keys of a tile of a set are cut into, if threads are to share them, else 0.
    /// Then every tile is of one row. Since version 4.
    pub shared_parts: [[u64; KV_GROUPS]; ROW_SETS],
}

/// One set of rows that regions iterate over.
#[repr(C)]
#[derive(Debug)]
pub struct RowSet {
    /// Number of rows; may be 0.
    pub n: u64,
    /// Index of each row in row set 0, `u32[n]`.
    pub index: *const u32,
    /// Absolute position of each row in its sequence, `u32[n]`.
    pub pos: *const u32,
    /// For each KV group: byte offset in the pool of the page that holds the row's position, `u64[n]`.
    pub page: [*const u64; KV_GROUPS],
    /// Groups of consecutive rows of one sequence at consecutive positions, for attention.
    pub tiles: *const AttentionTile,
    /// Number of `tiles`.
    pub n_tiles: u64,
}

/// Consecutive rows of one sequence whose positions are consecutive too.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttentionTile {
    /// First row in the row set.
    pub row: u32,
    /// Number of rows, at most [`ATTENTION_TILE_ROWS`].
    pub rows: u32,
    /// Sequence slot: line of the page tables.
    pub slot: u32,
    /// Position of the first row.
    pub pos: u32,
}

/// At most this many rows in an [`AttentionTile`].
pub const ATTENTION_TILE_ROWS: usize = 16;

/// The same before [`ABI_WIDE_TILES`].
pub const OLD_TILE_ROWS: usize = 4;

/// At most this many parts of the keys of a query.
pub const ATTENTION_PARTS: u64 = 16;

/// Bytes per thread in [`StepContext::parts`].
pub const PARTS_BYTES: usize = 256 * 1024;

/// Tokens in a part of the keys of a query at a position, counted from the first key in the cache or the ring: a power of two from 512 on. The cut is at
/// its multiples.
pub const fn part_tokens(pos: u64) -> u64 {
    let least = (pos / ATTENTION_PARTS + 1).next_power_of_two();
    if least < 512 { 512 } else { least }
}

/// Pages of one group of layers.
#[repr(C)]
#[derive(Debug)]
pub struct KvGroup {
    /// Start of the pool.
    pub base: *mut u8,
    /// Bytes of one page: all layers of the group, K and V.
    pub page_bytes: u64,
    /// Page tables: `u32[slots][table_stride]`, logical page -> page of the pool.
    pub tables: *const u32,
    /// Entries per slot.
    pub table_stride: u64,
}

/// One call of a layer function.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ScheduleEntry {
    /// Which compiled function (its index in the step program), or [`SKIPPED`]: code counts entries, so a call that is not wanted keeps its place.
    pub function: u64,
    /// Byte offset of the call's weights in the weight section.
    pub weights: u64,
    /// Byte offset of the layer's K and V inside a page.
    pub kv: u64,
}

/// Barrier words, each on its own pair of cache lines. Generated code counts `arrived` up and spins on `generation`.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct Barrier {
    /// Threads that have arrived in this round.
    pub arrived: std::sync::atomic::AtomicU64,
    _gap0: [u64; 15],
    /// Raised by the last thread to arrive.
    pub generation: std::sync::atomic::AtomicU64,
    _gap1: [u64; 15],
}

/// How much of a thread's share of a region is taken, by itself or by threads that had finished theirs. Regions behind barriers of even
/// and odd generation have a count each: a thread clears the one that the region running now does not use when it arrives at a barrier.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct Work {
    /// Units taken.
    pub taken: [std::sync::atomic::AtomicU64; 2],
}

/// Byte offset of [`Barrier::generation`].
pub const BARRIER_GENERATION: usize = 128;

/// `out[t][r] = sum_k w[r][k] * x[t][k]` for `m` rows of `x` and `blocks` blocks of 16 weight rows, in f32.
///
/// The order of the sum over `k` depends on nothing but `k`, so any split of `m` or `blocks` gives the same bits.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct DotArgs {
    /// First weight block; blocks follow each other.
    pub w: *const u8,
    /// Activations in the row's activation format, row-major.
    pub x: *const u8,
    /// Bytes from one row of `x` to the next.
    pub x_stride: u64,
    /// Padded length of the sum, elements; a multiple of the weight format's `k_unit`.
    pub k: u64,
    /// Rows of `x`, at least 1 and at most the kernel row's `m`.
    pub m: u64,
    /// Weight blocks, at least 1 and at most the kernel row's `blocks`.
    pub blocks: u64,
    /// f32 tile.
    pub out: *mut f32,
    /// Bytes from one row of `out` to the next.
    pub out_stride: u64,
}

/// Causal attention of one tile of rows and one KV head (all query heads of its group) over the paged cache.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct AttentionArgs {
    /// Queries, f32, already rotated: row `r`, head `h` of the group at `q + r * q_stride + h * head_dim * 4` bytes.
    pub q: *const f32,
    /// Bytes from one row of `q` to the next.
    pub q_stride: u64,
    /// Result tile f32, `[rows][group * head_dim]`.
    pub out: *mut f32,
    /// Bytes from one row of `out` to the next.
    pub out_stride: u64,
    /// Pool of pages.
    pub kv: *const u8,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// The sequence's page table.
    pub table: *const u32,
    /// Byte offset, inside a page, of this layer's K of this KV head (see [`crate::format::KvFormat`]).
    pub k_offset: u64,
    /// Byte offset, inside a page, of this layer's V of this KV head.
    pub v_offset: u64,
    /// Rows of the tile.
    pub rows: u32,
    /// 0: all keys of the rows. `i + 1`: those of part `i` of the one row; its result is followed by two numbers for each head of the group, the
    /// exponent of 2 of the largest score and the sum of probabilities under it. Since version 4; before, `rows` had these bytes too.
    pub part: u32,
    /// Position of the first row; row `r` sees keys `first_key(pos + r) ..= pos + r`.
    pub pos: u64,
    /// Query heads per KV head.
    pub group: u64,
    /// Padded head size; a multiple of 16.
    pub head_dim: u64,
    /// Keys before the last multiple of `chunk` are invisible; 0: none are.
    pub chunk: u64,
    /// Private scratch of at least [`SCRATCH_BYTES`] / 2.
    pub scratch: *mut u8,
    /// Factor on the scores.
    pub scale: f32,
}

/// Joins the parts of one row and KV head: `out[h] = sum_i w_i parts[i][h] / sum_i w_i` with the parts' weights, in their order.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct AttentionMergeArgs {
    /// What attention has made of the parts: f32, `[parts][group * head_dim + 2 * group]`.
    pub parts: *const f32,
    /// Bytes from one part to the next.
    pub part_stride: u64,
    /// Position of the row, as in [`AttentionArgs::pos`]; the number of parts follows from it.
    pub pos: u64,
    /// Query heads per KV head.
    pub group: u64,
    /// Padded head size.
    pub head_dim: u64,
    /// f32 row of `group * head_dim`.
    pub out: *mut f32,
}

/// Embedding: row `ids[t]` of a packed weight matrix as f32.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct GatherArgs {
    /// Packed matrix.
    pub w: *const u8,
    /// Row numbers, `u32[m]`.
    pub ids: *const u32,
    /// Rows to fetch.
    pub m: u64,
    /// Elements to fetch; the matrix has rows of this many, padded to the format's `k_unit`.
    pub k: u64,
    /// f32 rows.
    pub out: *mut f32,
    /// Bytes from one row of `out` to the next.
    pub out_stride: u64,
}

/// Rotary angles: `out[t] = (cos a, sin a)` interleaved for `a = pos[t] * inv_freq[i]`, `i < pairs`; (1, 0) from `pairs` to `padded_pairs`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RopeAnglesArgs {
    /// Positions, `u32[m]`.
    pub pos: *const u32,
    /// `f32[pairs]`.
    pub inv_freq: *const f32,
    /// Rows.
    pub m: u64,
    /// Pairs that rotate.
    pub pairs: u64,
    /// Pairs in an output row.
    pub padded_pairs: u64,
    /// f32 rows of `2 * padded_pairs`.
    pub out: *mut f32,
    /// Bytes from one row of `out` to the next.
    pub out_stride: u64,
}

/// The `top_k` largest scores of each row, in ascending order of their index (of equal ones the lowest index), and their sigmoid.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RouteArgs {
    /// f32 rows of `experts`.
    pub scores: *const f32,
    /// Bytes from one row of `scores` to the next.
    pub scores_stride: u64,
    /// Rows.
    pub m: u64,
    /// Scores in a row.
    pub experts: u64,
    /// Experts of a row.
    pub top_k: u64,
    /// Rows of `top_k` indices.
    pub ids: *mut i32,
    /// Bytes from one row of `ids` to the next.
    pub ids_stride: u64,
    /// f32 rows of `top_k` gates.
    pub gates: *mut f32,
    /// Bytes from one row of `gates` to the next.
    pub gates_stride: u64,
}

/// Groups the pairs (row `t`, choice `j`) by expert. The list is `i32`: `experts + 1` first places, padded to a multiple of 16; then for each
/// place the number `t * top_k + j` of its pair, pairs of an expert in ascending order; then for each pair its place.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct GroupArgs {
    /// Rows of `top_k` indices.
    pub ids: *const i32,
    /// Bytes from one row of `ids` to the next.
    pub ids_stride: u64,
    /// Rows.
    pub m: u64,
    /// Experts.
    pub experts: u64,
    /// Experts of a row.
    pub top_k: u64,
    /// The list.
    pub list: *mut i32,
}

/// Inputs of experts: row `p` of `out` is `gate * x` of the pair at place `first + p` of the list.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ExpertRowsArgs {
    /// f32 rows.
    pub x: *const f32,
    /// Bytes from one row of `x` to the next.
    pub x_stride: u64,
    /// f32 rows of `top_k` gates.
    pub gates: *const f32,
    /// Bytes from one row of `gates` to the next.
    pub gates_stride: u64,
    /// See [`GroupArgs`].
    pub list: *const i32,
    /// Experts.
    pub experts: u64,
    /// Experts of a row.
    pub top_k: u64,
    /// First place.
    pub first: u64,
    /// Places.
    pub m: u64,
    /// Padded columns.
    pub width: u64,
    /// f32 rows.
    pub out: *mut f32,
    /// Bytes from one row of `out` to the next.
    pub out_stride: u64,
}

/// `out[t] = residual[t] + sum_j rows[place of (t, j)]`, `j` ascending, for rows `first .. first + m`; `out` may be `residual`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CombineArgs {
    /// f32 rows in the order of places.
    pub rows: *const f32,
    /// Bytes from one row of `rows` to the next.
    pub rows_stride: u64,
    /// See [`GroupArgs`].
    pub list: *const i32,
    /// Experts.
    pub experts: u64,
    /// Experts of a row.
    pub top_k: u64,
    /// Rows of all threads together.
    pub all: u64,
    /// First row.
    pub first: u64,
    /// Rows.
    pub m: u64,
    /// Padded columns.
    pub width: u64,
    /// Row `first` of the f32 residual.
    pub residual: *const f32,
    /// Bytes from one row of `residual` to the next.
    pub residual_stride: u64,
    /// Row `first` of the result.
    pub out: *mut f32,
    /// Bytes from one row of `out` to the next.
    pub out_stride: u64,
}

/// `1 + attn_scale * ln(1 + floor((pos + 1) / floor_scale))` of each position, sixteen times in a row.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct AttnTemperatureArgs {
    /// Positions, `u32[m]`.
    pub pos: *const u32,
    /// Rows.
    pub m: u64,
    /// Positions from one step of the temperature to the next.
    pub floor_scale: f64,
    /// Factor on the logarithm.
    pub attn_scale: f64,
    /// f32 rows of 16.
    pub out: *mut f32,
    /// Bytes from one row of `out` to the next.
    pub out_stride: u64,
}

/// Rounds f32 rows to rows of [`crate::format::Act::I8`], or some groups of 256 columns of them.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct QuantizeArgs {
    /// f32 rows.
    pub x: *const f32,
    /// Bytes from one row of `x` to the next.
    pub x_stride: u64,
    /// Rows.
    pub m: u64,
    /// Elements in a row, a multiple of 16; what is missing to a multiple of 256 counts as zeros.
    pub k: u64,
    /// First group of 256 columns, in `0..k.div_ceil(256)`.
    pub first_group: u64,
    /// How many groups.
    pub groups: u64,
    /// Rows of [`crate::format::Act::I8`] for `k` elements.
    pub out: *mut u8,
    /// Bytes from one row of `out` to the next, a multiple of 4.
    pub out_stride: u64,
}

/// Rounds rows of K and V to int8 and writes them to the pages of their positions ([`crate::format::KvFormat::I8`]).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct KvWriteArgs {
    /// f32 rows of `heads * head_dim`.
    pub k: *const f32,
    /// Bytes from one row of `k` to the next.
    pub k_stride: u64,
    /// f32 rows of `heads * head_dim`.
    pub v: *const f32,
    /// Bytes from one row of `v` to the next.
    pub v_stride: u64,
    /// Rows.
    pub m: u64,
    /// The layer's K in page 0 of the pool.
    pub base: *mut u8,
    /// Byte offset of the page of each row, `u64[m]`.
    pub pages: *const u64,
    /// Position of each row, `u32[m]`.
    pub pos: *const u32,
    /// Positions of a ring; 0: every position has its own place.
    pub chunk: u64,
    /// KV heads.
    pub heads: u64,
    /// Padded head size; a multiple of 16.
    pub head_dim: u64,
}
