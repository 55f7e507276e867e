//! Rotary frequencies: the `rope_scaling` kinds of HF configs, computed as transformers does. The rotation itself is an op of the IR.
//!
//! transformers computes in f32 tensors with f64 scalars: `1.0 / (base ** (arange(0, d, 2) / d))`, where a scalar is rounded to f32 when it
//! meets a tensor and `scalar / tensor` is `tensor.reciprocal() * scalar`. Each step here is rounded to f32 at the same places. Only the power
//! itself differs: here it is the correctly rounded one; torch's vector math library may be one unit in the last place off.

use std::f64::consts::PI;

/// Base and scaling of rotary frequencies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// `rope_theta`.
    pub theta: f64,
    /// `rope_scaling`.
    pub scaling: RopeScaling,
}

/// How frequencies are stretched for long contexts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all (`default`).
    None,
    /// All divided by `factor`.
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// NTK: a larger base for contexts beyond the trained one. Fixed here for the longest context of the artifact.
    Dynamic {
        /// Scale of the trained length.
        factor: f64,
    },
    /// Low frequencies divided by `factor`, high ones kept, a smooth zone between.
    Llama3 {
        /// Divisor.
        factor: f64,
        /// Wavelengths above `original / low` are divided.
        low: f64,
        /// Wavelengths below `original / high` are kept.
        high: f64,
        /// Trained context length, tokens.
        original: f64,
    },
}

/// Names of the kinds, for messages.
pub const ROPE_TYPES: &[&str] = &["default", "linear", "dynamic", "llama3"];

impl Rope {
    /// Frequencies of the `head_dim / 2` pairs. `trained` is `max_position_embeddings`, `context` the longest sequence that will be run; both matter
    /// to `dynamic` only.
    pub fn inv_freq(&self, head_dim: usize, trained: usize, context: usize) -> Vec<f32> {
        let theta = match self.scaling {
            RopeScaling::Dynamic { factor } => dynamic_theta(self.theta, factor, head_dim, trained, context),
            _ => self.theta,
        };
        let base = f64::from(theta as f32);
        let plain = (0..head_dim / 2).map(|i| {
            let exponent = (2 * i) as f32 / head_dim as f32;
            1.0 / (base.powf(f64::from(exponent)) as f32)
        });
        plain.map(|w| self.scaling.apply(w)).collect()
    }
}

impl RopeScaling {
    fn apply(&self, w: f32) -> f32 {
        match *self {
            RopeScaling::None | RopeScaling::Dynamic { .. } => w,
            RopeScaling::Linear { factor } => w / factor as f32,
            RopeScaling::Llama3 { factor, low, high, original } => llama3(w, factor as f32, low, high, original),
        }
    }
}

fn llama3(w: f32, factor: f32, low: f64, high: f64, original: f64) -> f32 {
    let wavelength = (1.0 / w) * (2.0 * PI) as f32;
    let (longest_kept, shortest_divided) = ((original / high) as f32, (original / low) as f32);
    if wavelength > shortest_divided {
        return w / factor;
    }
    // With `high == low` nothing lies between (and the division below would be 0 / 0): a step.
    if wavelength < longest_kept || high <= low {
        return w;
    }
    let smooth = ((1.0 / wavelength) * original as f32 - low as f32) / (high - low) as f32;
    (1.0 - smooth) * w / factor + smooth * w
}

fn dynamic_theta(theta: f64, factor: f64, head_dim: usize, trained: usize, context: usize) -> f64 {
    // A head of one pair has frequency 1 whatever the base.
    if head_dim <= 2 {
        return theta;
    }
    let (d, trained, length) = (head_dim as f64, trained as f64, context.max(trained) as f64);
    theta * ((factor * length / trained) - (factor - 1.0)).powf(d / (d - 2.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llama3(factor: f64, low: f64, high: f64) -> Rope {
        Rope { theta: 5e5, scaling: RopeScaling::Llama3 { factor, low, high, original: 8192.0 } }
    }
    fn plain(d: usize) -> Vec<f32> {
        Rope { theta: 5e5, scaling: RopeScaling::None }.inv_freq(d, 1, 1)
    }
    fn near(found: f32, wanted: f64) {
        assert!((f64::from(found) / wanted - 1.0).abs() < 1.5e-6, "{found} is not {wanted}");
    }
    /// Asserts which frequencies are kept, which have which ratio, and which are divided.
    fn golden(rope: Rope, d: usize, kept: usize, ratios: &[f64], factor: f64) {
        let (w, scaled) = (plain(d), rope.inv_freq(d, 131_072, 131_072));
        for i in 0..d / 2 {
            match i {
                _ if i < kept => assert_eq!(scaled[i], w[i], "kept {i}"),
                _ if i < kept + ratios.len() => near(w[i] / scaled[i], ratios[i - kept]),
                _ => assert_eq!(scaled[i], w[i] / factor as f32, "divided {i}"),
            }
        }
    }

    #[test]
    fn plain_frequencies_are_powers_of_the_base() {
        near(plain(128)[1], 0.814617234);
        near(plain(64)[1], 0.663601238);
        near(*plain(128).last().unwrap(), 2.45514079e-06);
        assert_eq!(plain(128)[0], 1.0);
    }

    #[test]
    fn llama3_scaling_has_the_published_ratios() {
        let eight = [1.207484, 1.553415, 2.026313, 2.694530, 3.684253, 5.257327];
        golden(llama3(8.0, 1.0, 4.0), 128, 29, &eight, 8.0);
        near(llama3(8.0, 1.0, 4.0).inv_freq(128, 1, 1)[63], 3.06892599e-07);
        let thirty_two = [1.234937, 1.651329, 2.276660, 3.292262, 5.171596, 9.666729];
        golden(llama3(32.0, 1.0, 4.0), 128, 29, &thirty_two, 32.0);
        near(llama3(32.0, 1.0, 4.0).inv_freq(128, 1, 1)[63], 7.67231497e-08);
        golden(llama3(32.0, 1.0, 4.0), 64, 15, &[1.651329, 3.292262, 9.666729], 32.0);
        near(llama3(32.0, 1.0, 4.0).inv_freq(64, 1, 1)[31], 9.41830673e-08);
    }

    #[test]
    fn llama3_scaling_with_equal_factors_is_a_step() {
        let scout = llama3(16.0, 1.0, 1.0);
        golden(scout, 128, 35, &[], 16.0);
        near(scout.inv_freq(128, 1, 1)[35], 4.77810618e-05);
        near(scout.inv_freq(128, 1, 1)[63], 1.53446299e-07);
    }

    #[test]
    fn linear_scaling_divides_and_dynamic_scaling_moves_the_base() {
        let linear = Rope { theta: 1e4, scaling: RopeScaling::Linear { factor: 4.0 } };
        assert_eq!(linear.inv_freq(8, 1, 1)[0], 0.25);
        let dynamic = Rope { theta: 1e4, scaling: RopeScaling::Dynamic { factor: 2.0 } };
        let base = Rope { theta: 1e4, scaling: RopeScaling::None };
        assert_eq!(dynamic.inv_freq(64, 2048, 100), base.inv_freq(64, 2048, 100), "short contexts keep the base");
        let moved = Rope { theta: 1e4 * 3f64.powf(64.0 / 62.0), scaling: RopeScaling::None };
        assert_eq!(dynamic.inv_freq(64, 2048, 4096), moved.inv_freq(64, 1, 1), "2 * 4096 / 2048 - 1 = 3");
        assert_eq!(dynamic.inv_freq(2, 2048, 4096), [1.0]);
    }
}
