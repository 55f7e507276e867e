//! Keys and values of a sequence as numbers, in and out of the engine: as the model has them, whatever their format, order and place in the
//! pages of the cache.

use super::{Engine, EngineError};
use crate::abi::KvWriteArgs;
use crate::artifact::meta::CacheMeta;
use crate::format::KvFormat;
use crate::kernels::resolve;
use half::bf16;
use std::ops::Range;

/// Keys and values of consecutive positions of one layer, `f32[kv heads, positions, head_dim]` each: keys after their norm and rotation, as they are
/// multiplied with queries.
#[derive(Debug, Clone, Copy)]
pub struct KvRows<'a> {
    /// Keys.
    pub key: &'a [f32],
    /// Values.
    pub value: &'a [f32],
}

/// What a layer keeps of each token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvLayer {
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Size of a head, without padding.
    pub head_dim: usize,
    /// Positions of an attention chunk: of older chunks nothing is kept. 0: everything is kept.
    pub chunk: usize,
    /// Format in the cache: reading gives what is left after rounding to it.
    pub format: KvFormat,
}

/// A layer's cache: what the metadata says about it.
struct Cache {
    meta: CacheMeta,
    format: KvFormat,
    heads: usize,
    /// Size of a head with padding.
    padded: usize,
}

impl Cache {
    /// Column in the page of element `i` of a key of the model.
    fn key_column(&self, i: usize) -> usize {
        let half = self.meta.head_dim / 2;
        match (self.meta.paired, i < half) {
            (false, _) => i,
            (true, true) => 2 * i,
            (true, false) => 2 * (i - half) + 1,
        }
    }

    /// Byte offset of a head's K, and of its V, behind the start of the layer.
    fn heads_at(&self, head: usize) -> [usize; 2] {
        let bytes = self.format.head_bytes(self.padded);
        [head * bytes, (self.heads + head) * bytes]
    }
}

impl Engine {
    /// Shape and format of a layer's keys and values.
    ///
    /// # Errors
    /// [`EngineError::BadLayer`], or [`EngineError::NoCaches`] for an artifact that is too old to say.
    pub fn kv_layer(&self, layer: usize) -> Result<KvLayer, EngineError> {
        let cache = self.cache_of(layer)?;
        let (format, chunk) = (cache.format, self.kv.chunk(cache.meta.group));
        Ok(KvLayer { kv_heads: cache.heads, head_dim: cache.meta.head_dim, chunk, format })
    }

    /// Positions of a sequence whose keys and values a layer still has: all, or those of the last attention chunk.
    ///
    /// # Errors
    /// As [`Engine::kv_layer`], or [`EngineError::BadSlot`].
    pub fn kv_kept(&self, slot: usize, layer: usize) -> Result<Range<usize>, EngineError> {
        self.known_slot(slot)?;
        let length = self.kv.len(slot);
        Ok(self.kv.kept_from(self.cache_of(layer)?.meta.group, slot).min(length)..length)
    }

    /// Reads keys and values of a layer at some positions of a sequence, `f32[kv heads, positions, head_dim]` each. What a bf16 or int8 cache has
    /// rounded stays rounded.
    ///
    /// # Errors
    /// [`EngineError::NotCached`] for positions that [`Engine::kv_kept`] does not have, [`EngineError::BadRows`] for slices of another length;
    /// as [`Engine::kv_kept`].
    pub fn read_kv(
        &self,
        slot: usize,
        layer: usize,
        positions: Range<usize>,
        key: &mut [f32],
        value: &mut [f32],
    ) -> Result<(), EngineError> {
        let (cache, kept) = (self.cache_of(layer)?, self.kv_kept(slot, layer)?);
        if positions.start < kept.start || positions.end > kept.end || positions.end < positions.start {
            let (asked, kept) = ((positions.start, positions.end), (kept.start, kept.end));
            return Err(EngineError::NotCached { slot, layer, asked, kept });
        }
        let (tokens, d) = (positions.len(), cache.meta.head_dim);
        check_rows(&cache, layer, tokens, [key.len(), value.len()])?;
        for (at, position) in positions.enumerate() {
            let (page, token) = self.kv.place(cache.meta.group, slot, position);
            for head in 0..cache.heads {
                let [k, v] = cache.heads_at(head).map(|head| page.wrapping_add(cache.meta.offset as usize + head));
                let rows = (head * tokens + at) * d..(head * tokens + at + 1) * d;
                let (format, padded) = (cache.format, cache.padded);
                let columns = key[rows.clone()].iter_mut().zip(&mut value[rows]).enumerate();
                // SAFETY: the sequence has a page for the position (checked above); the layer's part of it, and with it each element of the
                // padded head, lies inside (checked when the artifact was opened).
                unsafe {
                    for (i, (key, value)) in columns {
                        *key = load(k, format, padded, token, format.k_offset(padded, token, cache.key_column(i)));
                        *value = load(v, format, padded, token, format.v_offset(padded, token, i));
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes a sequence `tokens` longer whose keys and values are given instead of computed, for every layer in order. They are rounded to the
    /// format of the cache; a layer with attention chunks takes what its cache can hold, the positions of the last chunk, and leaves the rest.
    ///
    /// What [`Engine::read_kv`] gave goes back as it was, and later steps compute the same bits as if these tokens had been computed here. Only an
    /// int8 cache may round once more: it keeps codes and a scale, and the scale is taken anew.
    ///
    /// # Errors
    /// [`EngineError::BadRows`], [`EngineError::ContextFull`], [`EngineError::BadLayer`] unless there are as many `layers` as the model has; as
    /// [`Engine::kv_kept`]. The sequence is then as before.
    pub fn load_kv(&mut self, slot: usize, tokens: usize, layers: &[KvRows<'_>]) -> Result<(), EngineError> {
        self.known_slot(slot)?;
        let (max, length) = (self.kv.max_context(), self.kv.len(slot));
        if tokens > max - length {
            return Err(EngineError::ContextFull { slot, length, new: tokens, max });
        }
        let all = self.artifact().meta().schedule.len();
        if layers.len() != all {
            return Err(EngineError::BadLayer { layer: layers.len(), layers: all });
        }
        let caches = (0..all).map(|layer| self.cache_of(layer)).collect::<Result<Vec<_>, _>>()?;
        for (layer, (cache, rows)) in caches.iter().zip(layers).enumerate() {
            check_rows(cache, layer, tokens, [rows.key.len(), rows.value.len()])?;
        }
        self.kv.extend(slot, tokens);
        for (cache, rows) in caches.iter().zip(layers) {
            let first = self.kv.kept_from(cache.meta.group, slot).saturating_sub(length);
            for at in first.min(tokens)..tokens {
                self.load_row(slot, length + at, cache, *rows, tokens, at);
            }
        }
        Ok(())
    }

    /// Writes position `position` of a sequence, row `at` of `tokens` rows.
    fn load_row(&mut self, slot: usize, position: usize, cache: &Cache, rows: KvRows<'_>, tokens: usize, at: usize) {
        let (page, token) = self.kv.place(cache.meta.group, slot, position);
        let (base, d, padded) = (page.wrapping_add(cache.meta.offset as usize), cache.meta.head_dim, cache.padded);
        // As a step has them: heads one after the other, with their padding.
        let mut row = [vec![0.0f32; cache.heads * padded], vec![0.0; cache.heads * padded]];
        for head in 0..cache.heads {
            for i in 0..d {
                let from = (head * tokens + at) * d + i;
                row[0][head * padded + cache.key_column(i)] = rows.key[from];
                row[1][head * padded + i] = rows.value[from];
            }
        }
        if cache.format == KvFormat::I8
            && let Ok(kernel) = resolve("kv_write_i8_generic")
        {
            let stride = (cache.heads * padded * 4) as u64;
            let args = KvWriteArgs {
                k: row[0].as_ptr(),
                k_stride: stride,
                v: row[1].as_ptr(),
                v_stride: stride,
                m: 1,
                base,
                pages: &0,
                pos: &(token as u32),
                chunk: 0,
                heads: cache.heads as u64,
                head_dim: padded as u64,
            };
            // SAFETY: one row of `heads * padded` elements for K and for V, a page that has them for `token` (as below).
            unsafe { kernel(std::ptr::from_ref(&args).cast()) };
            return;
        }
        for head in 0..cache.heads {
            let [k, v] = cache.heads_at(head).map(|head| base.wrapping_add(head));
            for i in 0..padded {
                let [key, value] = [0, 1].map(|n| row[n][head * padded + i]);
                let offsets = [cache.format.k_offset(padded, token, i), cache.format.v_offset(padded, token, i)];
                // SAFETY: the sequence was given a page for the position; the layer's part of it, and with it each element of the padded head,
                // lies inside (checked when the artifact was opened). No step runs (`&mut self`).
                unsafe {
                    store(k.add(offsets[0]), cache.format, key);
                    store(v.add(offsets[1]), cache.format, value);
                }
            }
        }
    }

    fn known_slot(&self, slot: usize) -> Result<(), EngineError> {
        let slots = self.kv.slots();
        if slot < slots { Ok(()) } else { Err(EngineError::BadSlot { slot, slots }) }
    }

    fn cache_of(&self, layer: usize) -> Result<Cache, EngineError> {
        let meta = self.artifact().meta();
        let layers = meta.schedule.len();
        if layer >= layers {
            return Err(EngineError::BadLayer { layer, layers });
        }
        let cache = meta.plan.caches.get(layer).ok_or(EngineError::NoCaches)?;
        let group = meta.plan.kv.get(cache.group).ok_or(EngineError::NoCaches)?;
        let format = KvFormat::from_name(&group.format).ok_or(EngineError::NoCaches)?;
        Ok(Cache { meta: cache.clone(), format, heads: group.kv_heads, padded: group.head_dim })
    }
}

fn check_rows(cache: &Cache, layer: usize, tokens: usize, found: [usize; 2]) -> Result<(), EngineError> {
    let expected = cache.heads * tokens * cache.meta.head_dim;
    match found.into_iter().find(|n| *n != expected) {
        Some(found) => Err(EngineError::BadRows { layer, found, expected }),
        None => Ok(()),
    }
}

/// # Safety
/// `head` is the K or V of a head in a page of that format, `offset` the place of an element of `token`.
unsafe fn load(head: *const u8, format: KvFormat, padded: usize, token: usize, offset: usize) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let at = head.add(offset);
        match format {
            KvFormat::F32 => at.cast::<f32>().read_unaligned(),
            KvFormat::Bf16 => bf16::from_bits(at.cast::<u16>().read_unaligned()).to_f32(),
            KvFormat::I8 => {
                let scale = head.add(format.scale_offset(padded, token)).cast::<f32>().read_unaligned();
                f32::from(at.cast::<i8>().read()) * scale
            }
        }
    }
}

/// # Safety
/// `at` is the place of an element of a format of floats.
unsafe fn store(at: *mut u8, format: KvFormat, x: f32) {
    // SAFETY: the caller's promise.
    unsafe {
        match format {
            KvFormat::F32 => at.cast::<f32>().write_unaligned(x),
            _ => at.cast::<u16>().write_unaligned(bf16::from_f32(x).to_bits()),
        }
    }
}
