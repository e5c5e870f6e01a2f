//! The parameters of a call, from the JSON body of a POST or the flattened query of a GET, read as
//! strictly as the real gateway does: unknown ones are refused. Pure.

use serde_json::{Map, Value};
use url::form_urlencoded;

use super::answer::ApiError;

/// The parameters.
#[derive(Debug)]
pub(super) struct Parameters(Map<String, Value>);

impl Parameters {
    /// Those of a POST.
    pub(super) fn of_body(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Parameters(fields)),
            _ => Err(ApiError::new(
                "InvalidParameter",
                "The body is no JSON object.",
            )),
        }
    }

    /// Those of a GET: `BackupSets.0.ReplicaSetId=…`, `Status.0=2`.
    pub(super) fn of_query(query: &str) -> Self {
        let mut whole = Value::Object(Map::new());
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let mut place = &mut whole;
            for part in name.split('.') {
                place = match part.parse::<usize>() {
                    Ok(number) if number < 100 => {
                        if !place.is_array() {
                            *place = Value::Array(Vec::new());
                        }
                        let list = place.as_array_mut().expect("it was made a list");
                        list.resize(list.len().max(number + 1), Value::Null);
                        &mut list[number]
                    }
                    _ => {
                        if !place.is_object() {
                            *place = Value::Object(Map::new());
                        }
                        &mut place[part]
                    }
                };
            }
            *place = Value::String(value.into_owned());
        }
        match whole {
            Value::Object(fields) => Parameters(fields),
            _ => Parameters(Map::new()),
        }
    }

    /// Refuses parameters that are not among `known`.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => Err(ApiError::new(
                "UnknownParameter",
                format!("The parameter `{name}` is not recognized."),
            )),
        }
    }

    /// The text of a parameter that must be there.
    pub(super) fn text(&self, name: &str) -> Result<&str, ApiError> {
        self.optional_text(name)?
            .ok_or_else(|| ApiError::missing(name))
    }

    pub(super) fn optional_text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(ApiError::malformed(name)),
        }
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => number(value)
                .map(Some)
                .ok_or_else(|| ApiError::malformed(name)),
        }
    }

    /// A list of numbers; an official sample writes them in quotes.
    pub(super) fn numbers(&self, name: &str) -> Result<Option<Vec<i64>>, ApiError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(list)) => {
                let numbers: Option<Vec<i64>> = list.iter().map(number).collect();
                numbers.map(Some).ok_or_else(|| ApiError::malformed(name))
            }
            Some(_) => Err(ApiError::malformed(name)),
        }
    }

    /// The `member` of each object of a list that must be there.
    pub(super) fn members(&self, name: &str, member: &str) -> Result<Vec<&str>, ApiError> {
        let list = match self.0.get(name) {
            None | Some(Value::Null) => return Err(ApiError::missing(name)),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(ApiError::malformed(name)),
        };
        let texts = list.iter().map(|each| match each {
            Value::Object(fields) if fields.keys().all(|key| key == member) => {
                fields.get(member).and_then(Value::as_str)
            }
            _ => None,
        });
        let texts: Option<Vec<&str>> = texts.collect();
        texts.ok_or_else(|| ApiError::malformed(name))
    }

    /// Limit and offset, where a limit that is left out is `default`.
    pub(super) fn page(&self, default: usize) -> Result<(usize, usize), ApiError> {
        let limit = match self.number("Limit")? {
            None => default,
            Some(limit @ 1..=100) => limit as usize,
            Some(_) => {
                let code = "InvalidParameterValue.LimitParaOutOfRange";
                return Err(ApiError::new(code, "Limit must be from 1 to 100."));
            }
        };
        match self.number("Offset")? {
            None => Ok((limit, 0)),
            Some(offset @ 0..=10_000) => Ok((limit, offset as usize)),
            Some(_) => {
                let code = "InvalidParameterValue.OffsetParaOutOfRange";
                Err(ApiError::new(code, "Offset must be from 0 to 10000."))
            }
        }
    }
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let query = Parameters::of_query(
            "InstanceId=cmgo-sim00001&BackupSets.0.ReplicaSetId=a&BackupSets.1.ReplicaSetId=b&Status.0=2&BackupName=n+01%3A02",
        );
        let body = Parameters::of_body(
            br#"{"InstanceId":"cmgo-sim00001","BackupSets":[{"ReplicaSetId":"a"},{"ReplicaSetId":"b"}],"Status":["2"],"BackupName":"n 01:02"}"#,
        );
        for parameters in [query, body.unwrap()] {
            assert_eq!(parameters.text("InstanceId").unwrap(), "cmgo-sim00001");
            assert_eq!(parameters.text("BackupName").unwrap(), "n 01:02");
            assert_eq!(
                parameters.members("BackupSets", "ReplicaSetId").unwrap(),
                ["a", "b"]
            );
            assert_eq!(parameters.numbers("Status").unwrap(), Some(vec![2]));
            assert_eq!(
                parameters.only(&["InstanceId"]).unwrap_err().code,
                "UnknownParameter"
            );
        }
    }

    #[test]
    fn limits_are_checked() {
        let page = |text: &str| {
            let parameters = Parameters::of_body(text.as_bytes()).unwrap();
            parameters.page(20).map_err(|error| error.code)
        };
        assert_eq!(page("{}"), Ok((20, 0)));
        assert_eq!(page(r#"{"Limit":100,"Offset":10000}"#), Ok((100, 10_000)));
        let limit = Err("InvalidParameterValue.LimitParaOutOfRange".to_owned());
        assert_eq!(page(r#"{"Limit":0}"#), limit);
        assert_eq!(page(r#"{"Limit":101}"#), limit);
        let offset = Err("InvalidParameterValue.OffsetParaOutOfRange".to_owned());
        assert_eq!(page(r#"{"Offset":10001}"#), offset);
        assert_eq!(page(r#"{"Limit":[]}"#), Err("InvalidParameter".to_owned()));
    }
}
