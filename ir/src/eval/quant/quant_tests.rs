//! Tests of rounding and quantizing.

use super::*;

fn noise(n: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    // Sums of uniform numbers are nearly normal.
    (0..n).map(|_| (0..6).map(|_| next()).sum::<f32>() * 0.02).collect()
}

fn error(row: &[f32], rounded: &[f32]) -> f64 {
    row.iter().zip(rounded).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / row.iter().map(|a| f64::from(*a).powi(2)).sum::<f64>()
}

#[test]
fn rounding_is_to_nearest_with_ties_to_even() {
    // bf16 has 8 bits of mantissa, f16 has 11: halfway cases above 1.
    let mut row = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 1.0 + 1.1 / 256.0];
    round(DType::Bf16, &mut row).unwrap();
    assert_eq!(row, [1.0, 1.0 + 4.0 / 256.0, 1.0 + 2.0 / 256.0]);
    let mut row = [1.0 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0, 70000.0];
    round(DType::F16, &mut row).unwrap();
    assert_eq!(row, [1.0, 1.0 + 4.0 / 2048.0, f32::INFINITY]);
    let mut row = [0.1];
    round(DType::F32, &mut row).unwrap();
    assert_eq!(row, [0.1]);
}

#[test]
fn types_without_arithmetic_are_named() {
    assert!(round(DType::F8E4m3, &mut []).unwrap_err().contains("f8e4m3"));
    assert!(round(DType::I32, &mut []).unwrap_err().contains("i32"));
    assert!(quantize(DType::Bf16, &[1.0], &mut Codes::default()).unwrap_err().contains("bf16"));
}

#[test]
fn a_row_that_the_type_holds_stays_as_it_is() {
    let mut row: Vec<f32> = (0..64).map(|i| ((i % 16) as f32 - 8.0) * 0.25).collect();
    let before = row.clone();
    round(DType::Q4G32, &mut row).unwrap();
    assert_eq!(row, before);
    let mut row: Vec<f32> = (0..255).map(|i| (i as f32 - 127.0) * 0.5).collect();
    let before = row.clone();
    round(DType::Q8, &mut row).unwrap();
    assert_eq!(row, before);
}

#[test]
fn the_searched_scale_beats_the_largest_element_by_a_tenth() {
    let row = noise(4096);
    let mut rounded = row.clone();
    round(DType::Q4G32, &mut rounded).unwrap();
    let plain: Vec<f32> = row
        .chunks(32)
        .flat_map(|g| {
            let scale = half::f16::from_f32(g.iter().fold(0.0f32, |m, x| m.max(x.abs())) / 7.0).to_f32();
            g.iter().map(move |x| (x / scale).round_ties_even().clamp(-8.0, 7.0) * scale)
        })
        .collect();
    let (searched, plain) = (error(&row, &rounded), error(&row, &plain));
    assert!(searched < 0.9 * plain, "{searched} against {plain}");
}

#[test]
fn smaller_groups_and_more_bits_lose_less() {
    let row = noise(4096);
    let errors: Vec<f64> = [DType::Q4G128, DType::Q4G64, DType::Q4G32, DType::Q8, DType::Q8G32]
        .iter()
        .map(|dtype| {
            let mut rounded = row.clone();
            round(*dtype, &mut rounded).unwrap();
            error(&row, &rounded)
        })
        .collect();
    assert!(errors.windows(2).all(|w| w[1] < w[0]), "{errors:?}");
}

#[test]
fn a_short_last_group_and_zeros_are_in_order() {
    let mut codes = Codes::default();
    let mut row = noise(500);
    row[..32].fill(0.0);
    quantize(DType::Q4G32, &row, &mut codes).unwrap();
    assert_eq!((codes.codes.len(), codes.scales.len()), (500, 16));
    assert!(codes.scales[0] == 0.0 && codes.codes[..32].iter().all(|c| *c == 0));
    assert!(codes.codes.iter().all(|c| (-8..=7).contains(c)));
}

#[test]
fn inputs_of_products_are_rounded_by_groups_from_column_zero() {
    let mut row = vec![0.0; 300];
    (row[0], row[1], row[255], row[256], row[299]) = (127.0, 0.6, -3.5, 1.27, 0.014);
    round_input(DType::I8, &mut row).unwrap();
    assert_eq!((row[0], row[1], row[255]), (127.0, 1.0, -4.0));
    assert!((row[256] - 1.27).abs() < 1e-6 && (row[299] - 0.01).abs() < 1e-6);
}

#[test]
fn wide_vectors_give_the_same_codes_and_scales() {
    for seed in 0..20 {
        let row: Vec<f32> = noise(3000)[seed * 10..].iter().enumerate().map(|(i, x)| if i % 97 == seed { x * 30.0 } else { *x }).collect();
        for dtype in [DType::Q8, DType::Q8G32, DType::Q4G32, DType::Q4G64, DType::Q4G128] {
            let (mut wide, mut plain) = (Codes::default(), Codes::default());
            quantize(dtype, &row, &mut wide).unwrap();
            crate::wide::plainly(|| quantize(dtype, &row, &mut plain)).unwrap();
            assert_eq!(
                wide.scales.iter().map(|s| s.to_bits()).collect::<Vec<_>>(),
                plain.scales.iter().map(|s| s.to_bits()).collect::<Vec<_>>()
            );
            assert_eq!(wide.codes, plain.codes);
        }
    }
}
