//! Packing: evaluates every weight's recipe row by row, brings the rows into the layout that the kernels read, and streams them into the
//! artifact. Both cores work, memory is bounded by a few panels per thread, nothing is held. `order` maps padded rows and columns to true
//! ones, `formats` has one packer per weight format.

mod formats;
mod interleave;
mod order;
mod quant;

use crate::diag::{Diag, Result};
use crate::lower::program::WeightForm;
use crate::lower::{Program, WeightItem};
use formats::{Packer, packer};
use llamac_ir::dtype::DType;
use llamac_ir::eval::quant::Codes;
use llamac_ir::recipe::{Prepared, Source};
use llamac_runtime::abi::ROWS;
use llamac_runtime::artifact::WriteError;
use llamac_runtime::artifact::writer::SizedSection;
use llamac_runtime::format::WeightFormat;
use order::Columns;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of the pieces that are written at a time: large enough for the disk, small enough for the L2 cache to hold what is hashed.
const PIECE: usize = 1 << 18;

/// Writes every weight of a program. `progress` is told the bytes of each piece, `release` the tensors that are not needed again soon.
///
/// # Errors
/// A source cannot be read, or the artifact cannot be written; the first error of any thread.
pub(crate) fn write(
    program: &Program,
    source: &dyn Source,
    release: &dyn Fn(&str),
    section: &SizedSection<'_>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let failed: Mutex<Option<Diag>> = Mutex::new(None);
    for item in program.weight_items() {
        section.fill_to(item.offset).map_err(|e| unwritable(&e))?;
        let prepared = Prepared::new(&item.recipe, source).map_err(|e| unreadable(&item, &e))?;
        let job = Job { item: &item, prepared, section, progress };
        let pieces = job.pieces();
        let next = AtomicUsize::new(0);
        let work = || {
            let mut room = Room::default();
            loop {
                let piece = next.fetch_add(1, Ordering::Relaxed);
                if piece >= pieces || failed.lock().is_ok_and(|f| f.is_some()) {
                    return;
                }
                if let Err(error) = job.piece(piece, &mut room)
                    && let Ok(mut failed) = failed.lock()
                {
                    failed.get_or_insert(error);
                }
            }
        };
        std::thread::scope(|scope| {
            (1..threads.min(pieces)).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        if let Some(error) = failed.lock().ok().and_then(|mut f| f.take()) {
            return Err(error);
        }
        item.recipe.sources(&mut |name| release(name));
    }
    Ok(())
}

fn unreadable(item: &WeightItem, error: &str) -> Diag {
    Diag::new("weights", "a weight cannot be made from the checkpoint")
        .place(format_args!("weight `{}`", item.name))
        .found(error)
        .help("run again; if it stays, please report it with the model's config.json")
}

/// What a write error means to the user.
pub(crate) fn unwritable(error: &WriteError) -> Diag {
    let help = match error {
        WriteError::NoSpace { .. } => "free some space, or write to another disk with -o",
        WriteError::Io { .. } => "check that the folder is there and may be written to",
        WriteError::Misuse(_) => "this is a bug of llamac: please report it",
    };
    Diag::new(error.code(), error.to_string()).help(help)
}

/// One weight on its way into the section.
struct Job<'a> {
    item: &'a WeightItem,
    prepared: Prepared<'a>,
    section: &'a SizedSection<'a>,
    progress: &'a (dyn Fn(u64) + Sync),
}

/// First row and number of rows of a block whose true rows follow each other with nothing but padding behind them.
fn run(sources: &[Option<usize>; ROWS]) -> Option<(usize, usize)> {
    let first = sources[0]?;
    let count = sources.iter().zip(first..).take_while(|(row, next)| **row == Some(*next)).count();
    sources[count..].iter().all(Option::is_none).then_some((first, count))
}

/// Buffers of a thread, used again for every piece.
#[derive(Default)]
struct Room {
    /// A row as the recipe gives it.
    row: Vec<f32>,
    /// Sixteen rows in the order of the packed columns.
    panel: Vec<f32>,
    codes: Quantized,
}

/// Codes of rows of a quantized weight.
#[derive(Default)]
struct Quantized {
    /// Rows as the recipe gives them.
    rows: Vec<f32>,
    /// Of one row.
    one: Codes,
    /// Made ahead: of the gate rows and of the up rows that a merged product alternates between.
    ahead: [Ahead; 2],
    /// Which of the two was asked last.
    asked: usize,
}

/// Codes of rows `first ..`.
#[derive(Default)]
struct Ahead {
    first: usize,
    codes: Vec<Codes>,
}

/// Rows of a transposed tensor that are quantized together: two cache lines of every row of the tensor.
const AHEAD: usize = 4 * ROWS;

impl Job<'_> {
    fn block_bytes(&self) -> usize {
        match self.item.kind {
            WeightForm::Matrix { format, cols, k, .. } => format.block_bytes(cols.padded(k)),
            WeightForm::Vector { .. } => ROWS * 4,
        }
    }

    /// Blocks of sixteen rows in one piece.
    fn blocks_per_piece(&self) -> usize {
        (PIECE / self.block_bytes()).max(1)
    }

    fn blocks(&self) -> usize {
        self.item.bytes as usize / self.block_bytes()
    }

    fn pieces(&self) -> usize {
        match self.item.kind {
            WeightForm::Matrix { .. } => self.blocks().div_ceil(self.blocks_per_piece()),
            WeightForm::Vector { .. } => 1,
        }
    }

    fn piece(&self, number: usize, room: &mut Room) -> Result<()> {
        let (mut at, mut out) = (0, self.section.buffer());
        match self.item.kind {
            WeightForm::Vector { rows, n } => self.vector(&order::vector(rows, n), room, &mut out)?,
            WeightForm::Matrix { format, rows, cols, n, k, experts } => {
                let first = number * self.blocks_per_piece();
                let blocks = first..(first + self.blocks_per_piece()).min(self.blocks());
                at = first * self.block_bytes();
                out.resize(blocks.len() * self.block_bytes(), 0);
                let columns = Columns::new(cols, k);
                for (block, out) in blocks.zip(out.chunks_mut(self.block_bytes())) {
                    // Experts follow each other, in the artifact and among the recipe's rows.
                    let each = self.blocks() / experts;
                    let sources = order::block(rows, n, block % each).map(|row| row.map(|row| block / each * n + row));
                    match packer(&format) {
                        Some(pack) => self.block(&sources, &columns, &format, pack, room, out)?,
                        None => self.quantized_block(&sources, &columns, &format, room, out)?,
                    }
                }
            }
        }
        let bytes = out.len() as u64;
        self.section.write_at(self.item.offset + at as u64, out).map_err(|e| unwritable(&e))?;
        (self.progress)(bytes);
        Ok(())
    }

    fn vector(&self, order: &[Option<usize>], room: &mut Room, out: &mut Vec<u8>) -> Result<()> {
        room.row.resize(self.prepared.columns(), 0.0);
        self.prepared.row(0, &mut room.row).map_err(|e| unreadable(self.item, &e))?;
        out.clear();
        let elements = order.iter().map(|i| i.map_or(0.0, |i| room.row[i]));
        out.extend(elements.flat_map(f32::to_le_bytes));
        out.resize(self.item.bytes as usize, 0);
        Ok(())
    }

    /// Quantizes sixteen rows into a block.
    fn quantized_block(
        &self,
        sources: &[Option<usize>; ROWS],
        columns: &Columns,
        format: &WeightFormat,
        room: &mut Room,
        out: &mut [u8],
    ) -> Result<()> {
        out.fill(0);
        let bad = |e: &str| unreadable(self.item, e);
        let info = quant::quantized(format).ok_or_else(|| bad("no packer has this format"))?;
        let n = columns.plain().ok_or_else(|| bad("its columns are padded by heads, but quantized in groups"))?;
        let k = n.next_multiple_of(format.k_unit);
        let together = self.prepared.transposes() && run(sources).is_some();
        for (lane, row) in sources.iter().enumerate() {
            let codes = match *row {
                Some(row) if together => self.codes_ahead(row, &mut room.codes).map_err(|e| bad(&e))?,
                Some(row) => {
                    self.prepared.codes(row, &mut room.codes.rows, &mut room.codes.one).map_err(|e| bad(&e))?;
                    &mut room.codes.one
                }
                None => {
                    room.codes.one = Codes::default();
                    &mut room.codes.one
                }
            };
            quant::pack_row(format, info, codes, lane, k, &mut out[..format.block_bytes(k)]);
        }
        Ok(())
    }

    /// The codes of row `row`; if they are not made yet, those of some rows behind it are made too.
    fn codes_ahead<'r>(&self, row: usize, room: &'r mut Quantized) -> std::result::Result<&'r mut Codes, String> {
        let has = |a: &Ahead| (a.first..a.first + a.codes.len()).contains(&row);
        room.asked = match room.ahead.iter().position(has) {
            Some(slot) => slot,
            None => {
                let slot = 1 - room.asked;
                let ahead = &mut room.ahead[slot];
                ahead.first = row;
                ahead.codes.resize_with(AHEAD.min(self.prepared.rows() - row), Codes::default);
                self.prepared.codes_band(row, &mut room.rows, &mut ahead.codes)?;
                slot
            }
        };
        let ahead = &mut room.ahead[room.asked];
        Ok(&mut ahead.codes[row - ahead.first])
    }

    /// The bytes of sixteen rows, if the checkpoint has all of them in the format's type and order.
    fn stored(&self, sources: &[Option<usize>; ROWS], columns: &Columns, format: &WeightFormat) -> Option<[Option<&[u8]>; ROWS]> {
        let dtype = DType::from_name(format.name)?;
        columns.plain()?;
        let mut rows = [None; ROWS];
        for (bytes, row) in rows.iter_mut().zip(sources) {
            let Some(row) = *row else { continue };
            *bytes = Some(self.prepared.stored(row, dtype).filter(|b| b.len().is_multiple_of(4))?);
        }
        Some(rows)
    }

    /// Packs sixteen rows into a block; rows of padding are zero.
    fn block(
        &self,
        sources: &[Option<usize>; ROWS],
        columns: &Columns,
        format: &WeightFormat,
        pack: Packer,
        room: &mut Room,
        out: &mut [u8],
    ) -> Result<()> {
        let k = columns.padded().next_multiple_of(format.k_unit);
        if let Some(rows) = self.stored(sources, columns, format) {
            formats::pack_stored(&rows, &mut out[..format.block_bytes(k)]);
            return Ok(());
        }
        // What is not written below is padding; where nothing is padded, clearing would cost as much as reading.
        if k != self.prepared.columns() || sources.contains(&None) {
            room.panel.clear();
        }
        room.panel.resize(ROWS * k, 0.0);
        // Neighbours are read together: a row of a transposed tensor by itself would cost all of it.
        room.row.resize(self.prepared.columns(), 0.0);
        if let (Some((first, count)), Some(_)) = (run(sources), columns.plain()) {
            self.prepared.band(first, count, &mut room.panel, k).map_err(|e| unreadable(self.item, &e))?;
            pack(&room.panel, k, &mut out[..format.block_bytes(k)]);
            return Ok(());
        }
        for (lane, row) in sources.iter().enumerate() {
            let Some(row) = *row else { continue };
            let to = &mut room.panel[lane * k..][..k];
            let read = match columns.plain() {
                Some(n) => self.prepared.row(row, &mut to[..n]),
                None => self.prepared.row(row, &mut room.row),
            };
            read.map_err(|e| unreadable(self.item, &e))?;
            columns.spread(&room.row, to);
        }
        pack(&room.panel, k, &mut out[..format.block_bytes(k)]);
        Ok(())
    }
}
