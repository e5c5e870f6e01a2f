//! The options of a store: which each service has, which belong together, and what follows from
//! them. Names and meanings are those of OpenDAL's services, as far as reading needs them.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::BucketService;
use super::values::{base_address, host_part};
use crate::config::document::{Entry, Section};
use crate::config::{Environment, secrets};
use crate::error::Result;
use crate::secret::Secret;

/// What an option holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    /// A text; an empty one is none.
    Text,
    /// A part of a host name.
    Host,
    /// A base address.
    Address,
    /// true or false.
    Flag,
    /// A key or password.
    Key,
    /// A token that not every account has.
    Token,
    /// A path, relative to the configuration file.
    Path,
}

use Value::{Address, Flag, Host, Key, Path, Text, Token};

const S3: &[(&str, Value)] = &[
    ("bucket", Text),
    ("region", Text),
    ("endpoint", Address),
    ("root", Text),
    ("access_key_id", Key),
    ("secret_access_key", Key),
    ("session_token", Token),
    ("profile", Text),
    ("enable_virtual_host_style", Flag),
    ("enable_request_payer", Flag),
    ("disable_list_objects_v2", Flag),
    ("disable_config_load", Flag),
    ("disable_ec2_metadata", Flag),
    ("skip_signature", Flag),
    ("server_side_encryption_customer_algorithm", Text),
    ("server_side_encryption_customer_key", Key),
    ("server_side_encryption_customer_key_md5", Text),
];

const COS: &[(&str, Value)] = &[
    ("bucket", Host),
    ("region", Host),
    ("endpoint", Address),
    ("root", Text),
    ("secret_id", Key),
    ("secret_key", Key),
    ("security_token", Token),
    ("disable_config_load", Flag),
];

const OSS: &[(&str, Value)] = &[
    ("bucket", Host),
    ("region", Host),
    ("endpoint", Address),
    ("root", Text),
    ("access_key_id", Key),
    ("access_key_secret", Key),
    ("security_token", Token),
    ("addressing_style", Text),
    ("skip_signature", Flag),
];

const GCS: &[(&str, Value)] = &[
    ("bucket", Text),
    ("endpoint", Address),
    ("root", Text),
    ("credential", Key),
    ("credential_path", Path),
    ("disable_config_load", Flag),
    ("disable_vm_metadata", Flag),
    ("skip_signature", Flag),
];

const AZBLOB: &[(&str, Value)] = &[
    ("container", Text),
    ("account_name", Host),
    ("endpoint", Address),
    ("root", Text),
    ("account_key", Key),
    ("sas_token", Token),
    ("skip_signature", Flag),
];

const FS: &[(&str, Value)] = &[("root", Path)];

/// What is known of a service.
struct Known {
    options: &'static [(&'static str, Value)],
    /// There is nothing to show without it.
    needed: &'static str,
    /// Either both or neither.
    pair: Option<[&'static str; 2]>,
}

fn known(service: BucketService) -> Known {
    let (options, needed, pair) = match service {
        BucketService::S3 => (S3, "bucket", Some(["access_key_id", "secret_access_key"])),
        BucketService::Cos => (COS, "bucket", Some(["secret_id", "secret_key"])),
        BucketService::Oss => (OSS, "bucket", Some(["access_key_id", "access_key_secret"])),
        BucketService::Gcs => (GCS, "bucket", None),
        BucketService::Azblob => (AZBLOB, "container", None),
        BucketService::Fs => (FS, "root", None),
    };
    Known {
        options,
        needed,
        pair,
    }
}

/// The options of `service`, each with what it holds.
pub(in crate::config) fn options_of(
    service: BucketService,
) -> impl Iterator<Item = (&'static str, &'static str)> {
    known(service).options.iter().map(|&(name, value)| {
        let holds = match value {
            Value::Text => "text",
            Value::Host => "part of a host name",
            Value::Address => "address",
            Value::Flag => "`true` or `false`",
            Value::Key | Value::Token => "secret",
            Value::Path => "path",
        };
        (name, holds)
    })
}

/// Reads the options of `service` from `table`.
pub(super) fn options(
    table: &Section<'_>,
    service: BucketService,
    allow_http: bool,
    environment: &Environment,
) -> Result<BTreeMap<String, Secret>> {
    let known = known(service);
    let names: Vec<&'static str> = known.options.iter().map(|(name, _)| *name).collect();
    table.allow_only(&[&names])?;

    let mut options = BTreeMap::new();
    for &(name, value) in known.options {
        let Some(entry) = table.get(name) else {
            continue;
        };
        let read = match value {
            Value::Key => Some(secrets::resolve(&entry, environment)?),
            Value::Token => table.optional_secret(name, environment)?,
            Value::Flag => Some(Secret::new(entry.boolean()?.to_string())),
            _ => text(&entry, value, allow_http, environment)?,
        };
        options.extend(read.map(|read| (name.to_owned(), read)));
    }

    let has = |name: &str| options.contains_key(name);
    if !has(known.needed) {
        return Err(table.missing(known.needed));
    }
    if let Some([one, other]) = known.pair
        && has(one) != has(other)
    {
        return Err(table.missing(if has(one) { other } else { one }));
    }
    complete(&mut options, service, known.pair).map_err(|missing| table.missing(missing))?;
    Ok(options)
}

/// An option that is written as text; `None` for an empty one.
fn text(
    entry: &Entry<'_, '_>,
    value: Value,
    allow_http: bool,
    environment: &Environment,
) -> Result<Option<Secret>> {
    let given = match entry.value() {
        DeValue::String(text) if text.is_empty() => return Ok(None),
        DeValue::String(text) => Secret::new(text.as_ref()),
        DeValue::Table(_) => secrets::resolve(entry, environment)?,
        _ => return Err(entry.expected("a string")),
    };
    match value {
        Value::Host => host_part(entry, given.expose())?,
        Value::Address => {
            base_address(given.expose(), allow_http).map_err(|words| entry.error(words))?;
        }
        Value::Path => {
            let path = entry.source().resolve(given.expose());
            let path = path.to_str().map(Secret::new);
            return path
                .map(Some)
                .ok_or_else(|| entry.error("the path is not UTF-8"));
        }
        _ => {}
    }
    Ok(Some(given))
}

/// Adds what follows from the options given, or tells which one is missing.
fn complete(
    options: &mut BTreeMap<String, Secret>,
    service: BucketService,
    pair: Option<[&'static str; 2]>,
) -> Result<(), &'static str> {
    let get = |name: &str| options.get(name).map(Secret::expose);
    let endpoint = match (service, get("endpoint"), get("region"), get("account_name")) {
        (_, Some(given), ..) => Some(given.to_owned()),
        (BucketService::S3, None, None, _) => return Err("region"),
        (BucketService::Cos, None, Some(region), _) => {
            Some(format!("https://cos.{region}.myqcloud.com"))
        }
        (BucketService::Oss, None, Some(region), _) => {
            Some(format!("https://oss-{region}.aliyuncs.com"))
        }
        (BucketService::Azblob, None, _, Some(account)) => {
            Some(format!("https://{account}.blob.core.windows.net"))
        }
        (BucketService::Cos | BucketService::Oss | BucketService::Azblob, ..) => {
            return Err("endpoint");
        }
        (BucketService::S3 | BucketService::Gcs | BucketService::Fs, ..) => None,
    };
    // What no region is known of signs with this one, as MinIO and its like expect.
    let region = match service {
        BucketService::S3 => Some(get("region").unwrap_or("us-east-1").to_owned()),
        _ => None,
    };
    // With keys of its own an account takes nothing from the environment.
    let own_keys = pair.is_some_and(|[one, _]| get(one).is_some())
        && matches!(service, BucketService::S3 | BucketService::Cos)
        && get("disable_config_load").is_none();
    options.remove("region");
    let own_keys = own_keys.then(|| "true".to_owned());
    for (name, value) in [
        ("endpoint", endpoint),
        ("region", region),
        ("disable_config_load", own_keys),
    ] {
        options.extend(value.map(|value| (name.to_owned(), Secret::new(value))));
    }
    Ok(())
}
