//! Kernels: the inner loops that compiled step programs call through pointers. One table row each ([`table`]), one readable generic twin
//! each (`generic`); the rows for an instruction set are one template (`tile`, `flash`) over its vectors (`lanes`, `mac`).
//!
//! The order in which an element is summed depends on nothing but the row's format and instruction set. So a row of a batch has the
//! same bits alone and in company, and all rows of one format and instruction set agree bit for bit.

/// Functions for the table, from templates over their arguments: compiled for some features, or for any CPU.
macro_rules! kernels {
    ($features:literal: $($(#[$doc:meta])* $name:ident = $template:expr;)*) => { $(
        $(#[$doc])*
        #[target_feature(enable = $features)]
        pub(in crate::kernels) unsafe extern "C" fn $name(args: *const u8) {
            // SAFETY: the contract of the arguments; the features are enabled here and all are checked before the kernel is handed out.
            unsafe { $template(&*args.cast()) }
        }
    )* };
    ($($(#[$doc:meta])* $name:ident = $template:expr;)*) => { $(
        $(#[$doc])*
        pub(in crate::kernels) unsafe extern "C" fn $name(args: *const u8) {
            // SAFETY: the contract of the arguments.
            unsafe { $template(&*args.cast()) }
        }
    )* };
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod bench;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod dot;
mod exp;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod flash;
mod generic;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod kept;
mod kv_write;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod lanes;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod mac;
mod moe;
#[cfg(target_arch = "aarch64")]
mod neon;
mod parts;
pub(crate) mod peak;
mod quant;
mod rows;
pub mod table;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod tile;

pub use table::{KERNELS, KernelError, KernelRow, candidates, resolve};

#[cfg(test)]
mod attention_tests;
#[cfg(test)]
mod dot_tests;
#[cfg(test)]
mod kv_write_tests;
#[cfg(test)]
mod testing;
