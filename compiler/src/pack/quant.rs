//! Packing of the quantized formats: codes and scales of one row at a time, put where they belong in a block of sixteen. The layouts are described
//! in `llamac_runtime::format`, the codes come from the evaluator's arithmetic.

use half::f16;
use llamac_ir::dtype::{DType, DTypeInfo};
use llamac_ir::eval::quant::Codes;
use llamac_runtime::abi::ROWS;
use llamac_runtime::format::WeightFormat;

/// Bytes of a line: sixteen rows of four.
const LINE: usize = ROWS * 4;

/// The facts about the element type of a format, if it is quantized.
pub(super) fn quantized(format: &WeightFormat) -> Option<&'static DTypeInfo> {
    DType::from_name(format.name).map(DType::info).filter(|info| info.scale.is_some())
}

/// Puts row `lane` of a block of `k` columns into `out`; a row that is shorter is padded with zeros.
pub(super) fn pack_row(format: &WeightFormat, info: &DTypeInfo, row: &mut Codes, lane: usize, k: usize, out: &mut [u8]) {
    row.codes.resize(k, 0);
    let by_row = info.group == u32::MAX;
    // Lines of one unit that hold codes.
    let lines = (format.unit_bytes - if by_row { 0 } else { LINE }) / LINE;
    let place = |n: usize| n / lines * format.unit_bytes + n % lines * LINE + 4 * lane;
    if info.bits == 6 {
        pack_six(&row.codes, lines / 2, lane, format.unit_bytes, out);
    } else if info.bits == 4 {
        for (n, q) in row.codes.as_chunks::<8>().0.iter().enumerate() {
            let code = |i: usize| (q[i] + 8) as u8;
            let bytes: [u8; 4] = std::array::from_fn(|i| code(i) | code(i + 4) << 4);
            out[place(n)..][..4].copy_from_slice(&bytes);
        }
    } else {
        for (n, q) in row.codes.as_chunks::<4>().0.iter().enumerate() {
            out[place(n)..][..4].copy_from_slice(&q.map(|q| q as u8 ^ 128));
        }
    }
    if by_row {
        let scale = row.scales.first().copied().unwrap_or(0.0);
        out[k / format.k_unit * format.unit_bytes + 4 * lane..][..4].copy_from_slice(&scale.to_le_bytes());
        return;
    }
    for (group, scale) in row.scales.iter().enumerate() {
        let at = (group / 2 + 1) * format.unit_bytes - LINE + group % 2 * LINE / 2 + 2 * lane;
        out[at..][..2].copy_from_slice(&f16::from_f32(*scale).to_le_bytes());
    }
}

/// Codes of 6 bits, groups of `lines` lines; `out` has zeros where they go.
fn pack_six(codes: &[i8], lines: usize, lane: usize, unit_bytes: usize, out: &mut [u8]) {
    for (group, codes) in codes.chunks_exact(32).enumerate() {
        let first = group / 2 * unit_bytes + group % 2 * lines * LINE + 4 * lane;
        for (i, q) in codes.iter().enumerate() {
            let (code, i) = ((q + 32) as u8, (i / 4, i % 4));
            out[first + i.0 / 2 * LINE + i.1] |= (code & 15) << (i.0 % 2 * 4);
            out[first + (4 + i.0 / 4) * LINE + i.1] |= (code >> 4) << (i.0 % 4 * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use llamac_ir::eval::quant;
    use llamac_runtime::abi::GatherArgs;
    use llamac_runtime::format::WEIGHT_FORMATS;
    use llamac_runtime::kernels::table;

    #[test]
    fn kernels_read_what_the_evaluator_means() {
        for format in WEIGHT_FORMATS {
            let Some(info) = quantized(format) else { continue };
            // The last group is short, and so is the last unit.
            let n = 500usize;
            let k = n.next_multiple_of(format.k_unit);
            let row = |r: usize| (0..n).map(move |i| ((i * 37 + r * 11) % 101) as f32 * 0.013 - 0.6 + r as f32 * 0.01);
            let mut block = vec![0; format.block_bytes(n)];
            for r in 0..ROWS {
                let (values, mut codes): (Vec<f32>, _) = (row(r).collect(), Codes::default());
                quant::quantize(info.dtype, &values, &mut codes).unwrap();
                pack_row(format, info, &mut codes, r, k, &mut block);
            }
            let name = format!("gather_{}_generic", format.name);
            let gather = table::resolve(&name).unwrap();
            let ids: Vec<u32> = (0..16).collect();
            let mut out = vec![0.0f32; 16 * 512];
            let args = GatherArgs { w: block.as_ptr(), ids: ids.as_ptr(), m: 16, k: 512, out: out.as_mut_ptr(), out_stride: 2048 };
            // SAFETY: one block of 512 columns, sixteen ids below 16 and room for as many rows.
            unsafe { gather((&raw const args).cast()) };
            for r in 0..ROWS {
                let mut expected: Vec<f32> = row(r).collect();
                quant::round(info.dtype, &mut expected).unwrap();
                expected.resize(512, 0.0);
                assert_eq!(out[r * 512..][..512], expected, "{} row {r}", format.name);
            }
        }
    }
}
