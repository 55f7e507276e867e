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
    ]) || (name == "cmpxchg16b" && std::arch::is_x86_feature_detected!("cmpxchg16b"))
}

/// Whether this CPU and operating system have a feature, by its name in Rust's `target_feature`. Unknown names: no.
#[cfg(target_arch = "aarch64")]
pub fn has_feature(name: &str) -> bool {
    detect!(is_aarch64_feature_detected, name, ["neon" "fp16" "dotprod" "i8mm" "bf16" "sve" "sve2" "lse" "fhm"])
}

/// Whether this CPU has a feature: on other architectures none is asked for beyond the base.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
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
}
