//! How Atlas requests are authenticated: API keys by HTTP Digest, service accounts by OAuth 2.
//!
//! State: the nonces in use with their counts, and the access token. Each has one lock; the nonces'
//! is held for a few instructions only, the token's while a token is fetched, so that callers share
//! one fetch.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{StatusCode, header};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout};
use url::Url;

use super::digest::{Challenge, Response};
use super::refusal::refused;
use super::wire::TokenGrant;
use crate::config::AtlasAuth;
use crate::error::{Error, Kind, Result};
use crate::providers::http::{Answer, Api, Budget, Call, Dialect, Effect, Verdict};
use crate::secret::Secret;

/// How long a call waits for another one's first challenge before it asks for its own.
const CHALLENGE_PATIENCE: Duration = Duration::from_secs(2);
/// Nonces kept: the current one and those of answers that crossed its renewal.
const NONCES: usize = 8;
/// Life of a token whose answer does not tell, as documented.
const TOKEN_LIFE: u64 = 3600;

/// An account's way to authenticate. Prints nothing of its secrets.
pub(super) enum Auth {
    ApiKey(ApiKey),
    ServiceAccount(ServiceAccount),
}

impl Auth {
    pub(super) fn new(config: &AtlasAuth, endpoint: &Url, api: Arc<Api>) -> Self {
        match config {
            AtlasAuth::ApiKey {
                public_key,
                private_key,
            } => Auth::ApiKey(ApiKey {
                user: public_key.clone(),
                password: private_key.clone(),
                nonces: Mutex::default(),
                first: Arc::default(),
            }),
            AtlasAuth::ServiceAccount {
                client_id,
                client_secret,
            } => Auth::ServiceAccount(ServiceAccount {
                endpoint: endpoint.clone(),
                client: Basic {
                    user: client_id.clone(),
                    password: client_secret.clone(),
                },
                token: tokio::sync::Mutex::default(),
                api,
            }),
        }
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Auth::ApiKey(_) => "ApiKey",
            Auth::ServiceAccount(_) => "ServiceAccount",
        })
    }
}

/// What one call remembers from attempt to attempt.
#[derive(Default)]
pub(super) struct Session {
    digest: DigestSession,
    bearer: BearerSession,
}

#[async_trait]
impl Dialect for Auth {
    type Session = Session;

    async fn sign(
        &self,
        call: &mut Call,
        session: &mut Session,
        _now: Timestamp,
        budget: &mut Budget,
    ) -> Result<()> {
        match self {
            Auth::ApiKey(key) => key.sign(call, &mut session.digest).await,
            Auth::ServiceAccount(account) => account.sign(call, &mut session.bearer, budget).await,
        }
    }

    fn judge(&self, answer: &Answer, session: &mut Session) -> Verdict {
        let again = match self {
            Auth::ApiKey(key) => key.refused(answer, &mut session.digest),
            Auth::ServiceAccount(account) => account.refused(answer, &mut session.bearer),
        };
        if again {
            Verdict::SignAgain
        } else {
            Verdict::of_status(answer.status)
        }
    }
}

/// A programmatic API key.
pub(super) struct ApiKey {
    user: Secret,
    password: Secret,
    nonces: Mutex<Nonces>,
    /// Held by the call that fetches the first nonce, so that others need none of their own.
    first: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct DigestSession {
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
    async fn sign(&self, call: &mut Call, session: &mut DigestSession) -> Result<()> {
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
    fn refused(&self, answer: &Answer, session: &mut DigestSession) -> bool {
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

/// A service account.
pub(super) struct ServiceAccount {
    endpoint: Url,
    client: Basic,
    token: tokio::sync::Mutex<Option<Token>>,
    api: Arc<Api>,
}

#[derive(Clone)]
struct Token {
    value: Secret,
    renew_at: Instant,
}

#[derive(Default)]
struct BearerSession {
    used: Option<Secret>,
    /// A token was refused: the next attempt fetches another, and a second refusal is final.
    refused: bool,
}

impl ServiceAccount {
    async fn sign(
        &self,
        call: &mut Call,
        session: &mut BearerSession,
        budget: &mut Budget,
    ) -> Result<()> {
        let refused = session.used.take().filter(|_| session.refused);
        let token = self.token(refused.as_ref(), budget).await?;
        call.authorize(&format!("Bearer {}", token.expose()))?;
        session.used = Some(token);
        Ok(())
    }

    /// A token expected to work, other than `refused`.
    async fn token(&self, refused: Option<&Secret>, budget: &mut Budget) -> Result<Secret> {
        let mut current = self.token.lock().await;
        if let Some(token) = current.as_ref()
            && token.renew_at > Instant::now()
            && Some(&token.value) != refused
        {
            return Ok(token.value.clone());
        }
        *current = None;
        let token = self.fetch(budget).await?;
        let value = token.value.clone();
        *current = Some(token);
        Ok(value)
    }

    async fn fetch(&self, budget: &mut Budget) -> Result<Token> {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["api", "oauth", "token"]);
        }
        let call = Call::post(
            url,
            Effect::Idempotent,
            "application/x-www-form-urlencoded",
            "grant_type=client_credentials".to_owned(),
        )
        .accept("application/json");
        let asked = Instant::now();
        let answer = self.api.call(&call, &self.client, budget).await?;
        let doing = "asking for an access token";
        if !answer.status.is_success() {
            // RFC 6749, 5.2: a refused client may be answered with 400 as well.
            let error = refused(&answer);
            return Err(match answer.status {
                StatusCode::BAD_REQUEST => Error::new(
                    Kind::Credentials,
                    format!("{error}; check `client_id` and `client_secret`: the secret may have expired"),
                ),
                _ => error,
            }
            .context(doing));
        }
        let grant: TokenGrant = answer.json().map_err(|error| error.context(doing))?;
        let life = Duration::from_secs(grant.expires_in.unwrap_or(TOKEN_LIFE));
        let now = Instant::now();
        Ok(Token {
            value: grant.access_token,
            renew_at: asked.checked_add(life.mul_f64(0.9)).unwrap_or(now),
        })
    }

    fn refused(&self, answer: &Answer, session: &mut BearerSession) -> bool {
        let first = answer.status == StatusCode::UNAUTHORIZED && !session.refused;
        session.refused |= first;
        first
    }
}

/// HTTP Basic, for the token endpoint alone.
struct Basic {
    user: Secret,
    password: Secret,
}

/// Everything but the unreserved characters (RFC 3986, 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

#[async_trait]
impl Dialect for Basic {
    type Session = ();

    async fn sign(
        &self,
        call: &mut Call,
        (): &mut (),
        _now: Timestamp,
        _budget: &mut Budget,
    ) -> Result<()> {
        // RFC 6749, 2.3.1: both parts are form-encoded first.
        let encode = |part: &Secret| utf8_percent_encode(part.expose(), RESERVED).to_string();
        let pair = format!("{}:{}", encode(&self.user), encode(&self.password));
        call.authorize(&format!("Basic {}", STANDARD.encode(pair)))
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
