//! ListObjectsV2 of the account's bucket, in the order of the keys' bytes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::response::{IntoResponse, Response};
use http::header;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::Oss;
use super::admit::Asked;
use super::refusal::Refusal;
use crate::sim::clock::iso_seconds;
use crate::sim::object::Object;

/// An entry of a page: an object, or what begins alike up to the delimiter.
enum Entry {
    Object(Box<Object>),
    Prefix,
}

/// The page that `asked` wants.
pub(super) fn answer(oss: &Oss, asked: &Asked) -> Result<Response, Refusal> {
    if asked.parameter("list-type") != "2" {
        return Err(Refusal::INVALID_ARGUMENT);
    }
    let most: usize = match asked.parameter("max-keys") {
        "" => 100,
        number => number.parse().map_err(|_| Refusal::INVALID_ARGUMENT)?,
    };
    if !(1..=1000).contains(&most) {
        return Err(Refusal::INVALID_ARGUMENT);
    }
    let (prefix, delimiter) = (asked.parameter("prefix"), asked.parameter("delimiter"));
    // The token is the last name of the page before; clients may not know that.
    let after = asked
        .parameter("continuation-token")
        .max(asked.parameter("start-after"));
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    for (place, object) in oss.listed(prefix) {
        let rest = &place.key[prefix.len()..];
        match rest.find(delimiter).filter(|_| !delimiter.is_empty()) {
            Some(at) => {
                let end = prefix.len() + at + delimiter.len();
                entries.insert(place.key[..end].to_owned(), Entry::Prefix);
            }
            None => drop(entries.insert(place.key, Entry::Object(Box::new(object)))),
        }
    }
    entries.retain(|name, _| name.as_str() > after);
    let truncated = entries.len() > most;
    let encoded = asked.parameter("encoding-type") == "url";
    let written = |name: &str| match encoded {
        true => utf8_percent_encode(name, NON_ALPHANUMERIC).to_string(),
        false => name.to_owned(),
    };
    let mut body = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult>");
    let (mut count, mut last) = (0, String::new());
    for (name, entry) in entries.into_iter().take(most) {
        count += 1;
        let shown = written(&name);
        // Writing to a String cannot fail.
        let _ = match entry {
            Entry::Prefix => write!(
                body,
                "<CommonPrefixes><Prefix>{shown}</Prefix></CommonPrefixes>"
            ),
            Entry::Object(object) => write!(
                body,
                "<Contents><Key>{shown}</Key><LastModified>{}</LastModified><ETag>{}</ETag><Type>Multipart</Type><Size>{}</Size><StorageClass>Standard</StorageClass></Contents>",
                iso_seconds(object.modified).replace('Z', ".000Z"),
                object.etag,
                object.content.size(),
            ),
        };
        last = name;
    }
    let _ = write!(
        body,
        "<Prefix>{}</Prefix><MaxKeys>{most}</MaxKeys><KeyCount>{count}</KeyCount><IsTruncated>{truncated}</IsTruncated>",
        written(prefix)
    );
    if encoded {
        body.push_str("<EncodingType>url</EncodingType>");
    }
    if truncated {
        let _ = write!(
            body,
            "<NextContinuationToken>{}</NextContinuationToken>",
            written(&last)
        );
    }
    body.push_str("</ListBucketResult>");
    let kind = [(header::CONTENT_TYPE, "application/xml")];
    Ok((kind, body).into_response())
}
