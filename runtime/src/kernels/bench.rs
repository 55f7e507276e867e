//! Times one kernel row alone, driven as compiled code drives it. For `llamac bench`; the roof to compare with is in `roof`.

use super::KernelRow;
use crate::abi::{ATTENTION_TILE_ROWS, AttentionArgs, DotArgs, Kernel, PAGE_TOKENS, ROWS, SCRATCH_BYTES};
use crate::format::{Act, KvFormat, WEIGHT_FORMATS};
use crate::memory::Region;
use crate::rng::Rng;
use crate::roof::{self, best, fill, together};

/// One pass over the data by all threads: the best of several.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Seconds.
    pub seconds: f64,
    /// Bytes of weights, or of keys and values.
    pub bytes: u64,
    /// Multiply-accumulates.
    pub macs: u64,
}

impl Measured {
    /// What cannot be measured: no such row here, or no memory.
    const NONE: Measured = Measured { seconds: f64::INFINITY, bytes: 0, macs: 0 };
}

/// Passes, of which the best counts.
const PASSES: usize = 7;
/// Weight blocks that one row of activations goes through at a time, as in compiled code.
const DECODE_BLOCKS: usize = 64;

/// `m` rows of `k` activations by `blocks` blocks of 16 weight rows, split among `threads` threads. With `from_dram` the weights are others
/// in every pass.
pub fn bench_dot(row: &KernelRow, k: usize, blocks: usize, m: usize, threads: usize, from_dram: bool) -> Measured {
    let (Some(kernel), Some(format)) = (row.kernel, WEIGHT_FORMATS.iter().find(|f| f.name == row.format)) else { return Measured::NONE };
    let block_bytes = format.block_bytes(k);
    let bytes = blocks * block_bytes;
    let copies = if from_dram { roof::read_bytes().div_ceil(bytes.max(1)).max(2) } else { 1 };
    let x_stride = format.act.row_bytes(k) + 64;
    let (Ok(w), Ok(x)) = (Region::anonymous(copies * bytes), Region::anonymous(m * x_stride)) else { return Measured::NONE };
    if format.act == Act::I8 {
        fill_codes(&w)
    } else {
        fill(&w, threads)
    }
    fill(&x, 1);
    let tile = row.m.min(m);
    let panel = if row.m == 1 { DECODE_BLOCKS.min(row.blocks) } else { row.blocks };
    // A pass of a small matrix is too short for the clock.
    let repeats = if from_dram { (copies / PASSES).max(1) } else { ((64 << 20) / (bytes * m).max(1)).max(1) };
    let mut pass = 0;
    let seconds = best(PASSES, || {
        pass += 1;
        let (w, x) = (&w, &x);
        together(threads, |t| {
            let mut out = vec![0.0f32; tile * panel * ROWS];
            let (low, high) = (blocks * t / threads.max(1), blocks * (t + 1) / threads.max(1));
            for repeat in 0..repeats {
                let matrix = (pass * repeats + repeat) % copies * bytes;
                for block in (low..high).step_by(panel) {
                    for first in (0..m).step_by(tile) {
                        let args = DotArgs {
                            w: w.as_ptr().wrapping_add(matrix + block * block_bytes),
                            x: x.as_ptr().wrapping_add(first * x_stride),
                            x_stride: x_stride as u64,
                            k: k as u64,
                            m: tile.min(m - first) as u64,
                            blocks: panel.min(high - block) as u64,
                            out: out.as_mut_ptr(),
                            out_stride: (panel * ROWS * 4) as u64,
                        };
                        call(kernel, &args);
                    }
                }
            }
        })
    });
    Measured { seconds: seconds / repeats as f64, bytes: bytes as u64, macs: (blocks * ROWS * k * m) as u64 }
}

/// Bytes about as weights in 8 bits have them, around 128 with a deviation of 37: what int8 costs depends on how many are large.
fn fill_codes(region: &Region) {
    // SAFETY: the region is as long as it says, and nobody else has it yet.
    let bytes = unsafe { std::slice::from_raw_parts_mut(region.as_ptr(), region.len()) };
    let mut rng = Rng::new(1);
    // A MiB of them again and again.
    let (first, rest) = bytes.split_at_mut(bytes.len().min(1 << 20));
    first.fill_with(|| (rng.next_u64().to_le_bytes()[..4].iter().map(|b| u16::from(*b)).sum::<u16>() / 4) as u8);
    rest.chunks_mut(first.len().max(1)).for_each(|part| part.copy_from_slice(&first[..part.len()]));
}

/// `rows` rows of `group` query heads per KV head over `depth` keys, for as many KV heads as no cache holds, split among `threads` threads.
pub fn bench_attention(row: &KernelRow, head_dim: usize, group: usize, rows: usize, depth: usize, threads: usize) -> Measured {
    let (Some(kernel), Some(kv)) = (row.kernel, KvFormat::from_name(row.format)) else { return Measured::NONE };
    let rows = rows.clamp(1, ATTENTION_TILE_ROWS);
    let depth = depth.max(rows);
    let pages = depth.div_ceil(PAGE_TOKENS);
    let head_bytes = kv.head_bytes(head_dim);
    let heads = (roof::read_bytes() / (pages * 2 * head_bytes).max(1)).next_multiple_of(threads.max(1)).max(threads);
    let page_bytes = heads * 2 * head_bytes;
    let width = group * head_dim;
    let scratch_bytes = SCRATCH_BYTES / 2 + rows * width * 4;
    let (Ok(pool), Ok(q)) = (Region::anonymous(pages * page_bytes), Region::anonymous(rows * width * 4)) else { return Measured::NONE };
    let Ok(scratch) = Region::anonymous(threads.max(1) * scratch_bytes) else { return Measured::NONE };
    fill(&scratch, 1);
    fill(&pool, threads);
    fill(&q, 1);
    let table: Vec<u32> = (0..pages as u32).collect();
    let seconds = best(PASSES, || {
        let (pool, q, table, scratch) = (&pool, &q, &table, &scratch);
        together(threads, |t| {
            let scratch = scratch.as_ptr().wrapping_add(t * scratch_bytes);
            for head in heads * t / threads.max(1)..heads * (t + 1) / threads.max(1) {
                let args = AttentionArgs {
                    q: q.as_ptr().cast(),
                    q_stride: 4 * width as u64,
                    out: scratch.wrapping_add(SCRATCH_BYTES / 2).cast(),
                    out_stride: 4 * width as u64,
                    kv: pool.as_ptr(),
                    page_bytes: page_bytes as u64,
                    table: table.as_ptr(),
                    k_offset: (head * head_bytes) as u64,
                    v_offset: ((heads + head) * head_bytes) as u64,
                    rows: rows as u32,
                    part: 0,
                    pos: (depth - rows) as u64,
                    group: group as u64,
                    head_dim: head_dim as u64,
                    chunk: 0,
                    scratch,
                    scale: 1.0,
                };
                call(kernel, &args);
            }
        })
    });
    let elements = (heads * depth * head_dim) as u64;
    let bytes = (heads * depth * 2 * (head_bytes / PAGE_TOKENS)) as u64;
    Measured { seconds, bytes, macs: elements * 2 * (rows * group) as u64 }
}

/// Calls a kernel of this CPU with arguments that describe memory of the caller.
fn call<A>(kernel: Kernel, args: &A) {
    // SAFETY: both callers pass the arguments of the row's op, whose pointers cover what its contract says.
    unsafe { kernel(std::ptr::from_ref(args).cast()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::runnable;

    #[test]
    fn a_measurement_counts_what_was_done() {
        for (row, _) in runnable("dot", "bf16").into_iter().filter(|(r, _)| r.isa.name == "generic") {
            let got = bench_dot(row, 64, 9, 5, 2, false);
            assert_eq!((got.bytes, got.macs), (9 * 16 * 64 * 2, 9 * 16 * 64 * 5));
            assert!(got.seconds > 0.0 && got.seconds < 10.0);
        }
    }
}
