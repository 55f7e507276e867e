//! Rows of every constructor against numbers worked out by hand, and what does not type.

use super::*;
use crate::testing::{Rng, Sources, source};

/// Source `m: [4, 2]` holds 0..8, `v: [4]` holds 10, 20, 30, 40, `w: [2]` holds 2, 3.
fn sources() -> Sources {
    let m = (0..8).map(|i| i as f32).collect();
    Sources::default().with("m", 2, m).with("v", 4, vec![10.0, 20.0, 30.0, 40.0]).with("w", 2, vec![2.0, 3.0])
}
fn m() -> Box<Recipe> {
    Box::new(source("m", &[4, 2]))
}
fn v() -> Box<Recipe> {
    Box::new(source("v", &[4]))
}
fn w() -> Box<Recipe> {
    Box::new(source("w", &[2]))
}
fn all(recipe: &Recipe) -> Vec<f32> {
    let sources = sources();
    let prepared = Prepared::new(recipe, &sources).unwrap();
    let shape = recipe.ty().unwrap().sizes().unwrap();
    assert_eq!((prepared.rows(), prepared.columns()), (shape.iter().rev().skip(1).product(), *shape.last().unwrap_or(&1)));
    let whole = prepared.read_all().unwrap();
    for (r, row) in whole.chunks(prepared.columns()).enumerate() {
        let mut again = vec![0.0; row.len()];
        recipe.read_row(&sources, r, &mut again).unwrap();
        assert_eq!(again, row);
    }
    whole
}
fn refused(recipe: &Recipe, words: &str) {
    let said = recipe.ty().unwrap_err();
    assert!(said.contains(words), "{words} is not in: {said}");
    assert!(Prepared::new(recipe, &sources()).is_err());
}

#[test]
fn every_constructor_gives_the_rows_that_it_names() {
    assert_eq!(all(&m()), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    assert_eq!(all(&Recipe::Literal { shape: vec![2, 2], data: vec![1.0, 2.0, 3.0, 4.0].into() }), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(all(&Recipe::Transpose(m())), [0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]);
    assert_eq!(all(&Recipe::ScaleColumns(m(), w())), [0.0, 3.0, 4.0, 9.0, 8.0, 15.0, 12.0, 21.0]);
    assert_eq!(all(&Recipe::ScaleRows(m(), v())), [0.0, 10.0, 40.0, 60.0, 120.0, 150.0, 240.0, 280.0]);
    let two = Recipe::Concat(vec![*m(), Recipe::Literal { shape: vec![1, 2], data: vec![8.0, 9.0].into() }, *m()]);
    assert_eq!(all(&two)[6..12], [6.0, 7.0, 8.0, 9.0, 0.0, 1.0]);
    assert_eq!(all(&Recipe::Concat(vec![*v(), *w()])), [10.0, 20.0, 30.0, 40.0, 2.0, 3.0]);
}

#[test]
fn parts_are_stacked_and_each_matrix_of_a_stack_is_transposed_by_itself() {
    let stack = Recipe::Stack(vec![*m(), Recipe::ScaleRows(m(), v())]);
    assert_eq!(stack.ty().unwrap().sizes().unwrap(), [2, 4, 2]);
    assert_eq!(all(&stack)[6..12], [6.0, 7.0, 0.0, 10.0, 40.0, 60.0]);
    let turned = Recipe::Transpose(Box::new(stack));
    assert_eq!(turned.ty().unwrap().sizes().unwrap(), [2, 2, 4]);
    assert_eq!(all(&turned), [0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0, 0.0, 40.0, 120.0, 240.0, 10.0, 60.0, 150.0, 280.0]);
    refused(&Recipe::Stack(vec![]), "no parts");
    refused(&Recipe::Stack(vec![*m(), *v()]), "parts of one type");
}

#[test]
fn a_band_is_its_rows_wherever_it_begins() {
    let turned = Recipe::Transpose(Box::new(Recipe::Stack(vec![*m(), *m(), Recipe::PermuteRope(4, m())])));
    let scaled = Recipe::ScaleColumns(Box::new(turned.clone()), v());
    let split = Recipe::Concat(vec![Recipe::ScaleRows(m(), v()), Recipe::Cast(DType::F32, m())]);
    let permuted = Recipe::PermuteRope(4, m());
    for recipe in [turned.clone(), scaled, split, permuted, Recipe::Cast(DType::Bf16, Box::new(turned))] {
        let (sources, rows) = (sources(), all(&recipe));
        let prepared = Prepared::new(&recipe, &sources).unwrap();
        let (n, k) = (prepared.rows(), prepared.columns());
        for first in 0..n {
            for count in 0..=n - first {
                let mut out = vec![-1.0; count * (k + 3)];
                prepared.band(first, count, &mut out, k + 3).unwrap();
                for (i, row) in out.chunks(k + 3).enumerate() {
                    assert_eq!(row[..k], rows[(first + i) * k..][..k], "row {i} of {first}, {count} of {recipe}");
                    assert_eq!(row[k..], [-1.0; 3]);
                }
            }
        }
        assert!(prepared.band(n, 1, &mut vec![0.0; k], k).is_err());
        assert!(prepared.band(0, 1, &mut vec![0.0; k], k - 1).is_err());
        assert!(prepared.band(0, 2, &mut vec![0.0; k], k).is_err());
    }
}

#[test]
fn rotary_halves_become_pairs_in_matrices_and_in_biases() {
    // A head of four rows: the halves 0, 1 and 2, 3 become the pairs 0, 2 and 1, 3.
    assert_eq!(all(&Recipe::PermuteRope(4, m())), [0.0, 1.0, 4.0, 5.0, 2.0, 3.0, 6.0, 7.0]);
    assert_eq!(all(&Recipe::PermuteRope(4, v())), [10.0, 30.0, 20.0, 40.0]);
    // Heads of two rows stay as they are, and heads are not mixed.
    assert_eq!(all(&Recipe::PermuteRope(2, v())), [10.0, 20.0, 30.0, 40.0]);
    let eight = Recipe::Concat(vec![*v(), *v()]);
    assert_eq!(all(&Recipe::PermuteRope(4, Box::new(eight))), [10.0, 30.0, 20.0, 40.0, 10.0, 30.0, 20.0, 40.0]);
}

#[test]
fn recipes_nest() {
    let scaled = Recipe::ScaleColumns(Box::new(Recipe::PermuteRope(4, m())), w());
    let nested = Recipe::Cast(DType::Bf16, Box::new(Recipe::Concat(vec![scaled.clone(), scaled])));
    assert_eq!(nested.ty().unwrap(), Type::fixed(DType::Bf16, &[8, 2]));
    assert_eq!(all(&nested)[8..], [0.0, 3.0, 8.0, 15.0, 4.0, 9.0, 12.0, 21.0]);
    let mut names = Vec::new();
    nested.sources(&mut |name| names.push(name));
    assert_eq!(names, ["m", "w", "m", "w"]);
}

#[test]
fn casting_rounds_and_scaling_gives_f32() {
    let third = Recipe::Literal { shape: vec![1], data: vec![1.0 / 3.0].into() };
    assert_eq!(all(&Recipe::Cast(DType::Bf16, Box::new(third.clone()))), [0.333_984_38]);
    assert_eq!(all(&Recipe::Cast(DType::F16, Box::new(third.clone()))), [0.333_251_95]);
    let scaled = Recipe::ScaleRows(Box::new(Recipe::Cast(DType::Bf16, Box::new(third.clone()))), Box::new(third));
    assert_eq!(scaled.ty().unwrap().dtype, DType::F32);
}

#[test]
fn the_number_of_the_layer_goes_into_every_source_name() {
    let recipe = Recipe::ScaleColumns(Box::new(Recipe::Concat(vec![source("a.{layer}.b", &[1, 2])])), w());
    let mut names = Vec::new();
    let third = recipe.for_layer(3);
    third.sources(&mut |name| names.push(name));
    assert_eq!(names, ["a.3.b", "w"]);
}

#[test]
fn recipes_that_do_not_fit_are_refused() {
    refused(&Recipe::Concat(vec![]), "no parts");
    refused(&Recipe::Concat(vec![*m(), *v()]), "after f32[4, 2]");
    refused(&Recipe::Concat(vec![*m(), Recipe::Cast(DType::F16, m())]), "element type");
    refused(&Recipe::Transpose(v()), "a matrix");
    refused(&Recipe::PermuteRope(3, m()), "heads of 3");
    refused(&Recipe::PermuteRope(0, m()), "heads of 0");
    refused(&Recipe::ScaleColumns(m(), v()), "`scale_columns`");
    refused(&Recipe::ScaleRows(m(), w()), "`scale_rows`");
    refused(&Recipe::Literal { shape: vec![3], data: vec![1.0].into() }, "1 elements");
    refused(&source("m", &[4, 0]), "without zeros");
    refused(&source("m", &[usize::MAX / 2, 4]), "fits in memory");
    refused(&Recipe::Cast(DType::I32, m()), "real numbers");
    refused(&Recipe::Source { name: "m".into(), ty: crate::testing::ty(DType::F32, "s", 4) }, "fixed shape");
}

#[test]
fn rows_that_do_not_exist_and_types_without_arithmetic_are_errors() {
    let (sources, recipe) = (sources(), *m());
    let prepared = Prepared::new(&recipe, &sources).unwrap();
    assert!(prepared.row(4, &mut [0.0; 2]).unwrap_err().contains("row 4"));
    assert!(prepared.row(0, &mut [0.0; 3]).is_err());
    let odd = Recipe::Cast(DType::F8E4m3, m());
    assert_eq!(odd.ty().unwrap().dtype, DType::F8E4m3);
    assert!(Prepared::new(&odd, &sources).err().unwrap().contains("f8e4m3"));
    assert!(source("none", &[1, 2]).read_row(&sources, 0, &mut [0.0; 2]).unwrap_err().contains("`none`"));
}

#[test]
fn one_prepared_recipe_serves_several_threads() {
    let mut rng = Rng(3);
    let sources = Sources::default().with("a", 8, rng.floats(64)).with("g", 8, rng.floats(8));
    let recipe = Recipe::ScaleColumns(Box::new(source("a", &[8, 8])), Box::new(source("g", &[8])));
    let prepared = Prepared::new(&recipe, &sources).unwrap();
    let whole = prepared.read_all().unwrap();
    std::thread::scope(|scope| {
        for row in 0..8 {
            let (prepared, whole) = (&prepared, &whole);
            scope.spawn(move || {
                let mut out = [0.0; 8];
                prepared.row(row, &mut out).unwrap();
                assert_eq!(out, whole[row * 8..][..8]);
            });
        }
    });
}

#[test]
fn rows_are_a_part_of_a_weight_wherever_they_stand() {
    let rows = |start, len, of| Recipe::Rows(start, len, Box::new(of));
    assert_eq!(all(&rows(1, 2, *m())), [2.0, 3.0, 4.0, 5.0]);
    assert_eq!(all(&rows(1, 2, *v())), [20.0, 30.0]);
    assert_eq!(all(&rows(1, 1, Recipe::Transpose(m()))), [1.0, 3.0, 5.0, 7.0]);
    assert_eq!(all(&Recipe::Transpose(Box::new(rows(2, 2, *m())))), [4.0, 6.0, 5.0, 7.0]);
    let stack = Recipe::Stack(vec![*m(), Recipe::ScaleRows(m(), v())]);
    assert_eq!(all(&rows(1, 1, stack)), [0.0, 10.0, 40.0, 60.0, 120.0, 150.0, 240.0, 280.0]);
    let both = Recipe::Concat(vec![rows(3, 1, *m()), rows(0, 1, *m())]);
    assert_eq!(all(&both), [6.0, 7.0, 0.0, 1.0]);
    for (start, len) in [(3, 2), (4, 1), (usize::MAX, 2)] {
        refused(&rows(start, len, *m()), "rows that are there");
    }
    let text = "rows(1, 2, \"m\": f32[4, 2])";
    assert_eq!(rows(1, 2, *m()).to_string(), text);
}

#[test]
fn bytes_become_floats_but_not_the_other_way_round() {
    let bytes = Recipe::Source { name: "m".to_owned(), ty: crate::types::Type::fixed(DType::I8, &[4, 2]) };
    let widened = Recipe::ScaleColumns(Box::new(Recipe::Cast(DType::F32, Box::new(bytes))), w());
    assert_eq!(all(&widened)[..4], [0.0, 3.0, 4.0, 9.0]);
    refused(&Recipe::Cast(DType::I8, m()), "types of real numbers");
}

/// A matrix `[2, 40]` and its transpose `[40, 2]`, stored as codes in blocks of 32: code `(r * 5 + c) % 16 - 8`, scales 1, 2, 4, 8 by row and block.
struct Coded;

impl Coded {
    fn line(row: usize) -> (Vec<i8>, [f32; 2]) {
        let codes = (0..40).map(|c| ((row * 5 + c) % 16) as i8 - 8).collect();
        (codes, [[1.0, 2.0], [4.0, 8.0]][row])
    }
}

impl Source for Coded {
    fn row(&self, name: &str, row: usize, out: &mut [f32]) -> Result<(), String> {
        let value = |r: usize, c: usize| f32::from(Coded::line(r).0[c]) * Coded::line(r).1[c / 32];
        out.iter_mut().enumerate().for_each(|(c, x)| *x = if name == "turned" { value(c, row) } else { value(row, c) });
        Ok(())
    }
    fn codes(&self, name: &str, dtype: DType, line: Line, out: &mut Codes) -> Result<bool, String> {
        let row = match (name, line) {
            ("plain", Line::Row { row, columns: 40 }) | ("turned", Line::Column { column: row, columns: 2, rows: 40 }) => row,
            _ => return Ok(false),
        };
        let (codes, scales) = Coded::line(row);
        out.take(32, codes.into_iter(), scales.into_iter());
        Ok(dtype == DType::Q4G32)
    }
}

#[test]
fn codes_that_are_there_are_kept() {
    let source = |name: &str, shape: &[usize]| Recipe::Source { name: name.into(), ty: Type::fixed(DType::F32, shape) };
    let (plain, turned) = (source("plain", &[2, 40]), Recipe::Transpose(Box::new(source("turned", &[40, 2]))));
    let both = Recipe::Concat(vec![plain.clone(), Recipe::Rows(1, 1, Box::new(turned.clone()))]);
    let permuted = Recipe::PermuteRope(2, Box::new(plain.clone()));
    for (recipe, rows) in [(plain.clone(), vec![0, 1]), (turned, vec![0, 1]), (both, vec![0, 1, 1]), (permuted, vec![0, 1])] {
        let cast = Recipe::Cast(DType::Q4G32, Box::new(recipe));
        let prepared = Prepared::new(&cast, &Coded).unwrap();
        let (mut room, mut codes) = (Vec::new(), Codes::default());
        for (at, row) in rows.into_iter().enumerate() {
            prepared.codes(at, &mut room, &mut codes).unwrap();
            assert_eq!((&codes.codes, &codes.scales[..]), (&Coded::line(row).0, &Coded::line(row).1[..]), "{cast}");
            let mut values = vec![0.0; 40];
            prepared.row(at, &mut values).unwrap();
            assert_eq!(
                (values[1], values[39]),
                (f32::from(codes.codes[1]) * codes.scales[0], f32::from(codes.codes[39]) * codes.scales[1])
            );
            let mut band = [Codes::default()];
            prepared.codes_band(at, &mut room, &mut band).unwrap();
            assert_eq!(band[0], codes);
        }
    }
    // Other groups, or numbers that were scaled since, are quantized: the searched scale of a group is not the stored one.
    let scaled = Recipe::ScaleRows(Box::new(plain.clone()), Box::new(Recipe::Literal { shape: vec![2], data: vec![1.0, 1.0].into() }));
    for cast in [Recipe::Cast(DType::Q4G64, Box::new(plain)), Recipe::Cast(DType::Q4G32, Box::new(scaled))] {
        assert!(!matches!(Prepared::new(&cast, &Coded).unwrap().node, prepared::Node::Kept(..)), "{cast}");
    }
}
