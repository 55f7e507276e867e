//! Checks of the metadata against the sections: done once when an artifact is opened, so that a step need not check anything.

use super::error::ArtifactError;
use super::layout::{Layout, SectionKind};
use super::meta::{CacheMeta, KvMeta, Meta};
use crate::abi::{KV_GROUPS, PAGE_TOKENS};
use crate::format::KvFormat;

/// The most new tokens in one step that any artifact may ask for.
pub const MAX_STEP: usize = 1 << 20;

/// Compares metadata with the section table. Never panics; all sums are checked.
///
/// # Errors
/// [`ArtifactError::Corrupt`] with the figures, [`ArtifactError::Missing`], [`ArtifactError::NewerVersion`].
pub fn check_meta(meta: &Meta, layout: &Layout) -> Result<(), ArtifactError> {
    let bytes_of = |kind: SectionKind| layout.find(kind).map(|s| s.bytes).ok_or(ArtifactError::Missing { section: kind.name() });
    let (code, weights) = (bytes_of(SectionKind::Code)?, bytes_of(SectionKind::Weights)?);
    if meta.target.abi > crate::abi::ABI_VERSION {
        let (found, supported) = (meta.target.abi, crate::abi::ABI_VERSION);
        return Err(ArtifactError::NewerVersion { what: "abi", found, supported });
    }
    let (plan, model) = (&meta.plan, &meta.model);
    require(meta.target.abi > 0, || "abi version 0".to_owned())?;
    require(meta.entry < code, || format!("entry {} lies outside the code of {code} bytes", meta.entry))?;
    require(plan.weight_bytes == weights, || format!("{} weight bytes planned, {weights} there", plan.weight_bytes))?;
    for (what, n, most) in [
        ("vocab", model.vocab, u32::MAX as usize),
        ("max_context", model.max_context, u32::MAX as usize),
        ("max_step", plan.max_step, MAX_STEP),
        ("max_rows", plan.max_rows, MAX_STEP),
        ("max_batch", plan.max_batch, MAX_STEP),
    ] {
        require((1..=most).contains(&n), || format!("{what} is {n}, possible are 1 to {most}"))?;
    }
    check_arena(meta)?;
    require(plan.kv.len() <= KV_GROUPS, || format!("{} KV groups, at most {KV_GROUPS} are possible", plan.kv.len()))?;
    for kv in &plan.kv {
        check_kv(kv, model.max_context, plan.max_batch)?;
    }
    let page = plan.kv.iter().map(|k| k.page_bytes).max().unwrap_or(0);
    for (i, call) in meta.schedule.iter().enumerate() {
        require(call.weights <= weights, || format!("call {i} has its weights at {}, of {weights}", call.weights))?;
        require(call.kv <= page, || format!("call {i} has its KV at {} in a page of {page}", call.kv))?;
    }
    let calls = meta.schedule.len();
    require(plan.caches.is_empty() || plan.caches.len() == calls, || format!("caches of {} layers, of {calls}", plan.caches.len()))?;
    for (layer, cache) in plan.caches.iter().enumerate() {
        let group = plan.kv.get(cache.group).ok_or_else(|| corrupt(format!("layer {layer} has its cache in group {}", cache.group)))?;
        check_cache(cache, group).map_err(|detail| corrupt(format!("the cache of layer {layer} {detail}")))?;
    }
    let generation = &meta.generation;
    for id in generation.eos.iter().chain(&generation.bos) {
        require((*id as usize) < model.vocab, || format!("token {id} in a vocabulary of {}", model.vocab))?;
    }
    Ok(())
}

fn check_arena(meta: &Meta) -> Result<(), ArtifactError> {
    let plan = &meta.plan;
    let arena = plan.arena_bytes;
    require(arena <= 1 << 46, || format!("an arena of {arena} bytes"))?;
    for b in &plan.buffers {
        let fits = b.offset.checked_add(b.bytes).is_some_and(|end| end <= arena);
        require(fits, || format!("buffer `{}`, {} bytes at {}, leaves the arena of {arena}", b.name, b.bytes, b.offset))?;
    }
    let row = (meta.model.vocab as u64).checked_mul(4);
    let end = (plan.max_rows as u64 - 1)
        .checked_mul(plan.logits_stride)
        .and_then(|n| n.checked_add(plan.logits_offset))
        .and_then(|n| n.checked_add(row?));
    require(end.is_some_and(|e| e <= arena), || {
        format!("{} logit rows at {} leave the arena of {arena}", plan.max_rows, plan.logits_offset)
    })?;
    require(row.is_some_and(|r| plan.logits_stride >= r), || format!("logit rows of {} bytes overlap", plan.logits_stride))?;
    let aligned = plan.logits_offset.is_multiple_of(4) && plan.logits_stride.is_multiple_of(4);
    require(aligned, || format!("logits at {} with stride {} are not aligned", plan.logits_offset, plan.logits_stride))
}

fn check_kv(kv: &KvMeta, max_context: usize, max_batch: usize) -> Result<(), ArtifactError> {
    let format = KvFormat::from_name(&kv.format).ok_or_else(|| corrupt(format!("unknown KV format `{}`", kv.format)))?;
    let token = kv.head_dim.checked_mul(format.bytes()).and_then(|n| n.checked_add(format.scale_bytes()));
    let used = [Some(2), Some(kv.kv_heads), Some(PAGE_TOKENS), token]
        .into_iter()
        .try_fold(kv.layers as u64, |n, factor| n.checked_mul(factor? as u64))
        .filter(|n| *n > 0 && *n <= kv.page_bytes && kv.page_bytes.is_multiple_of(64));
    require(used.is_some(), || {
        format!("KV pages of {} bytes for {} layers of {} heads of {}", kv.page_bytes, kv.layers, kv.kv_heads, kv.head_dim)
    })?;
    require(kv.head_dim.is_multiple_of(16), || format!("KV head size {} is not padded", kv.head_dim))?;
    let pages = (max_context.div_ceil(PAGE_TOKENS) as u64).checked_mul(max_batch as u64).filter(|n| *n <= u64::from(u32::MAX));
    let pool = pages.and_then(|n| n.checked_mul(kv.page_bytes)).filter(|n| *n <= 1 << 46);
    require(pool.is_some(), || format!("a KV cache for {max_batch} sequences of {max_context} tokens does not fit any machine"))
}

/// The group has been checked.
fn check_cache(cache: &CacheMeta, group: &KvMeta) -> Result<(), String> {
    let format = KvFormat::from_name(&group.format).ok_or("has no format")?;
    let bytes = format.layer_bytes(group.kv_heads, group.head_dim) as u64;
    let end = cache.offset.checked_add(bytes).filter(|end| *end <= group.page_bytes);
    if end.is_none() || !cache.offset.is_multiple_of(64) {
        return Err(format!("has {bytes} bytes at {} of a page of {}", cache.offset, group.page_bytes));
    }
    if !(1..=group.head_dim).contains(&cache.head_dim) || cache.paired && !cache.head_dim.is_multiple_of(2) {
        return Err(format!("has heads of {} in {}", cache.head_dim, group.head_dim));
    }
    Ok(())
}

fn require(holds: bool, detail: impl FnOnce() -> String) -> Result<(), ArtifactError> {
    if holds { Ok(()) } else { Err(corrupt(detail())) }
}

fn corrupt(detail: String) -> ArtifactError {
    ArtifactError::Corrupt { section: "meta".to_owned(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_outside_its_page_is_refused() {
        // Two layers of two heads of 16: 2 * 2 * 64 * 16 * 4 bytes each.
        let group = KvMeta { layers: 2, format: "f32".to_owned(), kv_heads: 2, head_dim: 16, page_bytes: 32768, chunk: 0 };
        let cache = |offset, head_dim, paired| check_cache(&CacheMeta { group: 0, offset, head_dim, paired }, &group).is_ok();
        assert!(cache(0, 16, true) && cache(16384, 13, false));
        assert!(!cache(16384 + 64, 16, true) && !cache(8, 16, true) && !cache(u64::MAX - 63, 16, true));
        assert!(!cache(0, 17, false) && !cache(0, 0, false) && !cache(0, 13, true));
    }
}
