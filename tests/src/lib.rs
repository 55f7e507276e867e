//! What the tests of this crate share: the repository, its fixtures, running models, comparing numbers. No test is here.

pub mod fixture;
pub mod fuzz;
pub mod model;
pub mod numbers;
pub mod repo;
