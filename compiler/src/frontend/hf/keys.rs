//! Typed access to the keys of a JSON object; every complaint names the key, what was found and what was expected.

use crate::diag::{Diag, Result};
use serde_json::{Map, Value};

/// A JSON object and where it is (`rope_scaling.` or nothing).
pub(super) struct Keys<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

/// A value of untrusted size, for a message.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

impl<'a> Keys<'a> {
    /// The object that a file holds.
    pub(super) fn of(value: &'a Value) -> Result<Keys<'a>> {
        match value {
            Value::Object(map) => Ok(Keys { map, path: String::new() }),
            other => Err(bad("the file does not hold an object").found(shown(other)).expected("a JSON object")),
        }
    }

    /// The value of a key; `null` counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// A complaint about a key.
    pub(super) fn bad(&self, key: &str, what: impl Into<String>) -> Diag {
        let diag = bad(what).place(format_args!("`{}{key}`", self.path));
        match self.map.get(key) {
            Some(value) => diag.found(shown(value)),
            None => diag.found("nothing"),
        }
    }

    fn typed<T>(&self, key: &str, expected: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(x) => Ok(Some(x)),
                None => Err(self.bad(key, format!("`{}{key}` has a value that cannot be", self.path)).expected(expected)),
            },
        }
    }

    /// An integer in `1..=max`.
    pub(super) fn count(&self, key: &str, max: usize) -> Result<Option<usize>> {
        let read = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=max).contains(n));
        self.typed(key, &format!("an integer from 1 to {max}"), read)
    }
    /// As `count`, and the key must be there.
    pub(super) fn needed(&self, key: &str, max: usize) -> Result<usize> {
        self.count(key, max)?
            .ok_or_else(|| self.bad(key, format!("`{}{key}` is missing", self.path)).expected(format!("an integer from 1 to {max}")))
    }
    /// A finite number above 0.
    pub(super) fn positive(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number above 0", |v| v.as_f64().filter(|x| x.is_finite() && *x > 0.0))
    }
    /// A finite number, 0 or above.
    pub(super) fn not_negative(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number, 0 or above", |v| v.as_f64().filter(|x| x.is_finite() && *x >= 0.0))
    }
    /// `true` or `false`.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }
    /// `true` or `false`, or a number, which is true unless it is 0.
    pub(super) fn truth(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true, false or a number", |v| v.as_bool().or_else(|| v.as_f64().map(|x| x != 0.0)))
    }
    /// A list of integers, 0 or above.
    pub(super) fn numbers(&self, key: &str) -> Result<Option<Vec<usize>>> {
        let one = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
        self.typed(key, "a list of integers", |v| v.as_array()?.iter().map(one).collect())
    }
    /// A list of strings.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>> {
        self.typed(key, "a list of strings", |v| v.as_array()?.iter().map(Value::as_str).collect())
    }
    /// A string.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a string", Value::as_str)
    }
    /// A token id.
    pub(super) fn id(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "a token id", |v| v.as_u64().and_then(|n| u32::try_from(n).ok()))
    }
    /// One token id or a list of them; absent: none.
    pub(super) fn ids(&self, key: &str) -> Result<Option<Vec<u32>>> {
        let one = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        self.typed(key, "a token id or a list of them", |v| match v {
            Value::Array(list) => list.iter().map(one).collect(),
            other => one(other).map(|id| vec![id]),
        })
    }
    /// An object inside this one.
    pub(super) fn object(&self, key: &str) -> Result<Option<Keys<'a>>> {
        let map = self.typed(key, "an object", Value::as_object)?;
        Ok(map.map(|map| Keys { map, path: format!("{}{key}.", self.path) }))
    }
}

/// A complaint about a config file.
pub(super) fn bad(what: impl Into<String>) -> Diag {
    Diag::new("config", what).help("take the file from the checkpoint as it was published, or correct the key")
}

/// The JSON value that a file holds.
pub(super) fn parse(text: &[u8]) -> Result<Value> {
    serde_json::from_slice(text).map_err(|e| bad("the file is not JSON").found(e).expected("a JSON object"))
}
