//! What a module is rounded to, as data: [`PRECISIONS`] has one line for each name of `--quant`. Rounding is the pass `choose-precision`.

use llamac_ir::dtype::DType;

/// What weights, inputs of products and the KV cache are rounded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Precision {
    /// Its name.
    pub name: &'static str,
    /// Matrices of layers.
    pub weights: DType,
    /// Matrices of `main`: embedding and head.
    pub table: DType,
    /// K and V.
    pub kv: DType,
}

const fn quantized(name: &'static str, weights: DType) -> Precision {
    // A head in 4 bits costs as much quality as all layers together: on tiny-llama3 it nearly doubles the mean KL.
    Precision { name, weights, table: DType::Q8, kv: DType::Bf16 }
}

/// Every choice, by name.
pub const PRECISIONS: &[Precision] = &[
    Precision::F32,
    Precision::BF16,
    quantized("int8", DType::Q8),
    quantized("int4", DType::Q4G32),
    quantized("q8g32", DType::Q8G32),
    quantized("q4g32", DType::Q4G32),
    quantized("q6g32", DType::Q6G32),
    quantized("q4g64", DType::Q4G64),
    quantized("q4g128", DType::Q4G128),
];

impl Precision {
    /// Nothing is rounded.
    pub const F32: Precision = Precision { name: "f32", weights: DType::F32, table: DType::F32, kv: DType::F32 };
    /// Matrices, inputs of products, K and V.
    pub const BF16: Precision = Precision { name: "bf16", weights: DType::Bf16, table: DType::Bf16, kv: DType::Bf16 };

    /// What matrices get that `--quant auto` chooses no format for.
    pub const AUTO: Precision = quantized("auto", DType::Q8);

    /// The choice of that name.
    pub fn from_name(name: &str) -> Option<Precision> {
        PRECISIONS.iter().find(|p| p.name == name).copied()
    }

    /// Whether matrices of layers become whole numbers with scales.
    pub fn quantized(&self) -> bool {
        self.weights.info().scale.is_some()
    }

    /// What inputs of products with weights of that type are rounded to.
    pub fn act(weights: DType) -> DType {
        if weights.info().scale.is_some() { DType::I8 } else { weights }
    }
}

impl Default for Precision {
    fn default() -> Precision {
        Precision::F32
    }
}
