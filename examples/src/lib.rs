//! Random checkpoints of any Llama 3 shape, for trying true sizes without a download. The examples themselves are in `bin`.

pub mod checkpoint;
pub mod random;
pub mod shapes;
pub mod vocab;
