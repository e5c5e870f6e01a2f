//! What may go wrong, and when: a list of [`Rule`]s, each one [`Fault`] with a filter.
//!
//! This file decides which faults meet a request; `gate.rs` makes most of them happen, and the
//! host handles those that only it can (see [`Injected`]). A new fault is one variant of [`Fault`],
//! its [`Phase`] and one arm there. Chances are drawn from a seed, in the order of the requests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::content::mix;

/// One way in which a request goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    /// The request is handled only after this long.
    Latency {
        /// Milliseconds.
        ms: u64,
    },
    /// The connection stays open and nothing is ever answered.
    Hang,
    /// This status instead of an answer, without effect.
    Status {
        /// The HTTP status code.
        code: u16,
        /// The `Retry-After` header, verbatim.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// The connection is closed instead of an answer, without effect.
    Sever,
    /// A redirect.
    Redirect {
        /// The HTTP status code.
        code: u16,
        /// The `Location` header, verbatim.
        location: String,
    },
    /// 200 with the HTML of a login page.
    LoginPage,
    /// The cloud's own error document, once the request has proved who sent it.
    ApiError {
        /// The HTTP status code.
        status: u16,
        /// The cloud's error code.
        code: String,
    },
    /// The nonce of a valid Digest answer is called stale.
    StaleNonce,
    /// Every proof of identity is answered by another challenge.
    Unauthorized,
    /// `Range` is ignored: 200 and the whole object.
    IgnoreRange,
    /// `If-Match` is ignored and the answer carries this ETag (with its quotes).
    OtherEtag {
        /// The header's value.
        etag: String,
    },

    /// The request has its effect, then this status is answered.
    LoseAnswer {
        /// The HTTP status code.
        code: u16,
    },
    /// The request has its effect, then the connection is closed instead of an answer.
    SeverAnswer,
    /// The request has its effect, then nothing is ever answered.
    HoldAnswer,
    /// The connection is closed after this many bytes of the body.
    Cut {
        /// Bytes that are still sent; to a slow reader, up to 8 KiB less.
        after: u64,
    },
    /// The body is sent at this rate.
    Throttle {
        /// The rate.
        bytes_per_second: u64,
    },
    /// `Content-Range` names a range this many bytes further on.
    ShiftRange {
        /// Bytes.
        by: u64,
    },
    /// A whole message whose body lacks its last bytes.
    ShortBody {
        /// Bytes missing.
        by: u64,
    },
    /// A whole message whose body has bytes too many.
    LongBody {
        /// Bytes too many.
        by: u64,
    },
    /// A header of the answer is replaced, for example `content-encoding` by `gzip`; an empty value
    /// removes it.
    Header {
        /// The header's name.
        name: String,
        /// Its value.
        value: String,
    },
}

/// When a fault takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Before the request is handled.
    Request,
    /// After it was handled with success; a refusal passes unchanged and uses nothing up.
    Answer,
}

impl Fault {
    fn phase(&self) -> Phase {
        match self {
            Fault::Latency { .. }
            | Fault::Hang
            | Fault::Status { .. }
            | Fault::Sever
            | Fault::Redirect { .. }
            | Fault::LoginPage
            | Fault::ApiError { .. }
            | Fault::StaleNonce
            | Fault::Unauthorized
            | Fault::IgnoreRange
            | Fault::OtherEtag { .. } => Phase::Request,
            Fault::LoseAnswer { .. }
            | Fault::SeverAnswer
            | Fault::HoldAnswer
            | Fault::Cut { .. }
            | Fault::Throttle { .. }
            | Fault::ShiftRange { .. }
            | Fault::ShortBody { .. }
            | Fault::LongBody { .. }
            | Fault::Header { .. } => Phase::Answer,
        }
    }

    /// Whether nothing can go wrong after it.
    fn is_final(&self) -> bool {
        matches!(
            self,
            Fault::Hang
                | Fault::Status { .. }
                | Fault::Sever
                | Fault::Redirect { .. }
                | Fault::LoginPage
                | Fault::LoseAnswer { .. }
                | Fault::SeverAnswer
                | Fault::HoldAnswer
        )
    }
}

/// Faults that the host itself brings about; the gate leaves them in the request's extensions.
#[derive(Debug, Clone, Default)]
pub(super) struct Injected(pub(super) Vec<Fault>);

/// Which hosts a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The clouds' APIs.
    Api,
    /// The hosts that serve artifacts.
    Data,
}

/// A fault and which requests meet it. Without any filter: every request, for ever.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    fault: Fault,
    #[serde(default)]
    side: Option<Side>,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    skip: u64,
    #[serde(default)]
    times: Option<u64>,
    #[serde(default = "always")]
    chance: f64,
}

fn always() -> f64 {
    1.0
}

impl Rule {
    /// `fault`, for every request.
    pub fn new(fault: Fault) -> Self {
        Rule {
            fault,
            side: None,
            method: None,
            path: None,
            skip: 0,
            times: None,
            chance: 1.0,
        }
    }

    /// Only requests to hosts of this kind.
    pub fn on(mut self, side: Side) -> Self {
        self.side = Some(side);
        self
    }

    /// Only requests with this method.
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only requests whose path and query contain `part`.
    pub fn path(mut self, part: &str) -> Self {
        self.path = Some(part.to_owned());
        self
    }

    /// Lets this many matching requests pass first.
    pub fn skip(mut self, requests: u64) -> Self {
        self.skip = requests;
        self
    }

    /// Takes effect at most this often.
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// Takes effect for this share of the matching requests, 0 to 1.
    pub fn chance(mut self, chance: f64) -> Self {
        self.chance = chance;
        self
    }

    fn is_about(&self, side: Side, method: &str, target: &str) -> bool {
        self.side.is_none_or(|s| s == side)
            && self.method.as_deref().is_none_or(|m| m == method)
            && self.path.as_deref().is_none_or(|p| target.contains(p))
    }
}

impl From<Fault> for Rule {
    fn from(fault: Fault) -> Self {
        Rule::new(fault)
    }
}

/// The rules in force. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    draws: u64,
    seed: u64,
}

impl Faults {
    pub(super) fn seeded(seed: u64) -> Self {
        let faults = Faults::default();
        faults.state().seed = seed;
        faults
    }

    /// Adds a rule. The rules that match a request take effect in the order they were added, up to
    /// the first that leaves nothing to go wrong.
    pub fn add(&self, rule: impl Into<Rule>) {
        self.state().rules.push(rule.into());
    }

    /// Drops every rule.
    pub fn clear(&self) {
        self.state().rules.clear();
    }

    /// The rules in force, with what is left of their counts.
    pub fn rules(&self) -> Vec<Rule> {
        self.state().rules.clone()
    }

    /// The faults of `phase` that this request meets; their counts are used up.
    pub(super) fn meet(&self, phase: Phase, side: Side, method: &str, target: &str) -> Vec<Fault> {
        let State { rules, draws, seed } = &mut *self.state();
        let mut met = Vec::new();
        for rule in rules {
            if rule.fault.phase() != phase
                || rule.times == Some(0)
                || !rule.is_about(side, method, target)
            {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            *draws += 1;
            let draw = (mix(*seed ^ mix(*draws)) >> 11) as f64 / (1u64 << 53) as f64;
            if draw < rule.chance {
                rule.times = rule.times.map(|left| left - 1);
                met.push(rule.fault.clone());
                if rule.fault.is_final() {
                    break;
                }
            }
        }
        met
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(faults: &Faults, side: Side, method: &str, target: &str) -> usize {
        faults.meet(Phase::Request, side, method, target).len()
    }

    #[test]
    fn filters_counts_and_skips() {
        let faults = Faults::seeded(1);
        faults.add(
            Rule::new(Fault::Hang)
                .on(Side::Api)
                .method("POST")
                .path("/download")
                .skip(1)
                .times(2),
        );
        assert_eq!(hits(&faults, Side::Data, "POST", "/a/download"), 0);
        assert_eq!(hits(&faults, Side::Api, "GET", "/a/download"), 0);
        assert_eq!(hits(&faults, Side::Api, "POST", "/a"), 0);
        let met: Vec<usize> = (0..4)
            .map(|_| hits(&faults, Side::Api, "POST", "/a/download"))
            .collect();
        assert_eq!(met, [0, 1, 1, 0]);
        faults.clear();
        faults.add(Rule::new(Fault::Latency { ms: 1 }));
        faults.add(Rule::new(Fault::Hang).times(1));
        faults.add(Rule::new(Fault::Sever).times(1));
        let met: Vec<usize> = (0..3)
            .map(|_| hits(&faults, Side::Api, "GET", "/"))
            .collect();
        assert_eq!(met, [2, 2, 1], "one end to a request");
    }

    #[test]
    fn a_chance_comes_from_the_seed() {
        let run = |seed| {
            let faults = Faults::seeded(seed);
            faults.add(Rule::new(Fault::Sever).chance(0.2));
            (0..2000)
                .map(|_| hits(&faults, Side::Data, "GET", "/"))
                .collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        let share = run(1).iter().sum::<usize>() as f64 / 2000.0;
        assert!((0.15..0.25).contains(&share), "{share}");
    }

    #[test]
    fn rules_are_written_as_json() {
        let text = r#"{"fault":{"kind":"status","code":503,"retry_after":"7"},"side":"api",
                       "path":"pageNum=2","times":1}"#;
        let rule: Rule = serde_json::from_str(text).unwrap();
        assert_eq!(
            rule.fault,
            Fault::Status {
                code: 503,
                retry_after: Some("7".into())
            }
        );
        assert_eq!((rule.times, rule.skip, rule.chance), (Some(1), 0, 1.0));
        assert!(serde_json::from_str::<Rule>(r#"{"fault":{"kind":"hang"},"oftn":1}"#).is_err());
    }
}
