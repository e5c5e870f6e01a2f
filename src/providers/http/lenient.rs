//! Reading single values of an API's JSON with patience: a number may come as text, text as a number,
//! and null stands for nothing. For serde's `deserialize_with`. Pure.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::secret::Secret;

/// A number, also one in quotes; `None` for anything else.
pub fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::Number(number) => number.as_i64().or_else(|| {
            let float = number.as_f64().filter(|float| float.is_finite())?;
            Some(float as i64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    })
}

/// A text, also one that came as a number; `None` for an empty one and for anything else.
pub fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::String(text) => Some(text).filter(|text| !text.trim().is_empty()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

/// A text that nobody may see, without blanks around it.
pub fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    Ok(text(from)?.map(|text| Secret::new(text.trim())))
}

/// A list; null is an empty one, and in it nothing.
pub fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    let list: Option<Vec<Option<T>>> = Option::deserialize(from)?;
    Ok(list.into_iter().flatten().flatten().collect())
}
