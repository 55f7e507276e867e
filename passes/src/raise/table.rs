//! Frequencies of rotary tables: an exporter may have stored cosine and sine of every position, a step computes them from frequencies. What is found
//! is compared with the table.

use llamac_ir::dtype::DType;
use llamac_ir::recipe::{Prepared, Recipe, Source};

/// Positions at which the table is compared.
const SAMPLES: usize = 512;

/// Neighbours in f32 that are tried on each side of an estimate.
const NEIGHBOURS: i32 = 8;

/// The frequency of each column, such that row `p` of the tables is `cos(p * f)` and `sin(p * f)`, products in f32.
///
/// # Errors
/// There is none; what was seen.
pub(super) fn frequencies(source: &dyn Source, cos: &Recipe, sin: &Recipe) -> Result<Vec<f32>, String> {
    let (cos_ty, sin_ty) = (cos.ty()?, sin.ty()?);
    let Some([positions, columns]) = cos_ty.sizes().as_deref().and_then(|s| <[usize; 2]>::try_from(s).ok()) else {
        return Err(format!("rotary tables of type {cos_ty}"));
    };
    if sin_ty.shape != cos_ty.shape || positions < 2 {
        return Err(format!("rotary tables of types {cos_ty} and {sin_ty}"));
    }
    // What rounding the tables and the products of positions and frequencies may cost.
    let most = match cos_ty.dtype {
        DType::Bf16 => 8e-3,
        DType::F16 => 1.5e-3,
        _ => 5e-4,
    };
    let (cos, sin) = (Prepared::new(cos, source)?, Prepared::new(sin, source)?);
    let row = |p: usize| -> Result<Vec<(f64, f64)>, String> {
        let (mut c, mut s) = (vec![0.0; columns], vec![0.0; columns]);
        cos.row(p, &mut c)?;
        sin.row(p, &mut s)?;
        Ok(c.iter().zip(&s).map(|(c, s)| (f64::from(*c), f64::from(*s))).collect())
    };
    let turn = std::f64::consts::TAU;
    let mut estimate: Vec<f64> = row(1)?.iter().map(|(c, s)| s.atan2(*c).rem_euclid(turn)).collect();
    // Whole turns at twice the position follow from what is known so far, so each step doubles the accuracy.
    let mut p = 2;
    while p < positions {
        for (f, (c, s)) in estimate.iter_mut().zip(row(p)?) {
            let angle = s.atan2(c);
            let turns = ((*f * p as f64 - angle) / turn).round();
            *f = (angle + turns * turn) / p as f64;
        }
        p *= 2;
    }
    let step = positions.div_ceil(SAMPLES);
    let samples = (0..positions).step_by(step).chain([1, positions - 1]).map(|p| Ok((p, row(p)?))).collect::<Result<Vec<_>, String>>()?;
    let mut out = Vec::new();
    for (column, estimate) in estimate.iter().enumerate() {
        let bits = (*estimate as f32).to_bits() as i32;
        // The sine of how far the angle is off, and the largest difference of a number of the table.
        let errors = |f: f32| {
            let mut squares = 0.0;
            let mut most = 0.0f64;
            for (p, row) in &samples {
                let ((sin, cos), (c, s)) = (f64::from(*p as f32 * f).sin_cos(), row[column]);
                squares += (s * cos - c * sin).powi(2);
                most = most.max((cos - c).abs()).max((sin - s).abs());
            }
            (squares, most)
        };
        let tried = (-NEIGHBOURS..=NEIGHBOURS).filter_map(|n| bits.checked_add(n)).map(|b| f32::from_bits(b as u32)).filter(|f| *f >= 0.0);
        let best = tried.map(|f| (errors(f), f)).min_by(|a, b| a.0.0.total_cmp(&b.0.0));
        match best.map(|((_, error), f)| (error, f)) {
            Some((error, f)) if error <= most => out.push(f),
            found => {
                let error = found.map_or(f64::NAN, |(error, _)| error);
                return Err(format!(
                    "a rotary table whose column {column} is no cosine and sine of a multiple of the position: off by {error:.1e}"
                ));
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use llamac_ir::types::Type;

    const ROWS: usize = 3000;

    /// The angle of each place; tables `cos` and `sin`.
    struct Angles<F>(F);

    impl<F: Fn(usize, usize) -> f32 + Sync> Source for Angles<F> {
        fn row(&self, name: &str, row: usize, out: &mut [f32]) -> Result<(), String> {
            let f = if name == "cos" { f32::cos } else { f32::sin };
            out.iter_mut().enumerate().for_each(|(c, x)| *x = f((self.0)(row, c)));
            Ok(())
        }
    }

    fn found(angle: impl Fn(usize, usize) -> f32 + Sync, [cos, sin]: [&str; 2]) -> Result<Vec<f32>, String> {
        let table = |name: &str| Recipe::Source { name: name.to_owned(), ty: Type::fixed(DType::F32, &[ROWS, 3]) };
        frequencies(&Angles(angle), &table(cos), &table(sin))
    }

    #[test]
    fn the_frequencies_that_a_table_was_made_of_are_found_to_the_bit() {
        let made_of = [1.0f32, 0.067_133_04, 1.661_967_4e-6];
        assert_eq!(found(|p, c| p as f32 * made_of[c], ["cos", "sin"]).unwrap(), made_of);
    }

    #[test]
    fn tables_of_something_else_are_refused() {
        let roots = found(|p, c| (p as f32).sqrt() * (c as f32 + 1.0) * 0.1, ["cos", "sin"]);
        assert!(roots.unwrap_err().contains("column 0"));
        assert!(found(|p, c| p as f32 * 0.1 * (c as f32 + 1.0), ["sin", "cos"]).is_err());
    }
}
