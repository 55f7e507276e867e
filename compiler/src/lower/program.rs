//! The step program as plain data: buffers, functions made of regions, and the schedule. It names no target: no threads,
//! lanes or instructions. Making it is in the sibling files, its text in `print`, its figures in `plan`.

use llamac_ir::module::Weight;
use llamac_runtime::abi::{ROW_GAP, ScheduleEntry};
use llamac_runtime::artifact::meta::KvMeta;
use llamac_runtime::format::{Act, WeightFormat};

use super::layout::Layout;
pub use super::region::*;

/// Upper bounds that a program is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// New tokens in one step.
    pub max_step: usize,
    /// Rows whose logits are wanted in one step.
    pub max_rows: usize,
    /// Sequences at a time.
    pub max_batch: usize,
    /// Positions of a sequence.
    pub max_context: usize,
}

/// A whole model as a step program.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// Name, for people.
    pub name: String,
    /// What it is compiled for.
    pub limits: Limits,
    /// Activation buffers.
    pub buffers: Vec<Buffer>,
    /// Weights of `main` (number 0) and of each kind of layer.
    pub areas: Vec<Area>,
    /// Compiled functions: parts of `main` and kinds of layers.
    pub functions: Vec<Function>,
    /// What a step does, in order.
    pub steps: Vec<Step>,
    /// Calls of layer functions; `function` is an index of [`Program::functions`].
    pub schedule: Vec<ScheduleEntry>,
    /// For each call of `schedule`, the number of the layer.
    pub layers: Vec<usize>,
    /// KV groups.
    pub kv: Vec<KvMeta>,
    /// The buffer that holds the result, rows of set 1.
    pub logits: BufferId,
    /// Bytes of the activation arena.
    pub arena_bytes: u64,
    /// Bytes of the weight section.
    pub weight_bytes: u64,
}

/// Index into [`Program::buffers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferId(pub u32);

/// What an element of a buffer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Elem {
    /// 4 bytes.
    F32,
    /// 2 bytes, rounded to nearest even.
    Bf16,
    /// 1 byte, with sums and scales behind the row: `Act::I8` of the runtime.
    I8,
    /// 4 bytes, a whole number.
    I32,
}

impl Elem {
    /// Bytes of one.
    pub const fn bytes(self) -> usize {
        match self {
            Elem::F32 | Elem::I32 => 4,
            Elem::Bf16 => 2,
            Elem::I8 => 1,
        }
    }
    /// Name in the printed program.
    pub const fn name(self) -> &'static str {
        match self {
            Elem::F32 => "f32",
            Elem::Bf16 => "bf16",
            Elem::I8 => "i8",
            Elem::I32 => "i32",
        }
    }
}

/// A planned activation buffer: row-major rows of one row set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buffer {
    /// Name in the printed program, unique.
    pub name: String,
    /// Row set: 0 all new tokens, 1 rows whose logits are wanted.
    pub rows: usize,
    /// Rows for each row of the set: more than 1 for what is computed for each chosen expert, in the order of places (see `Body::Group`).
    pub times: usize,
    /// Features of a row, padding not counted.
    pub width: usize,
    /// Order and padding of the features.
    pub layout: Layout,
    /// Element type.
    pub elem: Elem,
    /// What it is.
    pub role: Role,
    /// Bytes that it needs beside its rows.
    pub extra: u64,
    /// Byte offset in the arena.
    pub offset: u64,
}

/// What a buffer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Lives inside one function; its place is used again.
    Scratch,
    /// Carried from one layer to the next.
    Carried,
    /// Made once per step and read by every layer.
    Shared,
    /// The result of the step: its place is never used again.
    Logits,
}

impl Buffer {
    /// Elements of a row with padding.
    pub fn padded(&self) -> usize {
        self.layout.padded(self.width)
    }
    /// Bytes from one row to the next.
    pub fn stride(&self) -> u64 {
        let row = match self.elem {
            Elem::F32 | Elem::Bf16 | Elem::I32 => self.padded() * self.elem.bytes(),
            Elem::I8 => Act::I8.row_bytes(self.padded()),
        };
        (row + ROW_GAP) as u64
    }
    /// Bytes for the most rows that it can have.
    pub fn bytes(&self, limits: &Limits) -> u64 {
        self.stride() * (self.times * if self.rows == 0 { limits.max_step } else { limits.max_rows }) as u64 + self.extra
    }
}

/// A contiguous piece of the weight section: the weights of `main` or of one layer, in the order of use.
#[derive(Debug, Clone, PartialEq)]
pub struct Area {
    /// Name of the function in the IR.
    pub name: String,
    /// Weights in order.
    pub weights: Vec<PlacedWeight>,
    /// Bytes with the padding behind the last weight.
    pub bytes: u64,
}

/// A weight in its area.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacedWeight {
    /// Name, type and recipe.
    pub weight: Weight,
    /// How it is stored.
    pub form: WeightForm,
    /// Byte offset in the area.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
    /// Whether every step reads all of it (an embedding table is only gathered from).
    pub streamed: bool,
    /// Experts that a step of one token reads; 1 for a weight without experts.
    pub used: usize,
}

/// How a weight is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WeightForm {
    /// Packed blocks of 16 rows.
    Matrix {
        /// Packed format.
        format: WeightFormat,
        /// Order of the rows.
        rows: RowOrder,
        /// Order of the columns.
        cols: Layout,
        /// Rows, true.
        n: usize,
        /// Columns, true.
        k: usize,
        /// Matrices of that form, one after the other; 1 for a weight without experts.
        experts: usize,
    },
    /// f32 elements, zeros in the padding.
    Vector {
        /// Order of the elements.
        rows: RowOrder,
        /// Elements, true.
        n: usize,
    },
}

/// Order of the rows of a matrix or the elements of a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowOrder {
    /// One after the other, with the padding of the layout.
    Plain(Layout),
    /// The first half are gates, the second half ups: blocks of 16 alternate. The layout is that of each half.
    GateUp(Layout),
}

impl RowOrder {
    /// Rows with padding, of `n` true ones.
    pub fn padded(self, n: usize) -> usize {
        match self {
            RowOrder::Plain(l) => l.padded(n),
            RowOrder::GateUp(l) => 2 * l.padded(n / 2),
        }
    }
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Runs a function once (index into [`Program::functions`]).
    Run(usize),
    /// Runs the entries `first .. first + count` of the schedule.
    Layers {
        /// First entry.
        first: usize,
        /// How many.
        count: usize,
    },
}

/// Regions in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    /// Name, unique.
    pub name: String,
    /// Index into [`Program::areas`].
    pub area: usize,
    /// Group of KV pages that its cache lies in.
    pub kv_group: usize,
    /// What it does.
    pub regions: Vec<Region>,
}

impl Program {
    /// A buffer.
    pub fn buffer(&self, id: BufferId) -> &Buffer {
        &self.buffers[id.0 as usize]
    }
}
