//! Ragged batches: what a caller asks for, cut into chunks that fit the buffers, and the row sets that a compiled step reads. No
//! execution here; that is `step`.

use crate::abi::{ABI_WIDE_TILES, ATTENTION_TILE_ROWS, AttentionTile, KV_GROUPS, OLD_TILE_ROWS, ROW_SETS, RowSet, part_tokens};
use crate::artifact::meta::KvMeta;
use crate::kv::KvCache;

/// Which rows of an input get logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Want {
    /// None: the tokens only go into the cache.
    None,
    /// That of the last token.
    #[default]
    Last,
    /// All.
    All,
}

/// New tokens of one sequence, at the positions behind those that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeqInput<'a> {
    /// Sequence slot.
    pub slot: usize,
    /// At least one token.
    pub tokens: &'a [u32],
    /// Rows whose logits are wanted.
    pub logits: Want,
}

impl SeqInput<'_> {
    /// Number of rows whose logits are wanted.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted_from(0)
    }

    /// First token whose logits are wanted.
    pub(crate) fn first_wanted(&self) -> usize {
        match self.logits {
            Want::None => self.tokens.len(),
            Want::Last => self.tokens.len().saturating_sub(1),
            Want::All => 0,
        }
    }

    fn wanted_from(&self, from: usize) -> usize {
        self.tokens.len() - self.first_wanted().max(from)
    }
}

/// Consecutive tokens of one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Number of the input in the batch.
    pub(crate) input: usize,
    /// First token.
    pub(crate) from: usize,
    /// One behind the last token.
    pub(crate) to: usize,
}

/// Cuts a batch into steps of at most `max_step` tokens and `max_rows` wanted rows, in order; a sequence does not cross the edge of an
/// attention chunk within a step. As a row's result depends on its sequence alone, the cuts do not show in it.
pub(crate) fn chunks(batch: &[SeqInput<'_>], max_step: usize, max_rows: usize, kv: &KvCache) -> Vec<Vec<Piece>> {
    let mut chunks = Vec::new();
    let (mut chunk, mut tokens, mut rows) = (Vec::new(), 0, 0);
    for (i, input) in batch.iter().enumerate() {
        let (length, first_wanted) = (input.tokens.len(), input.first_wanted());
        let mut from = 0;
        while from < length {
            // Up to the first row that no longer fits.
            let edge = kv.until_edge(kv.len(input.slot) + from);
            let to = length.min(from + edge.min(max_step - tokens)).min(first_wanted.max(from) + max_rows - rows);
            if to > from {
                tokens += to - from;
                rows += to - to.min(first_wanted.max(from));
                chunk.push(Piece { input: i, from, to });
                from = to;
            }
            if from < length {
                chunks.push(std::mem::take(&mut chunk));
                (tokens, rows) = (0, 0);
            }
        }
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

/// Share of the threads' time in attention from which on they do not share keys: joining parts takes a barrier.
const BUSY_ENOUGH: f64 = 0.9;

/// The arrays behind the [`RowSet`]s of one step; reused from step to step.
#[derive(Debug)]
pub(crate) struct StepRows {
    /// Ids of row set 0.
    pub(crate) tokens: Vec<u32>,
    sets: [Rows; ROW_SETS],
    /// At most this many rows in a tile.
    tile_rows: usize,
}

#[derive(Debug, Default)]
struct Rows {
    index: Vec<u32>,
    pos: Vec<u32>,
    page: [Vec<u64>; KV_GROUPS],
    tiles: Vec<AttentionTile>,
}

impl StepRows {
    /// For code of a version of the ABI.
    pub(crate) fn new(abi: u32) -> StepRows {
        let tile_rows = if abi < ABI_WIDE_TILES { OLD_TILE_ROWS } else { ATTENTION_TILE_ROWS };
        StepRows { tokens: Vec::new(), sets: Default::default(), tile_rows }
    }

    /// Fills the rows of a chunk, and makes the sequences longer by its tokens.
    pub(crate) fn fill(&mut self, batch: &[SeqInput<'_>], chunk: &[Piece], kv: &mut KvCache) {
        self.tokens.clear();
        self.sets.iter_mut().for_each(Rows::clear);
        for piece in chunk {
            let input = &batch[piece.input];
            let start = kv.len(input.slot);
            kv.extend(input.slot, piece.to - piece.from);
            for (i, token) in (piece.from..piece.to).enumerate() {
                let row = self.tokens.len() as u32;
                self.tokens.push(input.tokens[token]);
                self.sets[0].push(row, input.slot, start + i, kv, self.tile_rows);
                if token >= input.first_wanted() {
                    self.sets[1].push(row, input.slot, start + i, kv, self.tile_rows);
                }
            }
        }
    }

    /// Number of wanted rows.
    pub(crate) fn wanted(&self) -> usize {
        self.sets[1].index.len()
    }

    /// See [`StepContext::shared_parts`](crate::abi::StepContext::shared_parts): threads share the keys of a row where its heads alone would
    /// leave some of them without work for long.
    pub(crate) fn shared_parts(&self, kv: &[KvMeta], threads: usize) -> [[u64; KV_GROUPS]; ROW_SETS] {
        let of = |rows: &Rows, group: &KvMeta| {
            let units = rows.tiles.len() * group.kv_heads;
            let busy = units as f64 / (units.next_multiple_of(threads).max(1)) as f64;
            if busy > BUSY_ENOUGH || rows.tiles.iter().any(|t| t.rows > 1) {
                return 0;
            }
            let places = rows.tiles.iter().map(|t| group.place(t.pos as usize) as u64);
            let parts = places.map(|pos| pos / part_tokens(pos) + 1).max();
            parts.filter(|n| *n > 1).unwrap_or(0)
        };
        std::array::from_fn(|set| std::array::from_fn(|group| kv.get(group).map_or(0, |kv| of(&self.sets[set], kv))))
    }

    /// Pointers for a step; valid until the next [`StepRows::fill`].
    pub(crate) fn row_sets(&self) -> [RowSet; ROW_SETS] {
        std::array::from_fn(|i| {
            let rows = &self.sets[i];
            RowSet {
                n: rows.index.len() as u64,
                index: rows.index.as_ptr(),
                pos: rows.pos.as_ptr(),
                page: std::array::from_fn(|g| rows.page[g].as_ptr()),
                tiles: rows.tiles.as_ptr(),
                n_tiles: rows.tiles.len() as u64,
            }
        })
    }
}

impl Rows {
    fn clear(&mut self) {
        self.index.clear();
        self.pos.clear();
        self.page.iter_mut().for_each(Vec::clear);
        self.tiles.clear();
    }

    fn push(&mut self, index: u32, slot: usize, position: usize, kv: &KvCache, tile_rows: usize) {
        let (row, pos) = (self.index.len() as u32, position as u32);
        self.index.push(index);
        self.pos.push(pos);
        for group in 0..kv.group_count() {
            self.page[group].push(kv.page_offset(group, slot, position));
        }
        match self.tiles.last_mut() {
            Some(t) if t.slot == slot as u32 && t.pos + t.rows == pos && (t.rows as usize) < tile_rows => t.rows += 1,
            _ => self.tiles.push(AttentionTile { row, rows: 1, slot: slot as u32, pos }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::meta::KvMeta;

    fn input(slot: usize, tokens: &[u32], logits: Want) -> SeqInput<'_> {
        SeqInput { slot, tokens, logits }
    }

    #[test]
    fn chunks_cover_every_token_once_and_fit_the_buffers() {
        let kv = KvCache::new(&[], 3, 100).expect("cache");
        let ids: Vec<u32> = (0..40).collect();
        for (max_step, max_rows) in [(1, 1), (3, 2), (8, 1), (7, 7), (100, 3), (100, 100)] {
            for wants in [[Want::None, Want::Last, Want::All], [Want::Last; 3], [Want::All; 3], [Want::None; 3]] {
                let batch = [input(0, &ids[..17], wants[0]), input(2, &ids[..1], wants[1]), input(1, &ids, wants[2])];
                let mut next = [0; 3];
                for chunk in chunks(&batch, max_step, max_rows, &kv) {
                    let tokens: usize = chunk.iter().map(|p| p.to - p.from).sum();
                    let rows: usize = chunk.iter().map(|p| p.to - p.to.min(batch[p.input].first_wanted().max(p.from))).sum();
                    assert!(tokens <= max_step && rows <= max_rows && tokens > 0, "{chunk:?}");
                    for p in &chunk {
                        assert_eq!(p.from, next[p.input]);
                        next[p.input] = p.to;
                    }
                }
                assert_eq!(next, [17, 1, 40]);
            }
        }
        assert!(chunks(&[], 1, 1, &kv).is_empty());
    }

    #[test]
    fn no_step_takes_a_sequence_over_the_edge_of_an_attention_chunk() {
        let meta = KvMeta { layers: 1, format: "f32".to_owned(), kv_heads: 1, head_dim: 16, page_bytes: 8192, chunk: 10 };
        let mut kv = KvCache::new(&[meta], 2, 100).expect("cache");
        kv.extend(1, 7);
        let ids: Vec<u32> = (0..25).collect();
        let batch = [input(1, &ids[..4], Want::Last), input(0, &ids, Want::Last)];
        let cut: Vec<Vec<(usize, usize)>> =
            chunks(&batch, 100, 100, &kv).iter().map(|c| c.iter().map(|p| (p.from, p.to)).collect()).collect();
        assert_eq!(cut, [vec![(0, 3)], vec![(3, 4), (0, 10)], vec![(10, 20)], vec![(20, 25)]]);
    }

    #[test]
    fn tiles_are_consecutive_positions_of_one_slot_in_both_row_sets() {
        let meta = KvMeta { layers: 1, format: "f32".to_owned(), kv_heads: 1, head_dim: 16, page_bytes: 8192, chunk: 0 };
        let mut kv = KvCache::new(&[meta], 4, 200).expect("cache");
        kv.extend(2, 62);
        let ids: Vec<u32> = (0..18).collect();
        let batch = [input(2, &ids, Want::All), input(0, &[7, 8], Want::Last), input(3, &[9], Want::None)];
        let mut rows = StepRows::new(ABI_WIDE_TILES);
        rows.fill(&batch, &chunks(&batch, 100, 100, &kv)[0], &mut kv);
        let tile = |row, rows, slot, pos| AttentionTile { row, rows, slot, pos };
        assert_eq!(rows.sets[0].tiles, [tile(0, 16, 2, 62), tile(16, 2, 2, 78), tile(18, 2, 0, 0), tile(20, 1, 3, 0)]);
        assert_eq!(rows.sets[1].tiles, [tile(0, 16, 2, 62), tile(16, 2, 2, 78), tile(18, 1, 0, 1)]);
        assert_eq!((&rows.sets[1].index[..18], rows.sets[1].index[18]), (&ids[..], 19));
        assert_eq!((&rows.tokens[..18], &rows.tokens[18..]), (&ids[..], &[7, 8, 9][..]));
        assert_eq!(rows.sets[0].page[0][..3], [0, 0, 8192]);
        assert_eq!(kv.len(2), 80);
    }

    #[test]
    fn threads_share_keys_where_heads_do_not_keep_them_busy() {
        let meta = |chunk| KvMeta { layers: 1, format: "f32".to_owned(), kv_heads: 2, head_dim: 16, page_bytes: 16384, chunk };
        let metas = [meta(0), meta(600)];
        let mut kv = KvCache::new(&metas, 2, 20_000).expect("cache");
        let mut parts = |length: usize, tokens: &[u32], threads| {
            kv.truncate(0, 0);
            kv.extend(0, length);
            let mut rows = StepRows::new(ABI_WIDE_TILES);
            let batch = [input(0, tokens, Want::Last)];
            rows.fill(&batch, &chunks(&batch, 100, 100, &kv)[0], &mut kv);
            rows.shared_parts(&metas, threads)
        };
        assert_eq!(parts(511, &[1], 3), [[0; 2]; 2], "one part");
        assert_eq!(parts(512, &[1], 3), [[2, 2]; 2]);
        assert_eq!(parts(700, &[1], 3), [[2, 0]; 2], "the ring begins again at 600");
        assert_eq!(parts(8191, &[1], 4), [[16, 0]; 2]);
        assert_eq!(parts(8192, &[1], 4), [[9, 0]; 2], "1024 tokens a part");
        assert_eq!(parts(8192, &[1], 2), [[0; 2]; 2], "two heads keep two threads busy");
        assert_eq!(parts(8192, &[1], 1), [[0; 2]; 2]);
        assert_eq!(parts(8192, &[1, 2], 3), [[0, 0], [9, 0]], "a tile of two rows, of which one is wanted");
    }

    #[test]
    fn code_of_before_gets_tiles_of_four_rows() {
        let mut kv = KvCache::new(&[], 1, 100).expect("cache");
        let ids: Vec<u32> = (0..9).collect();
        let batch = [input(0, &ids, Want::None)];
        let mut rows = StepRows::new(ABI_WIDE_TILES - 1);
        rows.fill(&batch, &chunks(&batch, 100, 100, &kv)[0], &mut kv);
        assert_eq!(rows.sets[0].tiles.iter().map(|t| t.rows).collect::<Vec<_>>(), [4, 4, 1]);
    }
}
