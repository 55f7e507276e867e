//! Tests of the sampler: reference probabilities of the fixtures, and properties on large vocabularies.

use super::*;

/// The tensors of a safetensors file, as 4-byte or 8-byte words: (name, bytes).
fn tensors(file: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let (length, rest) = file.split_first_chunk::<8>().expect("length");
    let (head, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let head: BTreeMap<String, serde_json::Value> = serde_json::from_slice(head).expect("header");
    let range = |v: &serde_json::Value| {
        let at = |i: usize| v["data_offsets"][i].as_u64().expect("offset") as usize;
        data[at(0)..at(1)].to_vec()
    };
    head.iter().map(|(name, v)| (name.clone(), range(v))).collect()
}

#[test]
fn probabilities_are_those_of_the_fixtures() {
    let cases: serde_json::Value = serde_json::from_str(include_str!("../../tests/fixtures/sampling/cases.json")).expect("json");
    let tensors = tensors(include_bytes!("../../tests/fixtures/sampling/cases.safetensors"));
    let floats = |name: String| tensors[&name].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<_>>();
    let cases = cases["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 7);
    for case in cases {
        let i = &case["index"];
        let number = |key: &str, off: f32| case[key].as_f64().map_or(off, |x| x as f32);
        let sampling = Sampling {
            temperature: number("temperature", 1.0),
            top_k: case["top_k"].as_u64().unwrap_or(0) as usize,
            top_p: number("top_p", 1.0),
            min_p: number("min_p", 0.0),
            repetition_penalty: number("repetition_penalty", 1.0),
            ..Sampling::default()
        };
        let history: Vec<u32> =
            tensors[&format!("{i}.previous_ids")].as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect();
        let mut sampler = Sampler::new(&sampling);
        sampler.observe_prompt(&history);
        let found = sampler.probabilities(&floats(format!("{i}.logits")));
        let expected = floats(format!("{i}.probabilities"));
        assert_eq!(found.len(), expected.len());
        assert_eq!(found.iter().filter(|p| **p > 0.0).count() as u64, case["kept"].as_u64().expect("kept"), "case {i}");
        for (id, (f, e)) in found.iter().zip(&expected).enumerate() {
            assert!((f - e).abs() <= 2e-6 * e.max(1e-3), "case {i}, token {id}: {f}, expected {e}");
        }
    }
}

/// Logits like those of a large model: many small, few large.
fn logits(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed);
    (0..n).map(|_| (0..6).map(|_| rng.next_f64() as f32 * 4.0 - 2.0).sum::<f32>() * 1.3).collect()
}

#[test]
fn selection_on_a_large_vocabulary_equals_sorting() {
    let x = logits(128_256, 1);
    let mut sorted = x.clone();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    for k in [1, 2, 40, 1000, 8015, 8017, 100_000] {
        assert_eq!(kth_largest(&x, k), sorted[k - 1], "k = {k}");
    }
    assert_eq!(x[argmax(&x) as usize], sorted[0]);
    let sampling = Sampling { temperature: 0.9, top_p: 0.9, ..Sampling::default() };
    let p = Sampler::new(&sampling).probabilities(&x);
    let total: f64 = x.iter().map(|v| f64::from((v - sorted[0]) / 0.9).exp()).sum();
    let mut sum = 0.0;
    let count = sorted.iter().take_while(|v| {
        let before = sum;
        sum += f64::from((**v - sorted[0]) / 0.9).exp() / total;
        before < 0.9
    });
    assert_eq!(p.iter().filter(|p| **p > 0.0).count(), count.count());
}

#[test]
fn greedy_takes_the_first_maximum_and_never_nan() {
    let mut sampler = Sampler::new(&Sampling::default());
    assert_eq!(sampler.choose(&[f32::NAN, 1.0, 3.0, 3.0]), 2);
    assert_eq!(sampler.choose(&[f32::NAN, f32::NEG_INFINITY]), 1);
    assert_eq!(sampler.choose(&[f32::NAN; 3]), 0);
    let mut random = Sampler::new(&Sampling { temperature: 1.0, top_k: 5, ..Sampling::default() });
    let mut x = vec![f32::NAN; 300];
    x[7] = 1.0;
    assert_eq!(random.choose(&x), 7);
}

#[test]
fn penalties_change_only_what_was_seen() {
    let sampling =
        Sampling { repetition_penalty: 2.0, frequency_penalty: 0.5, presence_penalty: 0.25, temperature: 1.0, ..Sampling::default() };
    let mut sampler = Sampler::new(&sampling);
    sampler.observe_prompt(&[0, 9]);
    sampler.accept(1);
    sampler.accept(1);
    let p = sampler.probabilities(&[2.0, -1.0, 0.0]);
    let expected = [1.0f32, -2.0 - 1.0 - 0.25, 0.0].map(f32::exp);
    let total: f32 = expected.iter().sum();
    for (p, e) in p.iter().zip(expected) {
        assert!((p - e / total).abs() < 1e-6);
    }
}

#[test]
fn draws_follow_the_probabilities_and_the_seed() {
    let sampling = Sampling { temperature: 1.0, seed: Some(3), ..Sampling::default() };
    let x = [0.0, 1.0, 2.0];
    let p = Sampler::new(&sampling).probabilities(&x);
    let draw = || {
        let mut sampler = Sampler::new(&sampling);
        (0..20_000).map(|_| sampler.choose(&x)).collect::<Vec<_>>()
    };
    let drawn = draw();
    assert_eq!(drawn, draw());
    for (id, p) in p.iter().enumerate() {
        let share = drawn.iter().filter(|d| **d == id as u32).count() as f32 / 20_000.0;
        assert!((share - p).abs() < 0.02, "token {id}: {share}, expected {p}");
    }
}

#[test]
fn the_exponential_is_exact_to_a_few_units() {
    for i in 0..87_000 {
        let x = -(i as f32) / 1000.0;
        let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
        assert!((found / expected - 1.0).abs() < 2e-7, "exp({x}) = {found}, expected {expected}");
    }
    assert_eq!((exp(0.0), exp(-90.0), exp(-1e30), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0, 0.0));
}

#[test]
fn settings_without_meaning_are_named() {
    let bad = |change: fn(&mut Sampling)| {
        let mut s = Sampling::default();
        change(&mut s);
        s.problem().map(|p| p.0)
    };
    assert_eq!(bad(|_| {}), None);
    assert_eq!(bad(|s| s.temperature = -1.0), Some("temperature"));
    assert_eq!(bad(|s| s.top_p = 0.0), Some("top-p"));
    assert_eq!(bad(|s| s.min_p = f32::NAN), Some("min-p"));
    assert_eq!(bad(|s| s.repetition_penalty = 0.0), Some("repetition-penalty"));
    assert_eq!(bad(|s| s.presence_penalty = f32::INFINITY), Some("presence-penalty"));
}
