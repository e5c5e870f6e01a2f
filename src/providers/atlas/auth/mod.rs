//! How Atlas requests are authenticated: API keys by HTTP Digest, service accounts by OAuth 2.

mod api_key;
mod digest;
mod service_account;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use url::Url;

use self::api_key::{ApiKey, DigestSession};
use self::service_account::{BearerSession, ServiceAccount};
use crate::config::AtlasAuth;
use crate::error::Result;
use crate::providers::http::{Answer, Api, Budget, Call, Dialect, Verdict};

/// An account's way to authenticate. Prints nothing of its secrets.
pub(super) enum Auth {
    ApiKey(ApiKey),
    ServiceAccount(ServiceAccount),
}

impl Auth {
    pub(super) fn new(config: &AtlasAuth, endpoint: &Url, api: Arc<Api>) -> Self {
        match config.clone() {
            AtlasAuth::ApiKey {
                public_key,
                private_key,
            } => Auth::ApiKey(ApiKey::new(public_key, private_key)),
            AtlasAuth::ServiceAccount {
                client_id,
                client_secret,
            } => {
                let endpoint = endpoint.clone();
                Auth::ServiceAccount(ServiceAccount::new(client_id, client_secret, endpoint, api))
            }
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
