//! Normal-ish random numbers at memory speed: a table of values per tensor, indexed by random bits. No files here.

use half::{bf16, f16};

/// Values of a table; 12 bits choose one.
const VALUES: usize = 4096;

/// Element types that checkpoints come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Float {
    /// 32-bit IEEE.
    F32,
    /// 16-bit IEEE.
    F16,
    /// The upper half of an f32.
    Bf16,
}

impl Float {
    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        if self == Float::F32 { 4 } else { 2 }
    }
    /// Its name in a safetensors header.
    pub fn safetensors(self) -> &'static str {
        match self {
            Float::F32 => "F32",
            Float::F16 => "F16",
            Float::Bf16 => "BF16",
        }
    }
    /// Its name in config.json.
    pub fn torch(self) -> &'static str {
        match self {
            Float::F32 => "float32",
            Float::F16 => "float16",
            Float::Bf16 => "bfloat16",
        }
    }
}

/// splitmix64: every seed gives a good sequence, one step takes a nanosecond.
#[derive(Debug, Clone)]
pub struct Bits(u64);

impl Bits {
    /// The sequence of a seed and a name.
    pub fn new(seed: u64, name: &str) -> Bits {
        // FNV-1a: spreads names that differ in one digit.
        Bits(name.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)))
    }
    /// 64 random bits.
    #[inline]
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn uniform(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Values to draw from, as bytes of the element type.
#[derive(Debug)]
pub enum Table {
    /// Of 16-bit elements.
    Half(Vec<[u8; 2]>),
    /// Of 32-bit elements.
    Single(Vec<[u8; 4]>),
}

impl Table {
    /// Values with this mean and standard deviation.
    pub fn new(float: Float, mean: f32, std: f32) -> Table {
        let mut bits = Bits::new(0, "table");
        // The sum of twelve uniform numbers has variance 1, and no tail that would make an outlier.
        let mut value = || mean + std * ((0..12).map(|_| bits.uniform()).sum::<f64>() - 6.0) as f32;
        match float {
            Float::F32 => Table::Single((0..VALUES).map(|_| value().to_le_bytes()).collect()),
            Float::F16 => Table::Half((0..VALUES).map(|_| f16::from_f32(value()).to_le_bytes()).collect()),
            Float::Bf16 => Table::Half((0..VALUES).map(|_| bf16::from_f32(value()).to_le_bytes()).collect()),
        }
    }

    /// Fills whole elements of `out` with values of the table.
    pub fn fill(&self, bits: &mut Bits, out: &mut [u8]) {
        match self {
            Table::Half(values) => fill(values, bits, out),
            Table::Single(values) => fill(values, bits, out),
        }
    }
}

fn fill<const N: usize>(values: &[[u8; N]], bits: &mut Bits, out: &mut [u8]) {
    for five in out.as_chunks_mut::<N>().0.chunks_mut(5) {
        let mut word = bits.draw();
        for element in five {
            *element = values[word as usize % VALUES];
            word >>= 12;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_mean_and_the_deviation_that_were_asked_for() {
        for float in [Float::F32, Float::F16, Float::Bf16] {
            let mut bytes = vec![0; 40_000 * float.bytes()];
            Table::new(float, 1.0, 0.25).fill(&mut Bits::new(3, "w"), &mut bytes);
            let values: Vec<f64> = match float {
                Float::F32 => bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
                Float::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f64()).collect(),
                Float::Bf16 => bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f64()).collect(),
            };
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let std = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
            assert!((mean - 1.0).abs() < 0.02 && (std - 0.25).abs() < 0.02, "{float:?}: {mean} {std}");
        }
    }

    #[test]
    fn a_name_and_a_seed_decide_the_values() {
        let of = |seed, name| Bits::new(seed, name).draw();
        assert_eq!(of(1, "layers.1.w"), of(1, "layers.1.w"));
        assert_ne!(of(1, "layers.1.w"), of(1, "layers.2.w"));
        assert_ne!(of(1, "layers.1.w"), of(2, "layers.1.w"));
    }
}
