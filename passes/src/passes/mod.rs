//! The passes, one file each: header with an example that is a test, named rules, tests where it fires and where it must not.

pub(crate) mod batch_experts;
pub(crate) mod choose_precision;
pub(crate) mod fold_constants;
pub(crate) mod fold_norm;
pub(crate) mod fold_rope_permutation;
pub(crate) mod fuse_norm_linear;
pub(crate) mod fuse_residual;
pub(crate) mod fuse_rope_kv_write;
pub(crate) mod fuse_swiglu;
pub(crate) mod merge_common;
pub(crate) mod merge_gate_up;
pub(crate) mod merge_qkv;
pub(crate) mod push_down_rows;
pub(crate) mod raise_attention;
pub(crate) mod raise_integer;
pub(crate) mod raise_norm;
pub(crate) mod raise_rotary;
pub(crate) mod raise_swiglu;
pub(crate) mod remove_dead;
pub(crate) mod swap_gather_norm;
pub(crate) mod widen_floats;
