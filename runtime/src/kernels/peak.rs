//! The roofs of the kernels, by the same vectors: multiply-accumulates from registers alone, and reading alone. Used by `roof`.

use super::table::Isa;
#[cfg(target_arch = "aarch64")]
use super::table::NEON;
#[cfg(target_arch = "x86_64")]
use super::table::{AMXBF16, AVX2, AVX512, AVX512BF16};
use crate::abi::Kernel;

/// A loop that does nothing but multiply and add, and one that does nothing but read.
#[derive(Debug)]
pub(crate) struct Peak {
    isa: Option<&'static Isa>,
    bf16: bool,
    /// Takes a pointer to the number of rounds, a `u64`.
    pub(crate) run: Kernel,
    /// Multiply-accumulates in a round.
    pub(crate) macs_per_round: u64,
    /// Takes a pointer to [`ReadArgs`].
    pub(crate) read: Kernel,
}

/// A loop that does nothing but multiply and add integers.
#[derive(Debug)]
pub(crate) struct IntPeak {
    isa: &'static Isa,
    /// Bits of the weights: 4 or 8. Activations have 8.
    bits: u32,
    /// As [`Peak::run`].
    pub(crate) run: Kernel,
    /// Multiply-accumulates in a round.
    pub(crate) macs_per_round: u64,
}

/// The fastest for weights of `bits` bits that a CPU with these features has.
pub(crate) fn best_int(bits: u32, has_feature: impl Fn(&str) -> bool) -> Option<&'static IntPeak> {
    INT_PEAKS.iter().rfind(|p| p.bits == bits && p.isa.features.iter().all(|f| has_feature(f)))
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
static INT_PEAKS: &[IntPeak] = &[];
#[cfg(target_arch = "aarch64")]
static INT_PEAKS: &[IntPeak] = {
    use super::quant::neon;
    use super::table::NEONDOT;
    &[
        IntPeak { isa: &NEON, bits: 4, run: neon::base::peak, macs_per_round: 4 * 64 },
        IntPeak { isa: &NEON, bits: 8, run: neon::base::peak, macs_per_round: 4 * 64 },
        IntPeak { isa: &NEONDOT, bits: 4, run: neon::dotprod::peak, macs_per_round: 4 * 64 },
        IntPeak { isa: &NEONDOT, bits: 8, run: neon::dotprod::peak, macs_per_round: 4 * 64 },
    ]
};
#[cfg(target_arch = "x86_64")]
static INT_PEAKS: &[IntPeak] = {
    use super::quant::{amx, avx2, avx512, avxvnni, peak};
    use super::table::{AMX, AVX2F16C, AVX512VNNI, AVXVNNI};
    &[
        IntPeak { isa: &AVX2F16C, bits: 4, run: avx2::peak_four, macs_per_round: 4 * 64 },
        IntPeak { isa: &AVX2F16C, bits: 8, run: avx2::peak_eight, macs_per_round: peak::EIGHT_ROWS * 64 },
        IntPeak { isa: &AVXVNNI, bits: 4, run: avxvnni::peak, macs_per_round: 4 * 64 },
        IntPeak { isa: &AVXVNNI, bits: 8, run: avxvnni::peak, macs_per_round: 4 * 64 },
        IntPeak { isa: &AVX512VNNI, bits: 4, run: avx512::vnni_peak, macs_per_round: 12 * 64 },
        IntPeak { isa: &AVX512VNNI, bits: 8, run: avx512::vnni_peak, macs_per_round: 12 * 64 },
        IntPeak { isa: &AMX, bits: 4, run: amx::peak, macs_per_round: super::amx::peak_macs(false) },
        IntPeak { isa: &AMX, bits: 8, run: amx::peak, macs_per_round: super::amx::peak_macs(false) },
    ]
};

/// What to read.
#[repr(C)]
pub(crate) struct ReadArgs {
    /// First byte.
    pub(crate) at: *const u8,
    /// Length, a multiple of `streams` times [`STREAM_BLOCK`].
    pub(crate) bytes: u64,
    /// Blocks that are read side by side. Some CPUs read several streams faster than one.
    pub(crate) streams: u64,
    /// Bytes ahead that lines are fetched; 0: they are not.
    pub(crate) ahead: u64,
}

/// Bytes of a block that is read as one stream: about a block of rows of a weight matrix.
pub(crate) const STREAM_BLOCK: usize = 64 << 10;

/// The fastest that a CPU with these features has; `bf16`: products of bf16 too.
pub(crate) fn best(bf16: bool, has_feature: impl Fn(&str) -> bool) -> &'static Peak {
    let fits = |p: &&Peak| (bf16 || !p.bf16) && p.isa.is_none_or(|isa| isa.features.iter().all(|f| has_feature(f)));
    PEAKS.iter().rfind(fits).unwrap_or(&PEAKS[0])
}

static PEAKS: &[Peak] = &[
    Peak { isa: None, bf16: false, run: generic, macs_per_round: 12 * 16, read: generic_read },
    #[cfg(target_arch = "x86_64")]
    Peak { isa: Some(&AVX2), bf16: false, run: super::avx2::peak_f32, macs_per_round: 6 * 16, read: super::avx2::read },
    #[cfg(target_arch = "x86_64")]
    Peak { isa: Some(&AVX512), bf16: false, run: super::avx512::peak_f32, macs_per_round: 12 * 16, read: super::avx512::read },
    #[cfg(target_arch = "x86_64")]
    Peak { isa: Some(&AVX512BF16), bf16: true, run: super::avx512::peak_dpbf16, macs_per_round: 12 * 32, read: super::avx512::read },
    #[cfg(target_arch = "x86_64")]
    Peak {
        isa: Some(&AMXBF16),
        bf16: true,
        run: super::avx512::peak_amx_bf16,
        macs_per_round: super::amx::peak_macs(true),
        read: super::avx512::read,
    },
    #[cfg(target_arch = "aarch64")]
    Peak { isa: Some(&NEON), bf16: false, run: super::neon::peak_f32, macs_per_round: 6 * 16, read: super::neon::read },
];

/// 12 sums of 16.
unsafe extern "C" fn generic(rounds: *const u8) {
    // SAFETY: the contract of `Peak::run`.
    let rounds = unsafe { *rounds.cast::<u64>() };
    let mut sums = [[0.0f32; 16]; 12];
    let x = std::hint::black_box([1.5f32; 16]);
    for _ in 0..rounds {
        for sum in &mut sums {
            for (sum, x) in sum.iter_mut().zip(x) {
                *sum = *sum * 0.5 + x;
            }
        }
    }
    std::hint::black_box(sums);
}

/// Words, as the compiler sees fit.
unsafe extern "C" fn generic_read(args: *const u8) {
    // SAFETY: the contract of `Peak::read`.
    let lines = unsafe {
        let args = &*args.cast::<ReadArgs>();
        std::slice::from_raw_parts(args.at.cast::<[u8; 64]>(), args.bytes as usize / 64)
    };
    let mut sums = [0u8; 64];
    for line in lines {
        sums.iter_mut().zip(line).for_each(|(sum, word)| *sum ^= word);
    }
    std::hint::black_box(sums);
}

/// Four lines of each stream at a time.
///
/// # Safety
/// As for [`super::lanes::Lanes`], and the contract of [`Peak::read`].
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
pub(super) unsafe fn read<L: super::lanes::Lanes>(args: &ReadArgs) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [L::splat(0.0); 4];
        let group = args.streams as usize * STREAM_BLOCK;
        for group in (0..args.bytes as usize / group * group).step_by(group) {
            for at in (0..STREAM_BLOCK).step_by(256) {
                for stream in 0..args.streams as usize {
                    let at = args.at.add(group + stream * STREAM_BLOCK + at);
                    for (i, sum) in sums.iter_mut().enumerate() {
                        if args.ahead > 0 {
                            L::prefetch(at.wrapping_add(i * 64 + args.ahead as usize));
                        }
                        *sum = L::max(*sum, L::load(at.add(i * 64).cast()));
                    }
                }
            }
        }
        let mut kept = [0.0; 16];
        for sum in sums {
            L::store(kept.as_mut_ptr(), sum);
            std::hint::black_box(&kept);
        }
    }
}

/// `N` sums of 16.
///
/// # Safety
/// As for [`super::mac::Mac`].
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
pub(super) unsafe fn peak<K: super::mac::Mac, const N: usize>(rounds: &u64) {
    use super::lanes::Lanes;
    let x = std::hint::black_box([0x3c01_3c02u32; 16]);
    // SAFETY: the caller's promise; the array has the bytes of a line.
    unsafe {
        let (line, x) = (K::line(x.as_ptr().cast()), K::x(x.as_ptr().cast()));
        let mut sums = [K::L::splat(0.0); N];
        for _ in 0..*rounds {
            for sum in &mut sums {
                *sum = K::mac(*sum, line, x);
            }
        }
        let mut kept = [0.0; 16];
        for sum in sums {
            K::L::store(kept.as_mut_ptr(), sum);
            std::hint::black_box(&kept);
        }
    }
}
