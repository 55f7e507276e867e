//! Functions that are compiled once for any CPU and once for those with wider vectors: [`wide!`]. Both do the same operations on the same
//! numbers in the same order (products and sums are never contracted, lanes are part of the source), so the results are the same bits.

/// Whether to run what was compiled for wide vectors.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_wide() -> bool {
    #[cfg(test)]
    if PLAIN.get() {
        return false;
    }
    std::arch::is_x86_feature_detected!("avx2")
}

#[cfg(test)]
thread_local! {
    static PLAIN: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Does `what` on this thread without wide vectors.
#[cfg(test)]
pub(crate) fn plainly<T>(what: impl FnOnce() -> T) -> T {
    PLAIN.set(true);
    let result = what();
    PLAIN.set(false);
    result
}

/// A function that is also compiled for AVX2, which is chosen when it runs on a CPU that has it.
macro_rules! wide {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn plain($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    plain($($arg),*)
                }
                if $crate::wide::has_wide() {
                    // SAFETY: the CPU has AVX2.
                    return unsafe { avx2($($arg),*) };
                }
            }
            plain($($arg),*)
        }
    };
}
pub(crate) use wide;
