//! The parameters of a call and their signature, checked: SHA-1 over sorted names and values and the
//! private key ("Signature algorithm", docs.ucloud.cn/api/summary/signature). Pure.
//!
//! Official clients send a query, a form or JSON. Lists in a form are `Name.0`, `Name.1`; a list in
//! JSON is signed by some clients like that and by others as its elements one after the other.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sha1::{Digest, Sha1};
use url::form_urlencoded;

use crate::sim::hex;

/// The parameters of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameters {
    /// By name, flattened.
    values: BTreeMap<String, String>,
    /// What may have been signed, before the private key.
    texts: Vec<String>,
}

impl Parameters {
    /// Those of a query or a form.
    pub(super) fn of_form(form: &[u8]) -> Self {
        let values: BTreeMap<String, String> = form_urlencoded::parse(form).into_owned().collect();
        Parameters {
            texts: vec![joined(&values)],
            values,
        }
    }

    /// Those of a JSON body; `None` if it is no object.
    pub(super) fn of_json(body: &[u8]) -> Option<Self> {
        let Ok(Value::Object(fields)) = serde_json::from_slice(body) else {
            return None;
        };
        let mut values = BTreeMap::new();
        for (name, value) in &fields {
            flatten(name, value, &mut values);
        }
        Some(Parameters {
            texts: vec![object(&fields), joined(&values)],
            values,
        })
    }

    /// The text of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Whether `signature` is theirs by `private_key`.
    pub(super) fn are_signed(&self, signature: &str, private_key: &str) -> bool {
        let sign = |text: &String| hex(&Sha1::digest(format!("{text}{private_key}")));
        self.texts.iter().any(|text| sign(text) == signature)
    }
}

/// Names and values in the order of the names.
fn joined(values: &BTreeMap<String, String>) -> String {
    let signed = values.iter().filter(|(name, _)| *name != "Signature");
    signed
        .map(|(name, value)| format!("{name}{value}"))
        .collect()
}

/// `value` under dotted names; null is left out.
fn flatten(name: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Null => {}
        Value::Array(list) => {
            for (at, each) in list.iter().enumerate() {
                flatten(&format!("{name}.{at}"), each, into);
            }
        }
        Value::Object(fields) => {
            for (key, each) in fields {
                flatten(&format!("{name}.{key}"), each, into);
            }
        }
        simple => drop(into.insert(name.to_owned(), text(simple))),
    }
}

fn object(fields: &Map<String, Value>) -> String {
    let mut sorted: Vec<_> = fields
        .iter()
        .filter(|(name, _)| *name != "Signature")
        .collect();
    sorted.sort_unstable_by_key(|(name, _)| *name);
    let pairs = sorted.into_iter();
    pairs
        .map(|(name, value)| format!("{name}{}", text(value)))
        .collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(flag) => flag.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(text).collect(),
        Value::Object(fields) => object(fields),
        // Without a fraction that is nothing, and never with an exponent.
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (None, Some(float)) => format!("{float}"),
            _ => number.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PUBLIC: &str = "ucloudsomeone@example.com1296235120854146120";
    const PRIVATE: &str = "46f09bb9fab4f12dfc160dae12273d5332b5debe";

    fn form(pairs: &[(&str, &str)]) -> Parameters {
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .append_pair("PublicKey", PUBLIC)
            .append_pair("Signature", "left out")
            .finish();
        Parameters::of_form(form.as_bytes())
    }

    fn json(mut body: Value) -> Parameters {
        body["PublicKey"] = PUBLIC.into();
        body["Signature"] = "left out".into();
        Parameters::of_json(body.to_string().as_bytes()).unwrap()
    }

    /// The documentation's example and signatures made by the official Python SDK, as forms.
    #[test]
    fn forms_of_the_official_clients() {
        let cluster = [
            ("ClusterId", "umongodb-abc"),
            ("ProjectId", "org-xyz"),
            ("Region", "cn-bj2"),
        ];
        let with = |more: &[(&'static str, &'static str)]| form(&[&cluster[..], more].concat());
        let numbers: Vec<(String, String)> = (0..12)
            .map(|n| (format!("IP.{n}"), format!("ip{n}")))
            .collect();
        let mut list: Vec<(&str, &str)> = vec![("Action", "Foo")];
        list.extend(numbers.iter().map(|(name, value)| (&**name, &**value)));
        for (id, parameters, signature) in [
            (
                "V1",
                form(&[
                    ("Action", "DescribeUHostInstance"),
                    ("Limit", "10"),
                    ("Region", "cn-bj2"),
                ]),
                "cba5cf5ec4d4233d206b1b54951e3787350a642f",
            ),
            (
                "V2",
                form(&[("Action", "GetProjectList")]),
                "af7ef441ef4cfd960313696b654a0514c8c9fec4",
            ),
            (
                "V3",
                form(&[("Action", "GetRegion")]),
                "f1b19c456b24b3ef433b90dc3b20debfd0de879b",
            ),
            (
                "V4",
                form(&[
                    ("Action", "ListUMongoDBInstances"),
                    ("ProjectId", "org-xyz"),
                    ("Region", "cn-bj2"),
                ]),
                "cfb3b802c90794aae3314e6e7fc8b2aa24ef15b4",
            ),
            (
                "V5",
                with(&[("Action", "DescribeUMongoDBInstance")]),
                "46941bd18dda1e5c8f9a2ddd7b7eacd60f9f177a",
            ),
            (
                "V6",
                with(&[("Action", "ListUMongoDBBackup"), ("Zone", "cn-bj2-05")]),
                "e9f50000f8b3d1b63962a956348d5cd75d89b0a0",
            ),
            (
                "V8",
                with(&[
                    ("Action", "DescribeUMongoDBBackupURL"),
                    ("Category", "oplog"),
                    ("PackageId", "7"),
                ]),
                "dc7fe77a034c5c64c802596e6ccafdb73c66d79c",
            ),
            (
                "V10",
                form(&list),
                "d081aa19daf760d3e47c12261d56927ac76b34a2",
            ),
            (
                "V11",
                form(&[("Action", "Foo"), ("E", "")]),
                "2599b6658e9fe7cc07ff7096c28997015c7920ba",
            ),
        ] {
            assert!(parameters.are_signed(signature, PRIVATE), "{id}");
            assert!(!parameters.are_signed(signature, "another"), "{id}");
        }
        let foreign = Parameters::of_form(b"foo=bar&PublicKey=my_public_key");
        assert!(foreign.are_signed("d4411ab30953fb0bbcb1e7313081f05e4e91a394", "my_private_key"));
        let bare = Parameters::of_form(b"foo=bar");
        assert!(bare.are_signed("634edc1bb957c0d65e5ab5494cf3b7784fbc87af", "my_private_key"));
    }

    #[test]
    fn the_query_of_a_get() {
        let query = "Action=DescribeUMongoDBBackupURL&BackupId=umongodb-bk-1&ClusterId=umongodb-abc&ProjectId=org-xyz&PublicKey=ucloudsomeone%40example.com1296235120854146120&Region=cn-bj2&Signature=2c9d0f77c0af67951447b0516ca0ce2a1f753963&ValidTime=14400&Zone=cn-bj2-05";
        let parameters = Parameters::of_form(query.as_bytes());
        let signature = parameters.get("Signature").unwrap();
        assert!(parameters.are_signed(signature, PRIVATE));
    }

    /// A value with a list, an object and a list of objects, as a flat form and as JSON.
    #[test]
    fn lists_and_objects_are_flattened() {
        let signature = "dee4f06385069e0843acd1858a42f2c2ad8a3c56";
        let flat = form(&[
            ("Action", "Foo"),
            ("B", "true"),
            ("C", "false"),
            ("F", "1"),
            ("G", "1.5"),
            ("L.0", "a"),
            ("L.1", "b"),
            ("D.k", "v"),
            ("LD.0.x", "1"),
            ("LD.0.y", "z"),
            ("Zh", "中文 a+b&c"),
        ]);
        assert!(flat.are_signed(signature, PRIVATE));
        let whole = json(json!({
            "Action": "Foo", "B": true, "C": false, "F": 1.0, "G": 1.5, "L": ["a", "b"],
            "D": {"k": "v"}, "LD": [{"x": 1, "y": "z"}], "Zh": "中文 a+b&c",
        }));
        assert!(whole.are_signed(signature, PRIVATE));
        assert_eq!(whole.get("LD.0.x"), Some("1"));
    }

    /// Signatures made by the official Go SDK's JSON encoder.
    #[test]
    fn json_of_the_official_client() {
        for (id, body, signature) in [
            (
                "J1",
                json!({"Action": "X", "A": ["a", "b", 3, true, 1.5]}),
                "09f6f853b3a0ab56603b6d9d4bf4cb669f9d5268",
            ),
            (
                "J2",
                json!({"Action": "X", "L": [{"Key": "k", "Value": "v"}, {"Value": 2, "Key": 1}], "M": {"z": 1, "a": true}}),
                "265fb8c8fd24d65d5587cd509c32d44ad27eddc7",
            ),
            (
                "J3",
                json!({"Action": "X", "F": 42.0, "G": 42.1, "H": 1e21, "I": 0.000001, "B": false}),
                "c1f4c70a60226e3f5db730bd457599405ecf5fdb",
            ),
            (
                "J4",
                json!({"Action": "X", "E": "", "S": "a b&c=d+%/é中文"}),
                "6554b79ea5eafcf0bb5e7f08687c8326d47113bf",
            ),
            (
                "J5",
                json!({"Action": "X", "N": null}),
                "eb3927329adba8791ba46c04841058296255f588",
            ),
            (
                "a call with numbers",
                json!({"Action": "CreateUHostInstance", "CPU": 2, "ChargeType": "Month", "DiskSpace": 10,
                       "ImageId": "f43736e1-65a5-4bea-ad2e-8a46e18883c2", "LoginMode": "Password",
                       "Memory": 2048, "Name": "Host01", "Password": "VUNsb3VkLmNu", "Quantity": 1,
                       "Region": "cn-bj2", "Zone": "cn-bj2-04", "SecurityToken": "some_stoken"}),
                "170c480ad176a247b324eb92a2cfe536aacfbd04",
            ),
        ] {
            assert!(json(body).are_signed(signature, PRIVATE), "{id}");
        }
        assert_eq!(Parameters::of_json(b"[]"), None);
    }
}
