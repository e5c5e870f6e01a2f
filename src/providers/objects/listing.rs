//! One page of an object listing, and what a store says when it refuses. Pure.
//!
//! Keys come percent-encoded, because XML cannot hold every character; their slashes stay as they
//! are and a `+` means a plus.

use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;

use crate::error::{Error, Kind, Result};
use crate::providers::http::Answer;

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was written.
    pub modified: Option<Timestamp>,
    /// Its version, with its quotes.
    pub etag: Option<String>,
}

/// What a listing brought.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) objects: Vec<Object>,
    /// Prefixes that end with the delimiter.
    pub(super) folders: Vec<String>,
    truncated: bool,
    next_marker: Option<String>,
    next_token: Option<String>,
}

impl Page {
    /// Where the page after this one begins, which itself began at `from`: at a token that the store
    /// gives, or behind a name.
    pub(super) fn next(&self, from: &str, by_token: bool) -> Result<Option<String>> {
        if !self.truncated {
            return Ok(None);
        }
        let last = self.objects.last().map(|object| &object.key);
        let marker = self.next_marker.as_ref().or(last.max(self.folders.last()));
        let next = match by_token {
            true => self.next_token.as_ref().filter(|token| *token != from),
            false => marker.filter(|marker| marker.as_str() > from),
        };
        match next {
            Some(next) => Ok(Some(next.clone())),
            None => Err(Error::new(
                Kind::Protocol,
                "the store says that its list goes on, but not where",
            )),
        }
    }
}

/// A listing as it came. Objects and prefixes may stand in any order.
#[derive(Debug, Default)]
struct Listed {
    encoding_type: Option<String>,
    is_truncated: bool,
    next_marker: Option<String>,
    next_token: Option<String>,
    prefixes: Vec<String>,
    contents: Vec<Contents>,
}

#[derive(Debug, Default)]
struct Contents {
    key: String,
    modified: String,
    etag: String,
    size: String,
}

impl Listed {
    /// `None` if `text` is no XML of a listing.
    fn read(text: &str) -> Option<Self> {
        let mut listed = None;
        walk(text, |path, value| {
            let ["ListBucketResult", inside @ ..] = path else {
                return;
            };
            let all: &mut Listed = listed.get_or_insert_default();
            match (inside, value) {
                (["Contents"], None) => all.contents.push(Contents::default()),
                (["EncodingType"], Some(value)) => all.encoding_type = Some(value.to_owned()),
                (["IsTruncated"], Some(value)) => {
                    all.is_truncated = value.trim().eq_ignore_ascii_case("true");
                }
                (["NextMarker"], Some(value)) => all.next_marker = Some(value.to_owned()),
                (["NextContinuationToken"], Some(value)) => {
                    all.next_token = Some(value.to_owned());
                }
                (["CommonPrefixes", "Prefix"], Some(value)) => {
                    all.prefixes.push(value.to_owned());
                }
                (["Contents", field], Some(value)) => {
                    if let Some(object) = all.contents.last_mut() {
                        let place = match *field {
                            "Key" => &mut object.key,
                            "LastModified" => &mut object.modified,
                            "ETag" => &mut object.etag,
                            "Size" => &mut object.size,
                            _ => return,
                        };
                        value.clone_into(place);
                    }
                }
                _ => {}
            }
        })?;
        listed
    }
}

/// Lists of objects and refusals are four elements deep; what is deeper than this is neither.
const DEEPEST: usize = 16;

/// Tells `each` of every element of `text`: its path when it begins, its path and own text when it
/// ends. `None` if `text` is no XML, too deep, or has entities of its own.
fn walk(text: &str, mut each: impl FnMut(&[&str], Option<&str>)) -> Option<()> {
    let mut reader = Reader::from_str(text);
    let mut names: Vec<String> = Vec::new();
    let mut value = String::new();
    let mut tell = |names: &[String], value: Option<&str>| {
        let path: Vec<&str> = names.iter().map(String::as_str).collect();
        each(&path, value);
    };
    loop {
        match reader.read_event().ok()? {
            Event::Start(_) | Event::Empty(_) if names.len() == DEEPEST => return None,
            Event::Start(tag) => {
                names.push(tag.local_name().as_ref().to_owned());
                tell(&names, None);
                value.clear();
            }
            Event::Empty(tag) => {
                names.push(tag.local_name().as_ref().to_owned());
                tell(&names, None);
                tell(&names, Some(""));
                names.pop();
            }
            Event::Text(part) => value.push_str(&part),
            Event::CData(part) => value.push_str(&part),
            Event::GeneralRef(entity) => match entity.resolve_char_ref().ok()? {
                Some(c) => value.push(c),
                None => value.push_str(resolve_predefined_entity(&entity)?),
            },
            Event::End(_) => {
                tell(&names, Some(&value));
                names.pop();
                value.clear();
            }
            Event::Eof => return names.is_empty().then_some(()),
            _ => {}
        }
    }
}

/// Reads a successful answer.
pub(super) fn read(answer: &Answer) -> Result<Page> {
    let strange = || {
        let origin = &answer.origin;
        let words = format!(
            "{origin} answered no list of objects: check `endpoint`, and whether a proxy or a login page stands in between"
        );
        Error::new(Kind::Protocol, words)
    };
    let text = std::str::from_utf8(&answer.body).map_err(|_| strange())?;
    let listed = Listed::read(text).ok_or_else(strange)?;
    let keys = || {
        let keys = listed.contents.iter().map(|object| &object.key);
        keys.chain(&listed.prefixes)
    };
    // A store that does not say so may encode all the same, as it was asked to.
    let encoded = match &listed.encoding_type {
        Some(kind) => kind.eq_ignore_ascii_case("url"),
        None => keys().all(|key| is_encoded(key)),
    };
    let plain = |text: &str| match encoded {
        true => percent_decode_str(text).decode_utf8().map(Into::into),
        false => Ok(text.to_owned()),
    };
    let next = |place: &Option<String>| match place.as_deref().map(str::trim) {
        Some(place) if !place.is_empty() => plain(place).map(Some).map_err(|_| strange()),
        _ => Ok(None),
    };
    let mut page = Page {
        truncated: listed.is_truncated,
        next_marker: next(&listed.next_marker)?,
        next_token: next(&listed.next_token)?,
        ..Page::default()
    };
    for contents in &listed.contents {
        page.objects.push(Object {
            key: plain(&contents.key).map_err(|_| strange())?,
            size: contents.size.trim().parse().map_err(|_| strange())?,
            modified: contents.modified.trim().parse().ok(),
            etag: Some(contents.etag.clone()).filter(|tag| !tag.is_empty()),
        });
    }
    for prefix in &listed.prefixes {
        page.folders.push(plain(prefix).map_err(|_| strange())?);
    }
    Ok(page)
}

/// Whether `key` holds nothing that encoding would have changed.
fn is_encoded(key: &str) -> bool {
    let mut bytes = key.bytes();
    while let Some(byte) = bytes.next() {
        let fits = match byte {
            b'%' => {
                let digits = [bytes.next(), bytes.next()];
                digits
                    .iter()
                    .all(|d| d.is_some_and(|d| d.is_ascii_hexdigit()))
            }
            b'/' | b'-' | b'_' | b'.' | b'~' | b'*' => true,
            byte => byte.is_ascii_alphanumeric(),
        };
        if !fits {
            return false;
        }
    }
    true
}

/// Code and message of a refusal; empty where there is none.
pub fn complaint(answer: &Answer) -> (String, String) {
    let (mut code, mut message) = (String::new(), String::new());
    if !answer.status.is_success() {
        let text = String::from_utf8_lossy(&answer.body);
        walk(&text, |path, value| match (path, value) {
            (["Error", "Code"], Some(value)) => code = value.to_owned(),
            (["Error", "Message"], Some(value)) => message = value.to_owned(),
            _ => {}
        });
    }
    (code, message)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: body.to_owned().into(),
            origin: "https://bucket.example".into(),
        }
    }

    #[test]
    fn case_30_deep_and_exploding_lists_are_refused() {
        let deep = "<a>".repeat(1_000_000);
        let bomb = "<!DOCTYPE l [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]>\
             <ListBucketResult><Name>&b;</Name></ListBucketResult>";
        let outside = "<!DOCTYPE l [<!ENTITY f SYSTEM \"file:///etc/passwd\">]>\
             <ListBucketResult><Contents><Key>&f;</Key><Size>1</Size></Contents></ListBucketResult>";
        let huge = "<ListBucketResult><Contents><Key>k</Key><Size>18446744073709551616</Size>\
             </Contents></ListBucketResult>";
        for body in [
            deep.as_str(),
            bomb,
            outside,
            huge,
            "<a><b></a></b>",
            "<ListBucketResult>",
        ] {
            let error = read(&answer(200, body)).unwrap_err();
            assert_eq!(error.kind(), Kind::Protocol);
            assert_eq!(complaint(&answer(403, body)), Default::default());
        }
    }

    #[test]
    fn a_page_is_read() {
        let page = read(&answer(200, "<?xml version='1.0' encoding='utf-8' ?>
<ListBucketResult>
  <Name>b-1250000000</Name><EncodingType>url</EncodingType><Prefix>p%2F</Prefix><Marker/>
  <MaxKeys>2</MaxKeys><IsTruncated>true</IsTruncated><NextMarker>p/sp%20ace%2Bplus%2525</NextMarker>
  <Contents><Key>p/</Key><LastModified>2020-12-10T03:37:30.000Z</LastModified>
    <ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>0</Size>
    <Owner><ID>1</ID><DisplayName>1</DisplayName></Owner><StorageClass>STANDARD</StorageClass></Contents>
  <CommonPrefixes><Prefix>p/a/</Prefix></CommonPrefixes>
  <CommonPrefixes><Prefix>p/%E7%9B%AE/</Prefix></CommonPrefixes>
  <Contents><Key>p/sp%20ace%2Bplus%2525</Key><LastModified>bad</LastModified><Size> 17 </Size></Contents>
</ListBucketResult>")).unwrap();
        assert_eq!(page.folders, ["p/a/", "p/目/"]);
        assert_eq!(
            page.objects[0],
            Object {
                key: "p/".into(),
                size: 0,
                modified: Some("2020-12-10T03:37:30Z".parse().unwrap()),
                etag: Some("\"d41d8cd98f00b204e9800998ecf8427e\"".into()),
            }
        );
        assert_eq!(page.objects[1].key, "p/sp ace+plus%25");
        assert_eq!((page.objects[1].size, page.objects[1].modified), (17, None));
        assert_eq!(
            page.next("p/", false).unwrap().as_deref(),
            Some("p/sp ace+plus%25")
        );
        assert!(page.next("q", false).is_err(), "going backwards has no end");
    }

    #[test]
    fn an_empty_list_and_keys_as_they_are() {
        let empty = read(&answer(
            200,
            "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>",
        ));
        let empty = empty.unwrap();
        assert!(empty.objects.is_empty() && empty.next("", false).unwrap().is_none());
        let key = |text: &str| {
            let body = format!(
                "<ListBucketResult><Contents><Key>{text}</Key><Size>1</Size></Contents></ListBucketResult>"
            );
            read(&answer(200, &body)).unwrap().objects[0].key.clone()
        };
        assert_eq!(key("a b%20c&amp;d"), "a b%20c&d", "not encoded");
        assert_eq!(key("a%20b"), "a b", "encoded as asked");
    }

    #[test]
    fn a_truncated_list_without_marker_goes_on_behind_its_last_entry() {
        let page = read(&answer(200, "<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>a</Key><Size>1</Size></Contents><CommonPrefixes><Prefix>b/</Prefix></CommonPrefixes></ListBucketResult>")).unwrap();
        assert_eq!(page.next("", false).unwrap().as_deref(), Some("b/"));
        let lost = read(&answer(
            200,
            "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        ));
        assert!(lost.unwrap().next("", false).is_err());
    }

    #[test]
    fn a_token_leads_to_the_next_page_but_never_to_itself() {
        let body = "<ListBucketResult><IsTruncated>True</IsTruncated><EncodingType>url</EncodingType><NextContinuationToken> ZGly%3D </NextContinuationToken><Contents><Key>z</Key><Size>1</Size></Contents></ListBucketResult>";
        let page = read(&answer(200, body)).unwrap();
        assert_eq!(page.next("", true).unwrap().as_deref(), Some("ZGly="));
        assert!(page.next("ZGly=", true).is_err());
        let lost = body.replace("Continuation", "");
        assert!(read(&answer(200, &lost)).unwrap().next("", true).is_err());
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        for body in [
            "",
            "<html>Sign in</html>",
            "<Error><Code>x</Code></Error>",
            "<ListBucketResult><Contents><Key>a</Key><Size>x</Size></Contents></ListBucketResult>",
        ] {
            assert_eq!(
                read(&answer(200, body)).unwrap_err().kind(),
                Kind::Protocol,
                "{body}"
            );
        }
    }

    #[test]
    fn a_refusal_has_a_code() {
        let body = "<?xml version='1.0' encoding='utf-8' ?><Error><Code>NoSuchKey</Code><Message>No.</Message><Resource>r</Resource><RequestId>i</RequestId><TraceId>t</TraceId></Error>";
        assert_eq!(
            complaint(&answer(404, body)),
            ("NoSuchKey".into(), "No.".into())
        );
        assert_eq!(complaint(&answer(403, "gone")), Default::default());
    }
}
