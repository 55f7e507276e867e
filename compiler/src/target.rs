//! Targets: an architecture, the CPU features that code and kernels may use, and the roofline for the cost model.
//! Which kernels a target can use is in `codegen/kernels.rs`, how Cranelift is told about it in `codegen/isa.rs`.

use llamac_passes::cost::Machine;
use llamac_runtime::artifact::target::has_feature;
use std::collections::BTreeSet;
use std::fmt;

/// An instruction set architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    /// 64-bit x86, level v2 (SSE4.2) at least.
    X86_64,
    /// 64-bit ARM with NEON.
    Aarch64,
    /// 64-bit RISC-V with G, C and V.
    Riscv64,
}

impl Arch {
    /// Every architecture.
    pub const ALL: &'static [Arch] = &[Arch::X86_64, Arch::Aarch64, Arch::Riscv64];

    /// Its name in targets and artifacts.
    pub const fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64",
            Arch::Aarch64 => "aarch64",
            Arch::Riscv64 => "riscv64",
        }
    }
    /// The architecture that this program runs on, if it is one of ours.
    pub fn host() -> Option<Arch> {
        Arch::ALL.iter().copied().find(|a| a.name() == std::env::consts::ARCH)
    }
    /// Features that can be asked for, by the names of Rust's `target_feature`.
    pub const fn features(self) -> &'static [&'static str] {
        match self {
            Arch::X86_64 => X86_FEATURES,
            Arch::Aarch64 => &["neon", "lse", "dotprod", "i8mm", "bf16", "fp16", "sve", "sve2"],
            Arch::Riscv64 => &["m", "a", "f", "d", "c", "v", "zba", "zbb", "zbs", "zfh", "zvfh"],
        }
    }
    /// Features without which no code is made for it.
    pub const fn required(self) -> &'static [&'static str] {
        match self {
            Arch::X86_64 => V2,
            Arch::Aarch64 => &["neon"],
            Arch::Riscv64 => &["m", "a", "f", "d", "c", "v"],
        }
    }
}

const X86_FEATURES: &[&str] = &[
    "sse3",
    "ssse3",
    "sse4.1",
    "sse4.2",
    "popcnt",
    "cmpxchg16b",
    "avx",
    "avx2",
    "bmi1",
    "bmi2",
    "f16c",
    "fma",
    "lzcnt",
    "movbe",
    "avxvnni",
    "avx512f",
    "avx512bw",
    "avx512cd",
    "avx512dq",
    "avx512vl",
    "avx512vnni",
    "avx512bf16",
    "avx512vbmi",
    "avx512fp16",
    "gfni",
    "amx-tile",
    "amx-int8",
    "amx-bf16",
];
const V2: &[&str] = &["sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cmpxchg16b"];
const V3: &[&str] = &["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe"];
const V4: &[&str] = &["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"];

/// Names that stand for a set of features: name, architecture, parts.
const NAMED: &[(&str, Arch, &[&[&str]])] = &[
    ("x86_64", Arch::X86_64, &[V2]),
    ("x86_64-v2", Arch::X86_64, &[V2]),
    ("x86_64-v3", Arch::X86_64, &[V2, V3]),
    ("x86_64-v4", Arch::X86_64, &[V2, V3, V4]),
    ("aarch64", Arch::Aarch64, &[&["neon"]]),
    ("riscv64", Arch::Riscv64, &[&["m", "a", "f", "d", "c", "v"]]),
];

/// What an artifact is compiled for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// As the user wrote it.
    pub name: String,
    /// Architecture.
    pub arch: Arch,
    /// Features that code and kernels may use, by the names of Rust's `target_feature`.
    pub features: BTreeSet<String>,
}

/// Why a target string was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetError {
    /// No target of that name.
    Unknown(String),
    /// The architecture has no such feature.
    Feature {
        /// What was written.
        feature: String,
        /// Of which architecture.
        arch: Arch,
    },
    /// A feature that every target of the architecture needs was taken away or is absent on this machine.
    Required {
        /// The feature.
        feature: String,
        /// Of which architecture.
        arch: Arch,
    },
    /// `native` on an architecture that we do not generate code for.
    Host(String),
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetError::Unknown(name) => {
                let names: Vec<&str> = NAMED.iter().map(|n| n.0).collect();
                write!(f, "no target is called `{name}`; there are native, {}, each with +feature or -feature behind it", names.join(", "))
            }
            TargetError::Feature { feature, arch } => {
                write!(f, "{} has no feature `{feature}`; it has {}", arch.name(), arch.features().join(", "))
            }
            TargetError::Required { feature, arch } => write!(f, "code for {} needs `{feature}`", arch.name()),
            TargetError::Host(arch) => write!(f, "no code can be made for this machine's architecture, {arch}"),
        }
    }
}

impl std::error::Error for TargetError {}

impl Target {
    /// Reads `native`, `x86_64-v3`, `aarch64` ..., each with `+feature` or `-feature` behind it, separated by commas or not:
    /// `x86_64-v4+avx512bf16,+avx512vnni`.
    pub fn parse(text: &str) -> Result<Target, TargetError> {
        // A minus inside a name (`x86_64-v3`) is not a separator: the longest name that fits wins.
        let named = NAMED.iter().map(|n| n.0).chain(["native"]).filter(|n| text.starts_with(n)).max_by_key(|n| n.len());
        let Some(base) = named else { return Err(TargetError::Unknown(text.to_owned())) };
        let mut target = if base == "native" { Target::native()? } else { Target::named(base) };
        target.name = text.to_owned();
        let mut rest = &text[base.len()..];
        while !rest.is_empty() {
            let rest_trimmed = rest.trim_start_matches([',', ' ']);
            let (sign, tail) = match rest_trimmed.split_at_checked(1) {
                Some((sign @ ("+" | "-"), tail)) => (sign, tail),
                _ => return Err(TargetError::Unknown(text.to_owned())),
            };
            // A minus inside a feature (`amx-int8`) is not a separator either.
            let ends = |rest: &str| rest.is_empty() || rest.starts_with(['+', '-', ',', ' ']);
            let known = target.arch.features().iter().filter(|f| tail.strip_prefix(**f).is_some_and(ends)).max_by_key(|f| f.len());
            let Some(&feature) = known else {
                let end = tail.find(['+', '-', ',', ' ']).unwrap_or(tail.len());
                return Err(TargetError::Feature { feature: tail[..end].to_owned(), arch: target.arch });
            };
            let end = feature.len();
            if sign == "+" {
                target.features.insert(feature.to_owned());
            } else {
                target.features.remove(feature);
            }
            rest = &tail[end..];
        }
        target.checked()
    }

    /// This machine: every feature of our list that it has.
    pub fn native() -> Result<Target, TargetError> {
        let arch = Arch::host().ok_or_else(|| TargetError::Host(std::env::consts::ARCH.to_owned()))?;
        let features = arch.features().iter().filter(|f| has_feature(f)).map(|f| (*f).to_owned()).collect();
        Target { name: "native".to_owned(), arch, features }.checked()
    }

    /// Every target with a name, without features added: for `llamac targets`.
    pub fn all() -> Vec<Target> {
        NAMED.iter().filter(|n| n.0 != "x86_64").map(|n| Target::named(n.0)).collect()
    }

    fn named(name: &str) -> Target {
        let (_, arch, parts) = NAMED[NAMED.iter().position(|n| n.0 == name).unwrap_or(0)];
        Target { name: name.to_owned(), arch, features: parts.iter().flat_map(|p| p.iter()).map(|f| (*f).to_owned()).collect() }
    }

    fn checked(self) -> Result<Target, TargetError> {
        match self.arch.required().iter().find(|f| !self.has(f)) {
            Some(f) => Err(TargetError::Required { feature: (*f).to_owned(), arch: self.arch }),
            None => Ok(self),
        }
    }

    /// Whether code may use the feature.
    pub fn has(&self, feature: &str) -> bool {
        self.features.contains(feature)
    }

    /// Features that this machine lacks; everything if it is of another architecture.
    pub fn missing_here(&self) -> Vec<String> {
        let same = Arch::host() == Some(self.arch);
        self.features.iter().filter(|f| !same || !has_feature(f)).cloned().collect()
    }

    /// Figures for the cost model.
    pub fn machine(&self) -> Machine {
        let (f32_macs, bf16_macs) = match self.arch {
            Arch::X86_64 if self.has("avx512bf16") => (117.0, 234.0),
            Arch::X86_64 if self.has("avx2") && self.has("fma") => (110.0, 55.0),
            Arch::X86_64 => (28.0, 20.0),
            Arch::Aarch64 => (60.0, if self.has("bf16") { 120.0 } else { 45.0 }),
            Arch::Riscv64 => (16.0, 10.0),
        };
        let i8_macs = match self.arch {
            Arch::X86_64 if self.has("amx-int8") => 800.0,
            Arch::X86_64 if self.has("avx512vnni") => 468.0,
            Arch::X86_64 if self.has("avxvnni") => 230.0,
            Arch::X86_64 if self.has("avx2") && self.has("fma") => 150.0,
            _ => 20.0,
        };
        let macs = Machine { f32_gmacs: f32_macs, bf16_gmacs: bf16_macs, i8_gmacs: i8_macs, ..Machine::default() };
        Machine { threads: 2, read_gbs: 57.0, cache_gbs: 150.0, barrier_ns: 70.0, ..macs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_contain_each_other() {
        let level = |n| Target::parse(n).unwrap().features;
        assert!(level("x86_64-v2").is_subset(&level("x86_64-v3")));
        assert!(level("x86_64-v3").is_subset(&level("x86_64-v4")));
        assert_eq!(level("x86_64"), level("x86_64-v2"));
    }

    #[test]
    fn features_are_added_and_taken_away() {
        let t = Target::parse("x86_64-v4+avx512bf16,+avx512vnni,-fma").unwrap();
        assert!(t.has("avx512bf16") && t.has("avx512vnni") && t.has("avx512f") && !t.has("fma"));
        assert_eq!(t.name, "x86_64-v4+avx512bf16,+avx512vnni,-fma");
        let t = Target::parse("x86_64-v4+amx-tile+amx-int8-amx-tile").unwrap();
        assert!(t.has("amx-int8") && !t.has("amx-tile"));
    }

    #[test]
    fn unknown_words_are_named() {
        assert!(matches!(Target::parse("pdp11"), Err(TargetError::Unknown(_))));
        assert!(matches!(Target::parse("x86_64-v5"), Err(TargetError::Unknown(_) | TargetError::Feature { .. })));
        let error = Target::parse("aarch64+avx2").unwrap_err();
        assert_eq!(error.to_string(), "aarch64 has no feature `avx2`; it has neon, lse, dotprod, i8mm, bf16, fp16, sve, sve2");
        assert!(matches!(Target::parse("x86_64-v3-sse4.1"), Err(TargetError::Required { .. })));
    }

    #[test]
    fn native_is_what_this_machine_has() {
        let t = Target::native().unwrap();
        assert_eq!(Some(t.arch), Arch::host());
        assert!(t.missing_here().is_empty());
    }
}
