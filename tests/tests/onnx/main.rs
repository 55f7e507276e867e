//! ONNX models: what is imported computes what ONNX Runtime computes, and what is raised and compiled does, too.

mod apart;
mod compiled;
mod imported;
mod inferred;
mod interpreted;
mod kept;
mod made;
mod past;
mod same_module;
mod second;
