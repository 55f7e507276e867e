//! One packer per plain weight format: sixteen rows of f32 values, already rounded to the format's type, to the bytes of a block. The layouts are
//! described in `llamac_runtime::format`; quantized formats are in `quant`.

use super::interleave;
use llamac_runtime::abi::ROWS;
use llamac_runtime::format::{BF16, F32, WeightFormat};

/// Packs a panel `[16][k]` into the bytes of one block; `k` is a multiple of the format's unit.
pub(super) type Packer = fn(panel: &[f32], k: usize, out: &mut [u8]);

/// Every packer, by the format's name.
const PACKERS: &[(&str, Packer)] = &[(F32.name, pack_f32), (BF16.name, pack_bf16)];

/// The packer of a format; `None`: it is quantized.
pub(super) fn packer(format: &WeightFormat) -> Option<Packer> {
    PACKERS.iter().find(|p| p.0 == format.name).map(|p| p.1)
}

fn pack_f32(panel: &[f32], k: usize, out: &mut [u8]) {
    pack(panel, k, out, |[x]: [f32; 1]| x.to_bits());
}

fn pack_bf16(panel: &[f32], k: usize, out: &mut [u8]) {
    pack(panel, k, out, |pair: [f32; 2]| {
        // The values are bf16 already: the low half of each is zero.
        let [low, high] = pair.map(f32::to_bits);
        debug_assert_eq!((low | high) & 0xffff, 0);
        low >> 16 | high & 0xffff_0000
    });
}

/// Puts `word` of `N` values each into lines of sixteen rows. Rows stand some power of two apart, so that a line of each does not fit into the
/// cache at once: some of a row is taken at a time, into few lines.
fn pack<const N: usize>(panel: &[f32], k: usize, out: &mut [u8], word: impl Fn([f32; N]) -> u32) {
    const LINES: usize = 16;
    for (lines, first) in out.as_chunks_mut::<{ ROWS * 4 }>().0.chunks_mut(LINES).zip((0..).step_by(LINES * N)) {
        for r in 0..ROWS {
            let row = panel[r * k + first..][..lines.len() * N].as_chunks::<N>().0;
            for (line, values) in lines.iter_mut().zip(row) {
                line[4 * r..][..4].copy_from_slice(&word(*values).to_le_bytes());
            }
        }
    }
}

/// As [`Packer`], of rows that are stored in the format's type: their bytes in words of four. Rows that are `None` and what is missing at the end
/// of short ones are zero.
pub(super) fn pack_stored(rows: &[Option<&[u8]>; ROWS], out: &mut [u8]) {
    let whole = rows.map(|row| row.filter(|row| row.len() * ROWS == out.len()).unwrap_or_default());
    let tiled = if whole.iter().all(|row| !row.is_empty()) { interleave::tiles(&whole, out) } else { 0 };
    let out = &mut out[tiled * ROWS..];
    if rows.iter().any(|row| row.is_none_or(|row| (row.len() - tiled) * ROWS != out.len())) {
        out.fill(0);
    }
    const LINES: usize = 16;
    for (lines, first) in out.as_chunks_mut::<{ ROWS * 4 }>().0.chunks_mut(LINES).zip((tiled..).step_by(LINES * 4)) {
        for (r, row) in rows.iter().enumerate() {
            let Some(row) = row.and_then(|row| row.get(first..)) else { continue };
            for (line, word) in lines.iter_mut().zip(row.as_chunks::<4>().0) {
                line[4 * r..][..4].copy_from_slice(word);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use llamac_runtime::format::WEIGHT_FORMATS;

    #[test]
    fn every_weight_format_has_a_packer() {
        assert!(WEIGHT_FORMATS.iter().all(|f| packer(f).is_some() != super::super::quant::quantized(f).is_some()));
    }

    #[test]
    fn a_line_holds_sixteen_rows_of_four_bytes() {
        let k = 4;
        let panel: Vec<f32> = (0..ROWS * k).map(|i| i as f32).collect();
        let mut out = vec![0; F32.block_bytes(k)];
        pack_f32(&panel, k, &mut out);
        let at = |line: usize, row: usize| f32::from_le_bytes(out[line * 64 + row * 4..][..4].try_into().unwrap());
        assert_eq!((at(0, 0), at(0, 15), at(3, 2)), (0.0, 60.0, 11.0));
        let mut out = vec![0; BF16.block_bytes(k)];
        pack_bf16(&panel, k, &mut out);
        let at = |line: usize, row: usize, i: usize| {
            half::bf16::from_le_bytes(out[line * 64 + row * 4 + i * 2..][..2].try_into().unwrap()).to_f32()
        };
        assert_eq!((at(0, 0, 1), at(0, 15, 0), at(1, 2, 1)), (1.0, 60.0, 11.0));
    }

    /// Whole lines, a short end, and a row of padding.
    #[test]
    fn stored_rows_are_packed_like_their_values() {
        for k in [64usize, 70] {
            let values: Vec<f32> = (0..ROWS * k).map(|i| half::bf16::from_f32(i as f32 * 0.37).to_f32()).collect();
            let padded = k.next_multiple_of(BF16.k_unit);
            let mut panel = vec![0.0; ROWS * padded];
            (0..ROWS - 1).for_each(|r| panel[r * padded..][..k].copy_from_slice(&values[r * k..][..k]));
            let bytes: Vec<u8> = values.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect();
            let rows = std::array::from_fn(|r| (r < ROWS - 1).then(|| &bytes[r * k * 2..][..k * 2]));
            let (mut expected, mut found) = (vec![0; BF16.block_bytes(padded)], vec![9; BF16.block_bytes(padded)]);
            pack_bf16(&panel, padded, &mut expected);
            pack_stored(&rows, &mut found);
            assert!(found == expected, "{k}");
        }
    }

    /// Rows of all lengths, with and without a rest behind the tiles.
    #[test]
    fn whole_stored_rows_are_words_side_by_side() {
        for words in [1, 15, 16, 17, 48, 61] {
            let bytes: Vec<u8> = (0..ROWS * words * 4).map(|i| (i * 7 + i / 256) as u8).collect();
            let rows = std::array::from_fn(|r| Some(&bytes[r * words * 4..][..words * 4]));
            let mut found = vec![9; bytes.len()];
            pack_stored(&rows, &mut found);
            for (i, word) in found.chunks(4).enumerate() {
                assert_eq!(word, &bytes[(i % ROWS * words + i / ROWS) * 4..][..4], "word {i} of {words}");
            }
        }
    }
}
