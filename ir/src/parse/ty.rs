//! Reading types: `f32[s, 192]`, with dimensions such as `2*s+16`.

use super::scan::{Result, Scanner};
use crate::dtype::DType;
use crate::types::{Dim, Type};

/// Largest number in a dimension: sums and products of a few of them do not overflow.
const MAX_DIM: i64 = 1 << 48;

/// Terms of one dimension.
const MAX_TERMS: usize = 16;

impl Scanner<'_> {
    /// The name of an element type.
    pub(super) fn dtype(&mut self) -> Result<DType> {
        let start = self.place();
        let word = self.word("an element type")?;
        DType::from_name(word).ok_or_else(|| self.error_at(start, format!("found `{word}`"), "an element type such as f32, bf16 or i32"))
    }
    /// `f32[s, 192]`
    pub(super) fn ty(&mut self) -> Result<Type> {
        let dtype = self.dtype()?;
        self.expect("[")?;
        let mut shape = Vec::new();
        if !self.eat("]") {
            loop {
                shape.push(self.dim()?);
                if !self.eat(",") {
                    break;
                }
            }
            self.expect("]")?;
        }
        Ok(Type { dtype, shape })
    }
    /// `64`, `s`, `2*s+16`, `batch*s`
    pub(super) fn dim(&mut self) -> Result<Dim> {
        let start = self.place();
        let mut dim = Dim::default();
        let mut sign = if self.eat("-") { -1 } else { 1 };
        for _ in 0..MAX_TERMS {
            dim = dim.add(&self.term(sign)?);
            let numbers = dim.terms.iter().map(|(_, n)| n).chain([&dim.constant]);
            if numbers.into_iter().any(|n| n.abs() > MAX_DIM) {
                return Err(self.error_at(start, "found a dimension that no tensor has", "a smaller number"));
            }
            sign = match () {
                () if self.eat("+") => 1,
                () if self.eat("-") => -1,
                () => return Ok(dim),
            };
        }
        Err(self.error(format!("a dimension of at most {MAX_TERMS} terms")))
    }
    fn term(&mut self, sign: i64) -> Result<Dim> {
        let mut factor = sign;
        if self.run(|c| c.is_ascii_digit()).is_empty() {
            return self.symbol(factor);
        }
        let start = self.place();
        let number = self.integer()?;
        if number > MAX_DIM {
            return Err(self.error_at(start, format!("found {number}"), format!("a number up to {MAX_DIM}")));
        }
        factor *= number;
        if self.eat("*") { self.symbol(factor) } else { Ok(Dim { constant: factor, terms: vec![] }) }
    }
    fn symbol(&mut self, factor: i64) -> Result<Dim> {
        let mut symbol = self.word("a number or the name of a dimension")?.to_owned();
        while self.eat("*") {
            if !self.run(|c| c.is_ascii_digit()).is_empty() {
                return Err(self.error("the name of a dimension: numbers stand first"));
            }
            symbol = format!("{symbol}*{}", self.word("the name of a dimension")?);
        }
        Ok(Dim { constant: 0, terms: if factor == 0 { vec![] } else { vec![(symbol, factor)] } })
    }
}
