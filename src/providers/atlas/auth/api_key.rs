//! API keys: HTTP Digest with one nonce for many calls.
//!
//! State: the nonces in use with their counts, behind a lock held for a few instructions, and a lock
//! that the call holds which fetches the first nonce for all. The second is taken without the first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{StatusCode, header};
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use super::digest::{Challenge, Response};
use crate::error::{Error, Kind, Result};
use crate::providers::http::{Answer, Call};
use crate::secret::Secret;

/// How long a call waits for another one's first challenge before it asks for its own.
const CHALLENGE_PATIENCE: Duration = Duration::from_secs(2);
/// Nonces kept: the current one and those of answers that crossed its renewal.
const NONCES: usize = 8;

/// A programmatic API key.
pub(in crate::providers::atlas) struct ApiKey {
    user: Secret,
    password: Secret,
    nonces: Mutex<Nonces>,
    /// Held by the call that fetches the first nonce, so that others need none of their own.
    first: Arc<tokio::sync::Mutex<()>>,
}

/// What one call remembers from attempt to attempt.
#[derive(Default)]
pub(super) struct DigestSession {
    /// The nonce of the last attempt; `None` if it went without.
    used: Option<String>,
    /// The challenge that the last attempt met: the next one answers it.
    met: Option<Challenge>,
    /// An authenticated attempt was refused without a word of staleness: a second time is final.
    refused: bool,
    /// Kept while this call fetches the first nonce for all.
    first: Option<OwnedMutexGuard<()>>,
}

impl ApiKey {
    pub(super) fn new(user: Secret, password: Secret) -> Self {
        ApiKey {
            user,
            password,
            nonces: Mutex::default(),
            first: Arc::default(),
        }
    }

    pub(super) async fn sign(&self, call: &mut Call, session: &mut DigestSession) -> Result<()> {
        let turn = match session.met.take() {
            Some(challenge) => Some(self.nonces().answer(challenge)),
            None => self.turn(session).await,
        };
        session.used = turn.as_ref().map(|(challenge, _)| challenge.nonce.clone());
        let Some((challenge, count)) = turn else {
            return Ok(());
        };
        let uri = match call.url.query() {
            Some(query) => format!("{}?{query}", call.url.path()),
            None => call.url.path().to_owned(),
        };
        let response = Response {
            user: &self.user,
            password: &self.password,
            method: call.method.as_str(),
            uri: &uri,
            count,
            cnonce: &client_nonce()?,
        };
        call.authorize(&response.authorization(&challenge))
    }

    /// The next use of the current nonce. `None` if there is no nonce yet: this call then goes
    /// without and meets a challenge, while others wait for it.
    async fn turn(&self, session: &mut DigestSession) -> Option<(Challenge, u32)> {
        let turn = self.nonces().next();
        if turn.is_some() || session.first.is_some() {
            return turn;
        }
        let first = timeout(CHALLENGE_PATIENCE, self.first.clone().lock_owned()).await;
        let turn = self.nonces().next();
        if turn.is_none() {
            session.first = first.ok();
        }
        turn
    }

    /// Looks at an answer; whether the same call, signed anew, may pass.
    pub(super) fn refused(&self, answer: &Answer, session: &mut DigestSession) -> bool {
        if answer.status != StatusCode::UNAUTHORIZED {
            if let Some(used) = &session.used {
                self.nonces().accept(used);
            }
            session.first = None;
            return false;
        }
        let again = self.meet(answer, session);
        if !again {
            session.first = None;
        }
        again
    }

    fn meet(&self, answer: &Answer, session: &mut DigestSession) -> bool {
        let Some(challenge) = challenge(answer) else {
            return false;
        };
        if let Some(used) = &session.used {
            self.nonces().forget(used);
            // A stale nonce says that the password was right. Otherwise a new nonce may mean the
            // same once; after that, or with the same nonce again, it is the password.
            if !challenge.stale {
                if session.refused || challenge.nonce == *used {
                    return false;
                }
                session.refused = true;
            }
        }
        session.met = Some(challenge);
        true
    }

    fn nonces(&self) -> MutexGuard<'_, Nonces> {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first challenge that can be answered, over all `WWW-Authenticate` headers.
fn challenge(answer: &Answer) -> Option<Challenge> {
    answer
        .headers
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .find_map(Challenge::parse)
}

fn client_nonce() -> Result<String> {
    let random = getrandom::u64().map_err(|error| {
        Error::new(Kind::Environment, "the system gives no random numbers")
            .with_source(std::io::Error::other(error.to_string()))
    })?;
    Ok(format!("{random:016x}"))
}

/// The nonces in use. A count is never given twice, and a nonce is shared with other calls only once
/// it has worked for the call that met it: a server may honour each nonce a single time.
#[derive(Default)]
struct Nonces {
    recent: VecDeque<Nonce>,
}

struct Nonce {
    challenge: Challenge,
    uses: u32,
    works: bool,
}

impl Nonce {
    fn turn(&mut self) -> (Challenge, u32) {
        self.uses += 1;
        (self.challenge.clone(), self.uses)
    }
}

impl Nonces {
    /// A use of the newest nonce that works.
    fn next(&mut self) -> Option<(Challenge, u32)> {
        self.recent.iter_mut().rfind(|n| n.works).map(Nonce::turn)
    }

    /// A use of this very challenge.
    fn answer(&mut self, challenge: Challenge) -> (Challenge, u32) {
        if let Some(known) = self.find(&challenge.nonce) {
            return known.turn();
        }
        if self.recent.len() == NONCES {
            self.recent.pop_front();
        }
        let mut nonce = Nonce {
            challenge,
            uses: 0,
            works: false,
        };
        let turn = nonce.turn();
        self.recent.push_back(nonce);
        turn
    }

    fn accept(&mut self, nonce: &str) {
        if let Some(known) = self.find(nonce) {
            known.works = true;
        }
    }

    fn forget(&mut self, nonce: &str) {
        if let Some(known) = self.find(nonce) {
            known.works = false;
        }
    }

    fn find(&mut self, nonce: &str) -> Option<&mut Nonce> {
        self.recent.iter_mut().find(|n| n.challenge.nonce == nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(nonce: &str) -> Challenge {
        Challenge::parse(&format!(r#"Digest realm="r", nonce="{nonce}", qop="auth""#)).unwrap()
    }

    fn turn((challenge, count): (Challenge, u32)) -> (String, u32) {
        (challenge.nonce, count)
    }

    #[test]
    fn counts_go_up_per_nonce_and_are_never_given_twice() {
        let mut nonces = Nonces::default();
        assert_eq!(turn(nonces.answer(challenge("a"))), ("a".into(), 1));
        // Two calls met the same challenge: each gets its own count.
        assert_eq!(turn(nonces.answer(challenge("a"))), ("a".into(), 2));
        nonces.accept("a");
        assert_eq!(turn(nonces.next().unwrap()), ("a".into(), 3));
        // A crossing answer refused the nonce, and it is met again: it counts on.
        nonces.forget("a");
        assert_eq!(turn(nonces.answer(challenge("a"))), ("a".into(), 4));
    }

    #[test]
    fn only_a_nonce_that_worked_is_shared() {
        let mut nonces = Nonces::default();
        nonces.answer(challenge("a"));
        assert!(nonces.next().is_none());
        nonces.accept("a");
        nonces.answer(challenge("b"));
        assert_eq!(turn(nonces.next().unwrap()), ("a".into(), 2));
        nonces.accept("b");
        assert_eq!(turn(nonces.next().unwrap()), ("b".into(), 2));
        nonces.forget("b");
        assert_eq!(turn(nonces.next().unwrap()), ("a".into(), 3));
    }

    #[test]
    fn few_nonces_are_kept() {
        let mut nonces = Nonces::default();
        for n in 0..100 {
            nonces.answer(challenge(&n.to_string()));
        }
        assert_eq!(nonces.recent.len(), NONCES);
    }
}
