//! What is asked of a link that works once only, and what its answer is. Pure.
//!
//! One GET brings everything. Only when it broke off may the rest be asked for, and then the answer
//! must prove that it goes on with the same bytes (RFC 9110 13.1.5, 14.4): two downloads of one
//! backup may differ, and their halves would not fit.

use http::StatusCode;
use http::header::{CONTENT_RANGE, HeaderMap, TRANSFER_ENCODING};

use super::probe::text;
use super::validate::{
    ContentRange, Verdict, content_range, identity, judge_failure, length, single,
};

/// What one GET of a whole artifact asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Everything, without any condition.
    Whole,
    /// What follows the first `from` bytes.
    Rest {
        /// Not nothing.
        from: u64,
        /// The strong tag of what these bytes are from.
        if_range: Option<String>,
    },
}

/// What an answer says of its body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// Where in the artifact the body begins.
    pub from: u64,
    /// The length of the whole artifact; `None` when only its end will tell.
    pub total: Option<u64>,
    /// ETag, verbatim.
    pub etag: Option<String>,
    /// Last-Modified, verbatim.
    pub last_modified: Option<String>,
}

impl Head {
    /// The tag, if it stands for these very bytes.
    pub fn strong_etag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|tag| tag.starts_with('"'))
    }

    /// Whether an answer that brings the rest of it could prove that it does.
    pub fn can_be_continued(&self) -> bool {
        self.strong_etag().is_some() || self.total.is_some()
    }

    /// Whether `rest` proves to be of the same bytes: by the same strong tag, or by the same length
    /// where no name contradicts.
    pub fn is_continued_by(&self, rest: &Head) -> bool {
        let names = [
            (&self.etag, &rest.etag),
            (&self.last_modified, &rest.last_modified),
        ];
        let contradicts =
            |(before, after): (&Option<String>, &Option<String>)| match (before, after) {
                (Some(before), Some(after)) => before != after,
                (Some(_), None) => true,
                (None, _) => false,
            };
        let tag = self.strong_etag().is_some() && self.etag == rest.etag;
        match (self.total, rest.total) {
            (Some(before), Some(after)) if before != after => false,
            _ if tag => true,
            (Some(_), Some(_)) => !names.into_iter().any(contradicts),
            _ => false,
        }
    }
}

/// Judges the answer to `ask`. [`Verdict::Changed`] when the rest is not to be had, so that all must
/// be asked anew. `code` is the store's error code from the body, where there was one.
pub fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    code: Option<&str>,
    ask: &Ask,
) -> Verdict<Head> {
    match (status, ask) {
        (StatusCode::OK, _) => match whole(headers) {
            Ok(head) => Verdict::Accept(head),
            Err(why) => Verdict::Protocol(why),
        },
        (StatusCode::PARTIAL_CONTENT, Ask::Rest { from, .. }) => match rest(headers, *from) {
            Some(head) => Verdict::Accept(head),
            None => Verdict::Changed,
        },
        (StatusCode::PRECONDITION_FAILED | StatusCode::RANGE_NOT_SATISFIABLE, Ask::Rest { .. }) => {
            Verdict::Changed
        }
        _ => judge_failure(status, code),
    }
}

fn whole(headers: &HeaderMap) -> Result<Head, String> {
    identity(headers)?;
    let total = match is_chunked(headers) {
        // Then any length is to be ignored (RFC 9112 6.3).
        true => None,
        false => Some(length(headers)?.ok_or(
            "the server tells neither the file's length nor, by chunks, its end: a connection that \
             breaks off would look like the end of the file",
        )?),
    };
    match total.is_some_and(|total| i64::try_from(total).is_err()) {
        true => Err("the server names a length beyond 2^63".into()),
        false => Ok(named(headers, 0, total)),
    }
}

fn rest(headers: &HeaderMap, wanted: u64) -> Option<Head> {
    identity(headers).ok()?;
    let value = single(headers, &CONTENT_RANGE).ok()??;
    let Some(ContentRange::Bytes(range, total)) = content_range(value) else {
        return None;
    };
    let fits = match length(headers).ok()? {
        None => true,
        Some(length) => is_chunked(headers) || length == range.end - range.start,
    };
    (range.start == wanted && fits).then(|| named(headers, wanted, total))
}

fn named(headers: &HeaderMap, from: u64, total: Option<u64>) -> Head {
    Head {
        from,
        total,
        etag: text(headers, &http::header::ETAG),
        last_modified: text(headers, &http::header::LAST_MODIFIED),
    }
}

fn is_chunked(headers: &HeaderMap) -> bool {
    headers.get_all(TRANSFER_ENCODING).iter().any(|coding| {
        let coding = coding.to_str().unwrap_or_default();
        coding
            .split(',')
            .any(|coding| coding.trim().eq_ignore_ascii_case("chunked"))
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::error::Kind;
    use crate::links::Refusal;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let lines = lines.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        lines.collect()
    }

    fn judged(status: u16, lines: &[(&'static str, &'static str)], ask: &Ask) -> Verdict<Head> {
        judge(
            StatusCode::from_u16(status).unwrap(),
            &headers(lines),
            None,
            ask,
        )
    }

    fn rest(from: u64) -> Ask {
        Ask::Rest {
            from,
            if_range: None,
        }
    }

    #[test]
    fn a_body_must_tell_where_it_ends() {
        let total = |lines: &[(&'static str, &'static str)]| match judged(200, lines, &Ask::Whole) {
            Verdict::Accept(head) => Ok(head.total),
            Verdict::Protocol(why) => Err(why),
            other => panic!("{other:?}"),
        };
        assert_eq!(total(&[("content-length", "7")]), Ok(Some(7)));
        assert_eq!(total(&[("transfer-encoding", "chunked")]), Ok(None));
        let both = [("transfer-encoding", "Chunked"), ("content-length", "7")];
        assert_eq!(total(&both), Ok(None));
        assert!(total(&[]).unwrap_err().contains("neither"));
        assert!(total(&[("content-length", "x")]).is_err());
        assert!(total(&[("content-length", "9223372036854775808")]).is_err());
        assert!(total(&[("content-length", "7"), ("content-encoding", "gzip")]).is_err());
    }

    #[test]
    fn the_rest_begins_where_it_was_asked_to() {
        let accepted = |lines: &[(&'static str, &'static str)]| {
            matches!(judged(206, lines, &rest(5)), Verdict::Accept(_))
        };
        assert!(accepted(&[
            ("content-range", "bytes 5-9/10"),
            ("content-length", "5")
        ]));
        assert!(accepted(&[("content-range", "bytes 5-9/*")]));
        for useless in [
            &[("content-range", "bytes 4-9/10")][..],
            &[("content-range", "bytes 6-9/10")],
            &[("content-range", "bytes 5-9/10"), ("content-length", "4")],
            &[("content-range", "bytes */10")],
            &[("content-range", "items 5-9/10")],
            &[],
        ] {
            assert_eq!(
                judged(206, useless, &rest(5)),
                Verdict::Changed,
                "{useless:?}"
            );
        }
        for status in [412, 416] {
            assert_eq!(judged(status, &[], &rest(5)), Verdict::Changed);
        }
        let whole = judged(200, &[("content-length", "10")], &rest(5));
        assert!(matches!(whole, Verdict::Accept(Head { from: 0, .. })));
        let part = judged(206, &[("content-range", "bytes 0-9/10")], &Ask::Whole);
        assert!(matches!(part, Verdict::Protocol(_)));
    }

    #[test]
    fn a_link_that_was_used_up_is_refused_and_trouble_passes() {
        for ask in [Ask::Whole, rest(5)] {
            for (status, verdict) in [
                (404, Verdict::Refused(Refusal::Gone)),
                (410, Verdict::Refused(Refusal::Gone)),
                (403, Verdict::Refused(Refusal::Denied)),
                (503, Verdict::Retry(Kind::Unavailable)),
            ] {
                assert_eq!(judged(status, &[], &ask), verdict, "{status}");
            }
        }
    }

    #[test]
    fn only_a_strong_tag_or_a_length_proves_the_same_bytes() {
        let head = |etag: &str, time: &str, total| Head {
            from: 0,
            total,
            etag: (!etag.is_empty()).then(|| etag.to_owned()),
            last_modified: (!time.is_empty()).then(|| time.to_owned()),
        };
        let (a, b) = (Some(10), Some(11));
        for (before, after, proven) in [
            (head("\"x\"", "", None), head("\"x\"", "", None), true),
            (head("\"x\"", "", a), head("\"x\"", "", a), true),
            (head("\"x\"", "", a), head("\"x\"", "", b), false),
            (head("\"x\"", "", a), head("\"y\"", "", a), false),
            (head("\"x\"", "", a), head("", "", a), false),
            (head("W/\"x\"", "", None), head("W/\"x\"", "", None), false),
            (head("W/\"x\"", "", a), head("W/\"x\"", "", a), true),
            (head("W/\"x\"", "t", a), head("W/\"x\"", "u", a), false),
            (head("", "t", None), head("", "t", None), false),
            (head("", "t", a), head("", "t", a), true),
            (head("", "t", a), head("", "u", a), false),
            (head("", "", a), head("", "", a), true),
            (head("", "", a), head("", "", None), false),
            (head("", "", None), head("", "", a), false),
            (head("", "", None), head("", "", None), false),
        ] {
            assert_eq!(
                before.is_continued_by(&after),
                proven,
                "{before:?} {after:?}"
            );
            assert!(!proven || before.can_be_continued());
        }
    }
}
