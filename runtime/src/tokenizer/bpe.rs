//! Byte-pair encoding of one piece: merge the pair of lowest rank, leftmost first, until none is left. What a piece is, is in `split`.

use super::table::Table;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Ends a list of symbols.
const END: usize = usize::MAX;

#[derive(Debug, Clone, Copy)]
struct Symbol {
    id: u32,
    prev: usize,
    next: usize,
    /// Merged into its left neighbour.
    gone: bool,
}

/// A merge that was possible when it was queued: rank, position of the left symbol, merged token. Rank comes first, so the heap
/// gives the lowest rank, and of these the leftmost.
type Merge = Reverse<(u32, usize, u32)>;

/// Encodes pieces; keeps its buffers between them.
#[derive(Debug)]
pub(super) struct Bpe<'a> {
    table: &'a Table<'a>,
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Merge>,
}

impl<'a> Bpe<'a> {
    pub(super) fn new(table: &'a Table<'a>) -> Bpe<'a> {
        Bpe { table, symbols: Vec::new(), queue: BinaryHeap::new() }
    }

    /// Appends the tokens of a piece. O(n log n).
    pub(super) fn encode(&mut self, piece: &[u8], out: &mut Vec<u32>) {
        if let [byte] = piece {
            out.extend(self.table.byte_token(*byte));
            return;
        }
        if self.table.ignore_merges
            && let Some(id) = self.table.find_token(piece)
        {
            out.push(id);
            return;
        }
        // Bytes without a token never occur in UTF-8: the compiler sees to it.
        let ids = piece.iter().filter_map(|&byte| self.table.byte_token(byte));
        self.symbols.clear();
        self.symbols.extend(ids.enumerate().map(|(i, id)| Symbol { id, prev: i.checked_sub(1).unwrap_or(END), next: i + 1, gone: false }));
        if let Some(last) = self.symbols.last_mut() {
            last.next = END;
        }
        self.merge_all();
        out.extend(self.symbols.iter().filter(|s| !s.gone).map(|s| s.id));
    }

    fn merge_all(&mut self) {
        self.queue.clear();
        for left in 0..self.symbols.len() {
            self.offer(left);
        }
        while let Some(Reverse((rank, left, id))) = self.queue.pop() {
            // Neighbours may have merged since this was queued.
            if self.symbols[left].gone || self.possible(left) != Some((rank, id)) {
                continue;
            }
            let right = self.symbols[left].next;
            let after = self.symbols[right].next;
            self.symbols[right].gone = true;
            self.symbols[left].id = id;
            self.symbols[left].next = after;
            if let Some(symbol) = self.symbols.get_mut(after) {
                symbol.prev = left;
            }
            self.offer(left);
            self.offer(self.symbols[left].prev);
        }
    }

    fn possible(&self, left: usize) -> Option<(u32, u32)> {
        let left = self.symbols.get(left)?;
        let right = self.symbols.get(left.next)?;
        self.table.merge(left.id, right.id)
    }

    fn offer(&mut self, left: usize) {
        if let Some((rank, id)) = self.possible(left) {
            self.queue.push(Reverse((rank, left, id)));
        }
    }
}
