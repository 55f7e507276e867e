//! Data for the tests of kernels: seeded numbers, and packed matrices and pages made from plain rows.

use super::KernelRow;
use super::table::KERNELS;
use crate::abi::Kernel;
use crate::artifact::target::has_feature;

/// Numbers in [-1, 1), the same on every machine.
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub(super) fn one(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
    pub(super) fn many(&mut self, n: usize, bf16: bool) -> Vec<f32> {
        (0..n).map(|_| if bf16 { widen(round(self.one())) } else { self.one() }).collect()
    }
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.bits() >> 33) as usize % n
    }
}

/// To bf16, to nearest even.
pub(super) fn round(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// From bf16.
pub(super) fn widen(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

/// Writes an element of a format.
pub(super) fn put(to: &mut [u8], bf16: bool, x: f32) {
    if bf16 { to[..2].copy_from_slice(&round(x).to_le_bytes()) } else { to[..4].copy_from_slice(&x.to_le_bytes()) }
}

/// Rows of an op and format that this machine can run, with their functions.
pub(super) fn runnable(op: &str, format: &str) -> Vec<(&'static KernelRow, Kernel)> {
    let fits = |r: &&KernelRow| r.op == op && r.format == format && r.isa.features.iter().all(|f| has_feature(f));
    KERNELS.iter().filter(fits).filter_map(|r| Some((r, r.kernel?))).collect()
}
