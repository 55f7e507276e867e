//! The optimiser: a registry of passes, equality saturation over the pure part of each function, the roofline cost model, and the
//! pipeline that runs them in order. It reads no clock and no environment, and knows no target but the figures of [`cost::Machine`].

pub mod check;
pub mod context;
pub mod cost;
mod edit;
pub mod egraph;
mod merge;
mod passes;
pub mod pipeline;
mod precision;
mod recipes;
pub mod registry;
pub mod report;
pub mod rewrite;
pub mod summary;
pub mod variants;
pub mod why;

#[cfg(test)]
mod testing;
