//! What this machine is: architecture and CPU features, asked once when an artifact is opened. Choosing a target is the compiler's.

use super::error::ArtifactError;
use super::meta::TargetMeta;

/// This machine's architecture, as artifacts name it.
pub const ARCH: &str = std::env::consts::ARCH;

/// Refuses an artifact that this CPU cannot run.
///
/// # Errors
/// [`ArtifactError::WrongTarget`] with the features that are missing.
pub fn check_target(target: &TargetMeta) -> Result<(), ArtifactError> {
    let wrong = |missing| ArtifactError::WrongTarget { machine: ARCH.to_owned(), artifact: target.arch.clone(), missing };
    if target.arch != ARCH {
        return Err(wrong(Vec::new()));
    }
    let missing: Vec<String> = target.features.iter().filter(|f| !has_feature(f)).cloned().collect();
    if missing.is_empty() { Ok(()) } else { Err(wrong(missing)) }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! detect {
    ($is:ident, $asked:expr, [$($name:tt)*]) => {
        match $asked {
            $($name => std::arch::$is!($name),)*
            _ => false,
        }
    };
}

/// Whether this CPU and operating system have a feature, by its name in Rust's `target_feature`. Unknown names: no.
#[cfg(target_arch = "x86_64")]
pub fn has_feature(name: &str) -> bool {
    detect!(is_x86_feature_detected, name, [
        "sse" "sse2" "sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "avx" "avx2" "fma" "f16c" "bmi1" "bmi2" "lzcnt" "movbe" "gfni" "vaes"
        "avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl" "avx512ifma" "avx512vbmi" "avx512vbmi2" "avx512vnni" "avx512bitalg"
        "avx512vpopcntdq" "avx512bf16" "avx512fp16" "avxvnni"
    ]) || match name {
        "cmpxchg16b" => std::arch::is_x86_feature_detected!("cmpxchg16b"),
        // Stable Rust cannot ask for these.
        _ => crate::kernels::amx::has_feature(name),
    }
}

/// Whether this CPU and operating system have a feature, by its name in Rust's `target_feature`. Unknown names: no.
#[cfg(target_arch = "aarch64")]
pub fn has_feature(name: &str) -> bool {
    detect!(is_aarch64_feature_detected, name, ["neon" "fp16" "dotprod" "i8mm" "bf16" "sve" "sve2" "lse" "fhm"])
}

/// Whether this CPU and operating system have a feature, by its name in Rust's `target_feature`. Stable Rust cannot ask here, but the
/// kernel tells every program of the single-letter extensions (`AT_HWCAP`, one bit per letter). Longer and unknown names: no.
#[cfg(target_arch = "riscv64")]
pub fn has_feature(name: &str) -> bool {
    static LETTERS: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let letters = *LETTERS.get_or_init(|| hwcap(&std::fs::read("/proc/self/auxv").unwrap_or_default()));
    match name.as_bytes() {
        [letter @ b'a'..=b'z'] => letters >> (letter - b'a') & 1 == 1,
        _ => false,
    }
}

/// The value of `AT_HWCAP` (16) in an auxiliary vector: pairs of native 64-bit words, tag and value. 0 if it is not there.
#[cfg(any(target_arch = "riscv64", test))]
fn hwcap(auxv: &[u8]) -> u64 {
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
    auxv.chunks_exact(16).find(|pair| word(&pair[..8]) == 16).map_or(0, |pair| word(&pair[8..]))
}

/// Whether this CPU has a feature: nothing is known of other architectures.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
pub fn has_feature(_name: &str) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(arch: &str, features: &[&str]) -> TargetMeta {
        TargetMeta { arch: arch.to_owned(), features: features.iter().map(|f| (*f).to_owned()).collect(), abi: 1 }
    }

    #[test]
    fn another_architecture_and_missing_features_are_named() {
        let error = check_target(&target("pdp11", &["avx2"])).map_err(|e| e.to_string());
        assert_eq!(error, Err(format!("the artifact was compiled for pdp11, this machine is {ARCH}")));
        let error = check_target(&target(ARCH, &["warp9"])).map_err(|e| e.to_string());
        assert_eq!(error, Err("the artifact needs CPU features that this machine lacks: warp9".to_owned()));
        assert!(check_target(&target(ARCH, &[])).is_ok());
    }
    #[test]
    fn the_capability_word_is_found_in_the_auxiliary_vector() {
        let words = |w: &[u64]| w.iter().flat_map(|w| w.to_ne_bytes()).collect::<Vec<u8>>();
        assert_eq!(hwcap(&words(&[6, 4096, 16, 0b1001, 0, 0])), 0b1001);
        assert_eq!(hwcap(&words(&[6, 16, 0, 0])), 0);
        assert_eq!(hwcap(&[1, 2, 3]), 0);
    }

    /// The table of names above is complete: what the build itself takes for granted is found.
    #[test]
    fn features_that_this_program_was_built_with_are_here() {
        let base: &[&str] = match ARCH {
            "x86_64" => &["sse", "sse2"],
            "aarch64" => &["neon"],
            "riscv64" => &["m", "a", "f", "d", "c"],
            _ => &[],
        };
        for feature in base {
            assert!(has_feature(feature), "{feature}");
        }
    }
}
