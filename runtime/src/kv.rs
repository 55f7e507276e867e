//! The paged KV cache: one pool of pages and one page table per group of layers. Which pages a sequence has and how long it is; the
//! layout inside a page is in `format`.
//!
//! Layers with full attention keep every position. Chunked layers see only their own chunk, so their group keeps a ring of one chunk per
//! sequence: position `p` lies at place `p % chunk`, and the next chunk overwrites it. So a step must not cross the edge of a chunk.

use crate::abi::{KV_GROUPS, KvGroup, PAGE_TOKENS};
use crate::artifact::meta::KvMeta;
use crate::memory::Region;
use std::io;

/// Page tables and pools of all groups, and the lengths of the sequences.
#[derive(Debug)]
pub struct KvCache {
    groups: Vec<Group>,
    /// Tokens of each slot.
    lengths: Vec<usize>,
    max_context: usize,
}

#[derive(Debug)]
struct Group {
    pool: Region,
    page_bytes: usize,
    /// Positions of a ring; 0: everything is kept.
    chunk: usize,
    /// `[slot][table_stride]`; entries beyond a sequence's pages are 0 and never read.
    tables: Vec<u32>,
    stride: usize,
    /// Pages of each slot, the first entries of its table.
    pages: Vec<usize>,
    /// For a ring: number of the chunk whose positions each slot has there.
    held: Vec<usize>,
    /// Pages that were used and given back.
    free: Vec<u32>,
    /// Pages from here on were never used: still zero, and without memory behind them.
    fresh: u32,
}

impl KvCache {
    /// A cache for `slots` sequences of up to `max_context` tokens. Memory is taken when pages are first written.
    ///
    /// # Errors
    /// The system refuses the address space.
    pub fn new(groups: &[KvMeta], slots: usize, max_context: usize) -> io::Result<KvCache> {
        let group = |meta: &KvMeta| {
            let places = if meta.chunk == 0 { max_context } else { max_context.min(meta.chunk) };
            let stride = places.div_ceil(PAGE_TOKENS);
            let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
            let page_bytes = usize::try_from(meta.page_bytes).map_err(|_| too_large())?;
            let pages = stride.checked_mul(slots).ok_or_else(too_large)?;
            Ok(Group {
                pool: Region::anonymous(pages.checked_mul(page_bytes).ok_or_else(too_large)?)?,
                page_bytes,
                chunk: meta.chunk,
                tables: vec![0; pages],
                stride,
                pages: vec![0; slots],
                held: vec![0; slots],
                free: Vec::new(),
                fresh: 0,
            })
        };
        Ok(KvCache { groups: groups.iter().map(group).collect::<io::Result<_>>()?, lengths: vec![0; slots], max_context })
    }

    /// Number of sequence slots.
    pub fn slots(&self) -> usize {
        self.lengths.len()
    }

    /// Tokens that a sequence may have.
    pub fn max_context(&self) -> usize {
        self.max_context
    }

    /// Tokens of a sequence; 0 for a slot that is not there.
    pub fn len(&self, slot: usize) -> usize {
        self.lengths.get(slot).copied().unwrap_or(0)
    }

    /// Whether a sequence has no tokens.
    pub fn is_empty(&self, slot: usize) -> bool {
        self.len(slot) == 0
    }

    /// Makes a sequence `tokens` longer and gives it pages for them. The caller has checked slot and length.
    pub(crate) fn extend(&mut self, slot: usize, tokens: usize) {
        let length = (self.lengths[slot] + tokens).min(self.max_context);
        self.lengths[slot] = length;
        for group in &mut self.groups {
            group.grow(slot, group.pages_of(length));
            group.held[slot] = length.saturating_sub(1) / group.chunk.max(1);
        }
    }

    /// The most tokens that one step may take of a sequence that will have `length` tokens before it: up to the edge of a chunk.
    pub(crate) fn until_edge(&self, length: usize) -> usize {
        let chunks = self.groups.iter().map(|g| g.chunk).filter(|c| *c > 0);
        chunks.map(|c| c - length % c).min().unwrap_or(usize::MAX)
    }

    /// Makes a sequence longer by tokens whose keys and values are a constant in every format: what is measured at a depth does not depend
    /// on the values, but on memory that is really there.
    pub(crate) fn extend_constant(&mut self, slot: usize, tokens: usize) {
        const BYTE: u8 = 0x3c;
        let before: Vec<usize> = self.groups.iter().map(|g| g.pages[slot]).collect();
        self.extend(slot, tokens);
        for (g, first) in self.groups.iter().zip(before) {
            for &page in &g.tables[slot * g.stride..][first..g.pages[slot]] {
                // SAFETY: as in `zero`.
                unsafe { g.pool.as_ptr().add(page as usize * g.page_bytes).write_bytes(BYTE, g.page_bytes) };
            }
        }
    }

    /// Forgets the tokens of a sequence from position `length` on, gives their pages back, and returns how many tokens are left. That is
    /// `length`, or less: a ring has lost the chunks before its last, so going back into one of them leaves only what lies before that chunk.
    /// A longer `length` changes nothing.
    pub fn truncate(&mut self, slot: usize, length: usize) -> usize {
        let old = self.len(slot);
        if slot >= self.lengths.len() || length >= old {
            return old;
        }
        let mut length = length;
        // With rings of several sizes, going back for one may be too far for another.
        while let Some(g) = self.groups.iter().find(|g| g.has_lost(slot, length)) {
            length -= length % g.chunk;
        }
        self.lengths[slot] = length;
        for group in &mut self.groups {
            group.shrink(slot, group.pages_of(length));
            group.held[slot] = length / group.chunk.max(1);
        }
        length
    }

    /// Byte offset, in the pool of a group, of the page that holds a position of a sequence.
    pub(crate) fn page_offset(&self, group: usize, slot: usize, position: usize) -> u64 {
        let g = &self.groups[group];
        let place = if g.chunk == 0 { position } else { position % g.chunk };
        u64::from(g.tables[slot * g.stride + place / PAGE_TOKENS]) * g.page_bytes as u64
    }

    /// First position of a sequence whose keys and values are still there in a group: that of its last chunk.
    pub(crate) fn kept_from(&self, group: usize, slot: usize) -> usize {
        self.groups.get(group).map_or(0, |g| g.chunk * g.held.get(slot).copied().unwrap_or(0))
    }

    /// Positions of a ring of a group; 0: every position has a place of its own.
    pub(crate) fn chunk(&self, group: usize) -> usize {
        self.groups.get(group).map_or(0, |g| g.chunk)
    }

    /// The page of a group that holds a position of a sequence, which has it, and the token's number in the page.
    pub(crate) fn place(&self, group: usize, slot: usize, position: usize) -> (*mut u8, usize) {
        let chunk = self.groups[group].chunk;
        let place = if chunk == 0 { position } else { position % chunk };
        (self.groups[group].pool.as_ptr().wrapping_add(self.page_offset(group, slot, position) as usize), place % PAGE_TOKENS)
    }

    /// What a step reads: pools and tables. Groups that the model does not have are empty.
    pub(crate) fn step_groups(&self) -> [KvGroup; KV_GROUPS] {
        std::array::from_fn(|i| match self.groups.get(i) {
            Some(g) => {
                KvGroup { base: g.pool.as_ptr(), page_bytes: g.page_bytes as u64, tables: g.tables.as_ptr(), table_stride: g.stride as u64 }
            }
            None => KvGroup { base: std::ptr::null_mut(), page_bytes: 0, tables: std::ptr::null(), table_stride: 0 },
        })
    }

    /// Number of groups.
    pub(crate) fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// Bytes of the pages that sequences hold.
    pub fn used_bytes(&self) -> u64 {
        self.groups.iter().map(|g| g.pages.iter().sum::<usize>() as u64 * g.page_bytes as u64).sum()
    }
}

impl Group {
    /// Pages of a sequence of that length.
    fn pages_of(&self, length: usize) -> usize {
        let places = if self.chunk == 0 { length } else { length.min(self.chunk) };
        places.div_ceil(PAGE_TOKENS)
    }

    /// Whether the keys that position `length` would see are no longer there.
    fn has_lost(&self, slot: usize, length: usize) -> bool {
        self.chunk > 0 && !length.is_multiple_of(self.chunk) && length / self.chunk != self.held[slot]
    }

    fn grow(&mut self, slot: usize, pages: usize) {
        while self.pages[slot] < pages {
            let page = match self.free.pop() {
                Some(page) => {
                    self.zero(page);
                    page
                }
                None => {
                    // There are as many pages as table entries, and every page in use has one: the pool cannot run out.
                    self.fresh += 1;
                    self.fresh - 1
                }
            };
            self.tables[slot * self.stride + self.pages[slot]] = page;
            self.pages[slot] += 1;
        }
    }

    fn shrink(&mut self, slot: usize, pages: usize) {
        while self.pages[slot] > pages {
            self.pages[slot] -= 1;
            let entry = &mut self.tables[slot * self.stride + self.pages[slot]];
            self.free.push(std::mem::take(entry));
        }
    }

    /// A page that was used before must look like a new one: a masked key has weight 0, and 0 times what was left there must be 0.
    fn zero(&mut self, page: u32) {
        debug_assert!((page as usize + 1) * self.page_bytes <= self.pool.len());
        // SAFETY: page numbers are below the number of pages of the pool, which is mapped read-write; no step runs (`&mut self`).
        unsafe { self.pool.as_ptr().add(page as usize * self.page_bytes).write_bytes(0, self.page_bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(slots: usize, context: usize) -> KvCache {
        let meta = |page_bytes| KvMeta { layers: 1, format: "f32".to_owned(), kv_heads: 1, head_dim: 16, page_bytes, chunk: 0 };
        KvCache::new(&[meta(8192), meta(16384)], slots, context).expect("cache")
    }

    /// All pages that sequences hold are different.
    fn check(kv: &KvCache) {
        for g in &kv.groups {
            let mut held: Vec<u32> = (0..g.pages.len()).flat_map(|s| g.tables[s * g.stride..][..g.pages[s]].to_vec()).collect();
            held.extend(&g.free);
            let n = held.len();
            held.sort_unstable();
            held.dedup();
            assert_eq!((held.len(), n), (n, g.fresh as usize));
        }
    }

    #[test]
    fn pages_are_taken_on_demand_and_never_shared() {
        let mut kv = cache(3, 200);
        kv.extend(0, 1);
        kv.extend(1, 64);
        kv.extend(1, 1);
        kv.extend(2, 200);
        check(&kv);
        assert_eq!((kv.len(0), kv.len(1), kv.len(2)), (1, 65, 200));
        assert_eq!(kv.used_bytes(), (1 + 2 + 4) * (8192 + 16384));
        kv.truncate(2, 64);
        kv.truncate(1, 0);
        check(&kv);
        assert_eq!(kv.used_bytes(), 2 * (8192 + 16384));
        for slot in 0..3 {
            kv.extend(slot, 200 - kv.len(slot));
        }
        check(&kv);
        assert!(kv.groups.iter().all(|g| g.fresh == 12 && g.free.is_empty()));
    }

    #[test]
    fn a_reused_page_is_zero_and_truncation_keeps_what_is_left() {
        let mut kv = cache(2, 128);
        kv.extend(0, 128);
        let at = |kv: &KvCache, slot, pos| kv.groups[1].pool.as_ptr().wrapping_add(kv.page_offset(1, slot, pos) as usize);
        // SAFETY: offsets of allocated pages.
        unsafe {
            *at(&kv, 0, 0) = 7;
            *at(&kv, 0, 64) = 8;
            kv.truncate(0, 64);
            kv.truncate(0, 100);
            assert_eq!((kv.len(0), *at(&kv, 0, 0)), (64, 7));
            kv.extend(1, 1);
            assert_eq!(*at(&kv, 1, 0), 0);
        }
    }

    fn ringed(chunk: usize, slots: usize, context: usize) -> KvCache {
        let meta = |chunk| KvMeta { layers: 1, format: "f32".to_owned(), kv_heads: 1, head_dim: 16, page_bytes: 8192, chunk };
        KvCache::new(&[meta(0), meta(chunk)], slots, context).expect("cache")
    }

    #[test]
    fn a_ring_keeps_one_chunk_and_stops_growing() {
        let mut kv = ringed(100, 2, 1000);
        kv.extend(1, 100);
        assert_eq!((kv.groups[0].pages[1], kv.groups[1].pages[1]), (2, 2));
        kv.extend(1, 900);
        assert_eq!((kv.groups[0].pages[1], kv.groups[1].pages[1]), (16, 2));
        // Positions of different chunks share places; neighbours in a chunk do not share pages.
        assert_eq!(kv.page_offset(1, 1, 7), kv.page_offset(1, 1, 907));
        assert_eq!(kv.page_offset(1, 1, 64), kv.page_offset(1, 1, 999));
        assert_ne!(kv.page_offset(1, 1, 63), kv.page_offset(1, 1, 64));
        check(&kv);
    }

    #[test]
    fn a_step_ends_at_the_edge_of_a_chunk() {
        let kv = ringed(24, 1, 100);
        assert_eq!([0, 1, 23, 24, 95].map(|n| kv.until_edge(n)), [24, 23, 1, 24, 1]);
        assert_eq!(cache(1, 100).until_edge(5), usize::MAX);
    }

    #[test]
    fn going_back_into_an_older_chunk_leaves_what_lies_before_it() {
        let mut kv = ringed(24, 1, 200);
        kv.extend(0, 70);
        assert_eq!(kv.truncate(0, 300), 70);
        assert_eq!(kv.truncate(0, 60), 60);
        assert_eq!(kv.truncate(0, 48), 48);
        assert_eq!(kv.truncate(0, 30), 24);
        assert_eq!(kv.truncate(0, 10), 0);
        kv.extend(0, 50);
        assert_eq!(kv.truncate(0, 24), 24);
        kv.extend(0, 50);
        assert_eq!((kv.truncate(0, 47), kv.len(0)), (24, 24));
        check(&kv);
    }

    #[test]
    fn a_constant_sequence_has_memory_behind_every_token() {
        let mut kv = cache(2, 200);
        kv.extend_constant(1, 130);
        for pos in [0, 64, 129] {
            // SAFETY: an offset of an allocated page.
            let byte = unsafe { *kv.groups[0].pool.as_ptr().add(kv.page_offset(0, 1, pos) as usize + 8191) };
            assert_eq!((kv.len(1), byte), (130, 0x3c));
        }
    }

    #[test]
    fn an_enormous_cache_costs_nothing_until_it_is_used() {
        let mut kv = cache(64, 10_000_000);
        kv.extend(63, 65);
        kv.truncate(63, 0);
        assert_eq!(kv.used_bytes(), 0);
    }
}
