//! Who is asking: HTTP Digest with an API key, or a service account's bearer token (OAuth 2 client
//! credentials, RFC 6749 section 4.4). Owns the nonces and tokens, under one lock.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::super::faults::Fault;
use super::super::{hex, random};
use super::answer;
use super::digest::{self, Nonces, Proof, Standing};
use super::estate::Account;
use super::knobs::Knobs;
use crate::secret::Secret;
use crate::sim::bill::Secrets;

/// The account's keys and everything issued against them.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) public: String,
    pub(super) private: Secret,
    pub(super) client_id: String,
    pub(super) client_secret: Secret,
    sessions: Mutex<Sessions>,
    /// Where the keys and what is issued against them are noted.
    secrets: Secrets,
}

#[derive(Debug, Default)]
struct Sessions {
    nonces: Nonces,
    /// Token to its expiry.
    tokens: HashMap<String, Timestamp>,
}

impl Keys {
    /// The keys of `account`; those it does not name are drawn. All are noted in `secrets`.
    pub(super) fn of(account: &Account, secrets: &Secrets) -> io::Result<Self> {
        let bytes = random::<64>()?;
        let drawn = hex(&bytes);
        // Real public keys are eight letters.
        let letters = bytes[56..].iter().map(|byte| (b'a' + byte % 26) as char);
        let uuid = [8..16, 16..20, 20..24, 24..28, 28..40].map(|part| &drawn[part]);
        let secret = |given: &Option<Secret>, text: String| {
            given.clone().unwrap_or_else(|| Secret::new(text))
        };
        let keys = Keys {
            public: account
                .public_key
                .clone()
                .unwrap_or_else(|| letters.collect()),
            private: secret(&account.private_key, uuid.join("-")),
            client_id: account
                .client_id
                .clone()
                .unwrap_or_else(|| format!("mdb_sa_id_{}", &drawn[40..64])),
            client_secret: secret(
                &account.client_secret,
                format!("mdb_sa_sk_{}", &drawn[64..104]),
            ),
            sessions: Mutex::default(),
            secrets: secrets.clone(),
        };
        let Keys {
            public, client_id, ..
        } = &keys;
        let (private, client_secret) = (keys.private.expose(), keys.client_secret.expose());
        for each in [public, private, client_id, client_secret] {
            secrets.add(each);
        }
        Ok(keys)
    }

    /// Forgets every nonce and token.
    pub(super) fn forget_sessions(&self) {
        *self.sessions() = Sessions::default();
    }

    /// The challenge to answer with, unless the request proves who sent it.
    pub(super) fn challenge(
        &self,
        request: &Parts,
        faults: &[Fault],
        now: Timestamp,
        knobs: &Knobs,
    ) -> Option<Response> {
        let header = authorization(&request.headers);
        let mut sessions = self.sessions();
        let token = header.strip_prefix("Bearer ");
        if let Some(expires) = token.and_then(|token| sessions.tokens.get(token))
            && now < *expires
            && !faults.contains(&Fault::Unauthorized)
        {
            return None;
        }
        let target = request.uri.path_and_query().map_or("/", |t| t.as_str());
        let method = request.method.as_str();
        let stale = match Proof::parse(header) {
            Some(proof) if proof.holds(method, target, &self.public, self.private.expose()) => {
                let standing = sessions.nonces.standing(
                    &proof,
                    now,
                    knobs.nonce_life,
                    knobs.refuse_reused_counts,
                );
                let forced = faults.contains(&Fault::StaleNonce);
                if standing == Standing::Fresh && !forced && !faults.contains(&Fault::Unauthorized)
                {
                    return None;
                }
                standing == Standing::Stale || forced
            }
            _ => false,
        };
        // 24 bytes are the 32 characters of a recorded nonce.
        let nonce = random::<24>().map(|bytes| BASE64_STANDARD.encode(bytes));
        let Ok(nonce) = nonce else {
            return Some(StatusCode::INTERNAL_SERVER_ERROR.into_response());
        };
        self.secrets.add(&nonce);
        sessions.nonces.issue(nonce.clone(), now);
        Some(answer::challenge(&digest::challenge(&nonce, stale)))
    }

    /// `POST /api/oauth/token`.
    pub(super) fn token(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
        knobs: &Knobs,
    ) -> Response {
        let form: HashMap<_, _> = url::form_urlencoded::parse(body).into_owned().collect();
        match form.get("grant_type").map(String::as_str) {
            None => return refusal(400, "invalid_request", "grant_type is missing."),
            Some("client_credentials") => {}
            Some(_) => {
                return refusal(400, "unsupported_grant_type", "Only client_credentials.");
            }
        }
        if !self.is_client(authorization(headers)) {
            return refusal(401, "invalid_client", "Invalid credentials provided.");
        }
        let Ok(bytes) = random::<32>() else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let token = hex(&bytes);
        self.secrets.add(&token);
        let mut sessions = self.sessions();
        sessions.tokens.retain(|_, expires| now < *expires);
        sessions
            .tokens
            .insert(token.clone(), now + knobs.token_life);
        drop(sessions);
        axum::Json(json!({
            "access_token": token,
            "expires_in": knobs.token_life.as_secs(),
            "token_type": "Bearer",
        }))
        .into_response()
    }

    /// `POST /api/oauth/revoke`.
    pub(super) fn revoke(&self, headers: &HeaderMap, body: &[u8]) -> Response {
        if !self.is_client(authorization(headers)) {
            return refusal(401, "invalid_client", "Invalid credentials provided.");
        }
        let mut sessions = self.sessions();
        for (name, value) in url::form_urlencoded::parse(body) {
            if name == "token" {
                sessions.tokens.remove(&*value);
            }
        }
        StatusCode::OK.into_response()
    }

    /// Whether `header` is the service account's Basic proof. Clients may percent-encode both
    /// parts (RFC 6749, section 2.3.1).
    fn is_client(&self, header: &str) -> bool {
        let Some(decoded) = header
            .strip_prefix("Basic ")
            .and_then(|text| BASE64_STANDARD.decode(text).ok())
            .and_then(|bytes| String::from_utf8(bytes).ok())
        else {
            return false;
        };
        let Some((id, secret)) = decoded.split_once(':') else {
            return false;
        };
        let decode = |text| percent_decode_str(text).decode_utf8_lossy();
        decode(id) == self.client_id && decode(secret) == self.client_secret.expose()
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn authorization(headers: &HeaderMap) -> &str {
    headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

fn refusal(status: u16, error: &str, description: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let document = json!({"error": error, "error_description": description});
    (status, axum::Json(document)).into_response()
}
