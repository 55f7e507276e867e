//! AMX: the tile registers and the instructions on them that kernels use, as functions. Stable Rust has no intrinsics for them. What the tiles
//! hold is the kernels' affair (`quant/amx`).
//!
//! A tile has up to 16 rows of up to 64 bytes. `multiply` gives `c[i][j] += sum_k a[i][k] * b[k / 4][4 j + k % 4]`: `a` is row-major, and `b`
//! lies as the formats for whole numbers have a block of 16 weight rows. bf16 stand in pairs where bytes stand in fours.

use std::arch::asm;

/// Bytes of a row of a tile.
pub(super) const ROW: usize = 64;
/// Bytes of a full tile.
pub(super) const TILE: usize = 16 * ROW;

/// What `ldtilecfg` reads: rows and bytes of a row of each tile.
#[repr(C, align(64))]
pub(super) struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

impl Config {
    /// Tiles 0 to 3 are full, for sums; 4 and 5 have 16 rows of `k` bytes; 6 and 7 have `k / 4` full rows. `k` is at most 64.
    pub(super) const fn products(k: usize) -> Config {
        let mut config = Config { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        let mut tile = 0;
        while tile < 8 {
            config.bytes[tile] = if tile == 4 || tile == 5 { k as u16 } else { ROW as u16 };
            config.rows[tile] = if tile >= 6 { k as u8 / 4 } else { 16 };
            tile += 1;
        }
        config
    }
}

/// Sets the tiles up.
///
/// # Safety
/// AMX, which the process has asked for ([`has_feature`]), here and below; all but this needs tiles that are set up.
#[inline(always)]
pub(super) unsafe fn configure(config: &Config) {
    // SAFETY: the caller's promise.
    unsafe { asm!("ldtilecfg [{}]", in(reg) config, options(nostack, readonly)) }
}

/// Gives the tiles back, so that the system has nothing of them to save.
///
/// # Safety
/// As for [`configure`].
#[inline(always)]
pub(super) unsafe fn release() {
    // SAFETY: the caller's promise.
    unsafe { asm!("tilerelease", options(nostack, nomem)) }
}

/// Reads a tile, whose rows stand `stride` bytes apart.
///
/// # Safety
/// As for [`configure`]; the rows are readable.
#[inline(always)]
pub(super) unsafe fn load<const T: usize>(at: *const u8, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("tileloadd tmm{t}, [{at} + {stride}]", t = const T, at = in(reg) at, stride = in(reg) stride, options(nostack, readonly))
    }
}

/// Writes a tile, rows `stride` bytes apart.
///
/// # Safety
/// As for [`configure`]; the rows are writable.
#[inline(always)]
pub(super) unsafe fn store<const T: usize>(at: *mut u8, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe { asm!("tilestored [{at} + {stride}], tmm{t}", t = const T, at = in(reg) at, stride = in(reg) stride, options(nostack)) }
}

/// Makes a tile all zeros.
///
/// # Safety
/// As for [`configure`].
#[inline(always)]
pub(super) unsafe fn zero<const T: usize>() {
    // SAFETY: the caller's promise.
    unsafe { asm!("tilezero tmm{t}", t = const T, options(nostack, nomem)) }
}

/// Adds to tile `C` the products of the signed bytes of `A` and `B`.
///
/// # Safety
/// As for [`configure`].
#[inline(always)]
pub(super) unsafe fn multiply<const C: usize, const A: usize, const B: usize>() {
    // SAFETY: the caller's promise.
    unsafe { asm!("tdpbssd tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B, options(nostack, nomem)) }
}

/// Adds to the f32 of tile `C` the products of the pairs of bf16 of `A` and `B`.
///
/// # Safety
/// As for [`configure`].
#[inline(always)]
pub(super) unsafe fn multiply_bf16<const C: usize, const A: usize, const B: usize>() {
    // SAFETY: the caller's promise.
    unsafe { asm!("tdpbf16ps tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B, options(nostack, nomem)) }
}

/// Multiply-adds of a round of [`peak`], of bytes or of bf16.
pub(super) const fn peak_macs(bf16: bool) -> u64 {
    4 * 16 * 16 * (ROW as u64 / if bf16 { 2 } else { 1 }) / PEAK_ROUNDS
}

/// Rounds that full tiles are multiplied in once: it takes 16 cycles where what other loops do takes one at most.
const PEAK_ROUNDS: u64 = 16;

/// The roof: four full tiles from registers.
///
/// # Safety
/// As for [`configure`].
#[inline(always)]
pub(super) unsafe fn peak<const BF16: bool>(rounds: &u64) {
    // SAFETY: the caller's promise.
    unsafe {
        configure(&const { Config::products(ROW) });
        for _ in 0..*rounds / PEAK_ROUNDS {
            if BF16 {
                multiply_bf16::<0, 4, 6>();
                multiply_bf16::<1, 4, 6>();
                multiply_bf16::<2, 4, 6>();
                multiply_bf16::<3, 4, 6>();
            } else {
                multiply::<0, 4, 6>();
                multiply::<1, 4, 6>();
                multiply::<2, 4, 6>();
                multiply::<3, 4, 6>();
            }
        }
        release();
    }
}

/// Whether this CPU has a part of AMX, by its name in Rust's `target_feature`, and the system lets this process use it, which it is asked for
/// here, once: Linux saves the tiles of a process only when it has said that it will use them.
pub(crate) fn has_feature(name: &str) -> bool {
    // Bits of EDX in leaf 7 of CPUID.
    let bit = match name {
        "amx-bf16" => 22,
        "amx-tile" => 24,
        "amx-int8" => 25,
        _ => return false,
    };
    static ALLOWED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    std::arch::x86_64::__cpuid(0).eax >= 7 && std::arch::x86_64::__cpuid_count(7, 0).edx >> bit & 1 == 1 && *ALLOWED.get_or_init(ask)
}

#[cfg(target_os = "linux")]
fn ask() -> bool {
    /// `ARCH_REQ_XCOMP_PERM`, and the number of the tiles among the states of a CPU.
    const REQUEST: libc::c_long = 0x1023;
    const TILES: libc::c_long = 18;
    // SAFETY: the call reads its numbers and touches no memory; an older kernel refuses it.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILES) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn ask() -> bool {
    false
}
