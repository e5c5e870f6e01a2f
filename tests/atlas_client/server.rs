//! A scripted API server over bare sockets, and the strictest digest verifier we could think of.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

use md5::{Digest as _, Md5};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Path and query, as on the request line.
    pub target: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A query parameter, undecoded.
    pub fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }
}

/// What is sent back.
#[derive(Debug, Clone)]
pub enum Reply {
    Full {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: String,
    },
    /// The connection closes without a word.
    Cut,
    /// A success whose body breaks off.
    Half,
}

impl Reply {
    pub fn json(status: u16, body: impl Into<String>) -> Self {
        Reply::Full {
            status,
            headers: vec![("Content-Type", "application/json".into())],
            body: body.into(),
        }
    }

    pub fn list(items: &[String]) -> Self {
        Self::json(
            200,
            format!(
                r#"{{"links":[{{"rel":"self","href":"http://elsewhere/"}}],"results":[{}],"totalCount":{}}}"#,
                items.join(","),
                items.len()
            ),
        )
    }

    pub fn refusal(status: u16, code: &str) -> Self {
        Self::json(
            status,
            format!(
                r#"{{"error":{status},"errorCode":"{code}","detail":"No.","parameters":["x",5]}}"#
            ),
        )
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if let Reply::Full { headers, .. } = &mut self {
            headers.push((name, value.into()));
        }
        self
    }
}

/// A running server. What it was sent is kept.
pub struct Server {
    pub origin: String,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers each request by `script`, which is also given the request's number, from 0.
    pub async fn start(script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::launch(None, script).await
    }

    /// The same behind TLS, as `localhost`.
    pub async fn start_tls(
        tls: TlsAcceptor,
        script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::launch(Some(tls), script).await
    }

    async fn launch(
        tls: Option<TlsAcceptor>,
        script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let origin = match tls {
            None => format!("http://{address}"),
            Some(_) => format!("https://localhost:{}", address.port()),
        };
        let log = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(script);
        let kept = log.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, script, log) = (tls.clone(), script.clone(), kept.clone());
                tokio::spawn(async move {
                    // A client that hangs up ends its connection, not the test.
                    let _ = match tls {
                        None => serve(stream, &*script, &log).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &*script, &log).await,
                            Err(refused) => Err(refused),
                        },
                    };
                });
            }
        });
        Server { origin, log }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    pub fn count(&self, matching: impl Fn(&Request) -> bool) -> usize {
        self.requests().iter().filter(|r| matching(r)).count()
    }

    /// Requests that carried credentials.
    pub fn authorized(&self) -> Vec<Request> {
        let mut requests = self.requests();
        requests.retain(|r| !r.header("authorization").is_empty());
        requests
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    script: &(impl Fn(&Request, usize) -> Reply + ?Sized),
    log: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    let mut stream = BufStream::new(stream);
    while let Some(request) = read(&mut stream).await? {
        let number = {
            let mut log = log.lock().unwrap();
            log.push(request.clone());
            log.len() - 1
        };
        match script(&request, number) {
            Reply::Full {
                status,
                headers,
                body,
            } => {
                let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
                for (name, value) in headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(b"\r\n").await?;
                stream.write_all(body.as_bytes()).await?;
                stream.flush().await?;
            }
            Reply::Cut => return Ok(()),
            Reply::Half => {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"id\":")
                    .await?;
                stream.flush().await?;
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn read(
    stream: &mut BufStream<impl AsyncRead + AsyncWrite + Unpin>,
) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let mut request = Request {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: BTreeMap::new(),
        body: String::new(),
    };
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        request
            .headers
            .insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = request.header("content-length").parse().unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    request.body = String::from_utf8(body).unwrap();
    Ok(Some(request))
}

pub const USER: &str = "abcdefgh";
pub const PASSWORD: &str = "11111111-2222-3333-4444-555555555555";

/// Verifies digests: right response, right uri, and no count used twice with a nonce.
#[derive(Default)]
pub struct Verifier {
    /// How often a nonce may be used before it is stale; 0 for ever.
    uses_per_nonce: usize,
    /// Whether staleness is only shown by another nonce.
    silent_about_stale: bool,
    state: Mutex<VerifierState>,
}

#[derive(Default)]
struct VerifierState {
    generation: usize,
    used: HashSet<(String, String)>,
    uses: usize,
}

impl Verifier {
    /// One whose nonces go stale after so many uses.
    pub fn forgetful(uses_per_nonce: usize, silent_about_stale: bool) -> Self {
        Verifier {
            uses_per_nonce,
            silent_about_stale,
            ..Verifier::default()
        }
    }

    /// The refusal to send, if the request is not authenticated.
    pub fn refuse(&self, request: &Request) -> Option<Reply> {
        let mut state = self.state.lock().unwrap();
        let nonce = format!("nonce{}", state.generation);
        let Some(fields) = request.header("authorization").strip_prefix("Digest ") else {
            return Some(challenge(&nonce, false));
        };
        let field = |name: &str| {
            fields
                .split(", ")
                .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
                .map(|value| value.trim_matches('"').to_owned())
                .unwrap_or_default()
        };
        if field("nonce") != nonce || (self.uses_per_nonce > 0 && state.uses >= self.uses_per_nonce)
        {
            if field("nonce") == nonce {
                state.generation += 1;
                state.uses = 0;
            }
            let nonce = format!("nonce{}", state.generation);
            return Some(challenge(&nonce, !self.silent_about_stale));
        }
        let ha1 = md5_hex(&format!("{USER}:MMS Public API:{PASSWORD}"));
        let ha2 = md5_hex(&format!("{}:{}", request.method, request.target));
        let (count, cnonce) = (field("nc"), field("cnonce"));
        let expected = md5_hex(&format!("{ha1}:{nonce}:{count}:{cnonce}:auth:{ha2}"));
        assert_eq!(field("uri"), request.target);
        assert_eq!(count.len(), 8, "{fields}");
        if field("response") != expected {
            return Some(challenge(&nonce, false));
        }
        assert!(state.used.insert((nonce, count)), "replayed: {fields}");
        state.uses += 1;
        None
    }
}

pub fn challenge(nonce: &str, stale: bool) -> Reply {
    Reply::json(
        401,
        r#"{"error":401,"reason":"Unauthorized","detail":"You are not authorized for this resource.","errorCode":"UNEXPECTED_ERROR"}"#,
    )
    .with(
        "Www-Authenticate",
        format!(
            r#"Digest realm="MMS Public API", domain="", nonce="{nonce}", algorithm=MD5, qop="auth", stale={stale}"#
        ),
    )
}

fn md5_hex(text: &str) -> String {
    Md5::digest(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
