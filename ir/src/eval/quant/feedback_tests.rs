//! Tests of moments and of passing errors on.

use super::*;
use crate::eval::quant::MomentSums;
use crate::wide::plainly;

/// Numbers between -1 and 1, the same for the same seed.
fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Rows of inputs whose columns depend on each other: each is a mixture of `factors` numbers.
fn inputs(rows: usize, columns: usize, factors: usize) -> Vec<f32> {
    let mix = noise(7, factors * columns);
    let row = |r: usize| {
        let (z, own) = (noise(100 + r as u64, factors), noise(9000 + r as u64, columns));
        (0..columns).map(|c| 0.1 * own[c] + (0..factors).map(|f| z[f] * mix[f * columns + c]).sum::<f32>()).collect::<Vec<f32>>()
    };
    (0..rows).flat_map(row).collect()
}

fn moments(x: &[f32], columns: usize) -> Moments {
    let mut sums = MomentSums::new(columns, 1);
    sums.add(x);
    sums.finish()
}

/// Mean square of `x . (row - values of codes)`, over the rows of `x`.
fn error(x: &[f32], row: &[f32], codes: &Codes) -> f64 {
    let mut values = row.to_vec();
    codes.values(&mut values);
    let difference: Vec<f64> = row.iter().zip(&values).map(|(a, b)| f64::from(a - b)).collect();
    let one = |x: &[f32]| x.iter().zip(&difference).map(|(x, d)| f64::from(*x) * d).sum::<f64>().powi(2);
    x.chunks_exact(row.len()).map(one).sum::<f64>() / (x.len() / row.len()) as f64
}

const Q4: Grid = Grid { bits: 4, half: true };

#[test]
fn sums_of_rows_are_second_moments_within_blocks() {
    let x = [1.0, 2.0, -1.0, 3.0, 0.5, 0.25, 4.0, 0.0, 2.0, 1.0];
    let found = moments(&x, 2);
    assert_eq!(found.data[..2], [(1.0 + 1.0 + 0.25 + 16.0 + 4.0) / 5.0, (2.0 - 3.0 + 0.125 + 0.0 + 2.0) / 5.0]);
    assert_eq!(found.data[BLOCK + 1], (4.0 + 9.0 + 0.0625 + 0.0 + 1.0) / 5.0);
    assert_eq!(found.squares(0).collect::<Vec<_>>(), [found.data[0], found.data[BLOCK + 1]]);
    // Column 300 is in the second block: its row begins there.
    let x = noise(1, 2 * 400);
    let found = moments(&x, 400);
    let expected = (x[300] * x[310] + x[700] * x[710]) / 2.0;
    assert!((found.data[300 * BLOCK + 310 - BLOCK] - expected).abs() < 1e-6);
}

#[test]
fn a_difference_counts_what_it_changes_in_the_products() {
    // One block: nothing is left out.
    let (x, d) = (inputs(30, 100, 10), noise(4, 100));
    let product = |x: &[f32]| x.iter().zip(&d).map(|(x, d)| f64::from(*x) * f64::from(*d)).sum::<f64>();
    let expected = x.chunks_exact(100).map(|x| product(x).powi(2)).sum::<f64>() / 30.0;
    let found = moments(&x, 100).square(&d, 0);
    assert!((found / expected - 1.0).abs() < 1e-4, "{found} {expected}");
}

#[test]
fn experts_that_saw_little_are_taken_to_be_like_the_others() {
    let mut sums = MomentSums::new(1, 2);
    // Two rows of the first expert, none of the second.
    sums.add(&[2.0, 0.0, 4.0, 0.0]);
    let found = sums.finish();
    assert_eq!((found.experts(), found.squares(0).next(), found.squares(1).next()), (2, Some(10.0), Some(10.0)));
}

#[test]
fn the_root_of_the_inverse_is_one() {
    let n = 20;
    let x = inputs(50, n, 5);
    let mut h: Vec<f64> = vec![0.0; n * n];
    x.chunks(n).for_each(|r| (0..n * n).for_each(|i| h[i] += f64::from(r[i / n]) * f64::from(r[i % n])));
    (0..n).for_each(|i| h[i * n + i] += 1.0);
    let u = inverse_root(h.clone(), n, 1e-9);
    for (i, j) in (0..n * n).map(|i| (i / n, i % n)) {
        assert!(i <= j || u[i * n + j] == 0.0);
        // transpose(U) U H = 1.
        let uu = |i: usize, k: usize| (0..n).map(|r| u[r * n + i] * u[r * n + k]).sum::<f64>();
        let product: f64 = (0..n).map(|k| uu(i, k) * h[k * n + j]).sum();
        assert!((product - f64::from(u8::from(i == j))).abs() < 1e-9, "{i} {j}: {product}");
    }
}

#[test]
fn products_are_closer_than_with_rounded_weights() {
    // 500 columns: the second block and the last group are short.
    let x = inputs(400, 500, 40);
    let feedback = Feedback::new(&moments(&x, 500));
    for (grid, group) in [(Q4, 32), (Q4, 128), (Grid { bits: 8, half: false }, usize::MAX)] {
        let (mut plain, mut passed) = (0.0, 0.0);
        for seed in 0..8 {
            let row = noise(seed, 500);
            let mut codes = Codes::default();
            super::super::scales::quantize(&row, group, grid, &mut codes);
            plain += error(&x, &row, &codes);
            feedback.quantize(&mut row.clone(), 0, group, grid, &mut codes);
            passed += error(&x, &row, &codes);
            assert_eq!((codes.codes.len(), codes.scales.len()), (500, 500usize.div_ceil(group)));
        }
        assert!(passed < 0.4 * plain, "{group}: {passed} against {plain}");
    }
}

#[test]
fn an_input_that_is_not_known_gives_what_rounding_gives() {
    for data in [vec![0.0; 100 * BLOCK], vec![f32::NAN; 100 * BLOCK]] {
        let feedback = Feedback::new(&Moments { columns: 100, data });
        let row = noise(3, 100);
        let (mut plain, mut passed) = (Codes::default(), Codes::default());
        super::super::scales::quantize(&row, 32, Q4, &mut plain);
        feedback.quantize(&mut row.clone(), 0, 32, Q4, &mut passed);
        assert_eq!(plain, passed);
    }
}

#[test]
fn wide_vectors_give_the_same_moments_factors_and_codes() {
    let x = inputs(30, 300, 10);
    let all = || {
        // Not through `MomentSums` and `Feedback::new`: their threads know nothing of what this one wants.
        let parts: Vec<&[f32]> = x.chunks(300).map(|row| &row[..BLOCK]).collect();
        let mut sums = vec![0.0; BLOCK * BLOCK];
        crate::eval::quant::moments::add_block(&parts, &mut sums);
        let feedback = Feedback { experts: vec![passing(&sums, BLOCK)] };
        let mut codes = Codes::default();
        feedback.quantize(&mut noise(5, 256), 0, 64, Q4, &mut codes);
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
        let factors: Vec<Vec<u32>> = feedback.experts.iter().flat_map(|p| [bits(&p.factors), bits(&p.weights)]).collect();
        (bits(&sums), factors, codes)
    };
    let (wide, plain) = (all(), plainly(all));
    assert!(wide == plain);
}
