//! Service accounts: OAuth 2 client credentials (RFC 6749, 4.4).
//!
//! State: the access token, behind a lock that is held while one is fetched, so that callers share
//! the fetch.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::Instant;
use url::Url;

use crate::error::{Error, Kind, Result};
use crate::providers::atlas::refusal::refused;
use crate::providers::atlas::wire::TokenGrant;
use crate::providers::http::{Answer, Api, Budget, Call, Dialect, Effect};
use crate::secret::Secret;

/// Life in seconds of a token whose answer does not tell, as documented.
const TOKEN_LIFE: u64 = 3600;

/// A service account.
pub(in crate::providers::atlas) struct ServiceAccount {
    endpoint: Url,
    client: Basic,
    token: tokio::sync::Mutex<Option<Token>>,
    api: Arc<Api>,
}

struct Token {
    value: Secret,
    renew_at: Instant,
}

/// What one call remembers from attempt to attempt.
#[derive(Default)]
pub(super) struct BearerSession {
    used: Option<Secret>,
    /// A token was refused: the next attempt fetches another, and a second refusal is final.
    refused: bool,
}

impl ServiceAccount {
    pub(super) fn new(id: Secret, secret: Secret, endpoint: Url, api: Arc<Api>) -> Self {
        ServiceAccount {
            endpoint,
            client: Basic {
                user: id,
                password: secret,
            },
            token: tokio::sync::Mutex::default(),
            api,
        }
    }

    pub(super) async fn sign(
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

    /// Looks at an answer; whether the same call with another token may pass.
    pub(super) fn refused(&self, answer: &Answer, session: &mut BearerSession) -> bool {
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
