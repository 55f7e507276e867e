//! Attributes of one node, asked for by name and kind. What nobody asked for is refused at the end: nothing is ignored.

use super::bad;
use crate::diag::Result;
use std::cell::RefCell;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::{AttributeProto, NodeProto, TensorProto};

/// The attributes of a node.
pub(super) struct Attributes<'a> {
    list: &'a [AttributeProto],
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Attributes<'a> {
    pub(super) fn of(node: &'a NodeProto) -> Attributes<'a> {
        Attributes { list: &node.attribute, asked: RefCell::default() }
    }

    fn find(&self, name: &'static str, kind: AttributeType) -> Result<Option<&'a AttributeProto>> {
        self.asked.borrow_mut().push(name);
        let Some(found) = self.list.iter().find(|a| a.name == name) else { return Ok(None) };
        // Old exporters leave the type out.
        if found.r#type != kind as i32 && found.r#type != 0 {
            let what = format!("attribute `{name}` is of another kind");
            return Err(bad(what).found(format_args!("kind {}", found.r#type)).expected(format!("{kind:?}").to_lowercase()));
        }
        Ok(Some(found))
    }

    pub(super) fn int(&self, name: &'static str) -> Result<Option<i64>> {
        Ok(self.find(name, AttributeType::Int)?.map(|a| a.i))
    }
    pub(super) fn int_or(&self, name: &'static str, default: i64) -> Result<i64> {
        Ok(self.int(name)?.unwrap_or(default))
    }
    /// The shortest decimal that is this f32: what the exporter was given.
    pub(super) fn float(&self, name: &'static str) -> Result<Option<f64>> {
        Ok(self.find(name, AttributeType::Float)?.map(|a| shortest(a.f)))
    }
    pub(super) fn raw_float(&self, name: &'static str) -> Result<Option<f32>> {
        Ok(self.find(name, AttributeType::Float)?.map(|a| a.f))
    }
    pub(super) fn ints(&self, name: &'static str) -> Result<Option<&'a [i64]>> {
        Ok(self.find(name, AttributeType::Ints)?.map(|a| a.ints.as_slice()))
    }
    pub(super) fn floats(&self, name: &'static str) -> Result<Option<&'a [f32]>> {
        Ok(self.find(name, AttributeType::Floats)?.map(|a| a.floats.as_slice()))
    }
    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>> {
        Ok(self.find(name, AttributeType::String)?.map(|a| String::from_utf8_lossy(&a.s).into_owned()))
    }
    pub(super) fn tensor(&self, name: &'static str) -> Result<Option<&'a TensorProto>> {
        Ok(self.find(name, AttributeType::Tensor)?.and_then(|a| a.t.as_ref()))
    }
    /// An integer attribute that may only have this value, which is also its default.
    pub(super) fn only(&self, name: &'static str, value: i64) -> Result<()> {
        match self.int_or(name, value)? {
            found if found == value => Ok(()),
            found => Err(bad(format!("attribute `{name}` has a value that is not compiled")).found(found).expected(value)),
        }
    }

    /// Refuses what nobody asked for.
    pub(super) fn done(&self) -> Result<()> {
        match self.list.iter().find(|a| !self.asked.borrow().contains(&a.name.as_str())) {
            None => Ok(()),
            Some(other) => {
                let known = self.asked.borrow().join(", ");
                Err(bad("an attribute is not compiled").found(format_args!("`{}`", other.name)).expected(if known.is_empty() {
                    "none".to_owned()
                } else {
                    known
                }))
            }
        }
    }
}

/// The shortest decimal that rounds to this f32, as f64: `1e-5` where the file has 9.999999747378752e-6.
pub(super) fn shortest(x: f32) -> f64 {
    format!("{x:?}").parse().unwrap_or(f64::from(x))
}
