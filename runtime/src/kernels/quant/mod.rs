//! Kernels of the int4 and int8 formats, and what turns f32 rows into int8 activations. Layouts are in [`crate::format`].
//!
//! The arithmetic of a dot, the same in every row of the table whatever its instruction set, so that all of them give the same bits.
//! Columns are taken in chunks of 256, those that share an activation scale `xs`, and these in the groups of the weight format, scale `ws`:
//! ```text
//! sum  = sum of q * code over a group            integers, exact
//! part = fma(f32(sum), ws, part)                 over the groups of a chunk in order, from 0
//! y    = fma(part, xs, y)                        over the chunks in order, from 0
//! ```
//! A `q8` row has one group in a chunk, `part = f32(sum)`, and one product with the row's scale at the end. What is integer may be summed in
//! any order; a group's sum is below 2^23, so `f32(sum)` is exact too.

#[cfg(target_arch = "x86_64")]
pub(super) mod amx;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(super) mod avxvnni;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod dot;
pub(super) mod generic;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod groups;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod ints;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon;
#[cfg(target_arch = "x86_64")]
mod panel;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) mod peak;
pub(super) mod round;

#[cfg(test)]
mod quantize_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
