//! A JSON object read in order with its duplicate keys refused: serde's maps would silently keep the last one.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// The members of a JSON object. Reading fails on a key that comes twice, and an error inside a value names its key.
pub(crate) struct Entries<V>(pub(crate) BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Entries<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Members<V> {
            type Value = Entries<V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    let value = map.next_value().map_err(|e| A::Error::custom(format_args!("in `{}`: {e}", shown(&key))))?;
                    if members.contains_key(&key) {
                        return Err(A::Error::custom(format_args!("duplicate name `{}`", shown(&key))));
                    }
                    members.insert(key, value);
                }
                Ok(Entries(members))
            }
        }
        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// A name of untrusted length, cut for a message.
pub(crate) fn shown(name: &str) -> String {
    match name.char_indices().nth(120) {
        Some((at, _)) => format!("{}...", &name[..at]),
        None => name.to_owned(),
    }
}
