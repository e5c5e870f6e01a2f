//! An API over HTTP/2 that goes away or refuses streams: what is asked is asked again, what creates
//! is not.
//!
//! The server speaks just enough of RFC 9113 and RFC 7541 for that: it reads frames, tells a POST
//! from a GET by the first byte of the header block, and answers with fixed frames.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mongo_backupfs::clock::SystemClock;
use mongo_backupfs::error::Kind;
use mongo_backupfs::providers;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::authority::Authority;
use crate::{api_key, cluster, config, shard, snapshot};

const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Indexed header fields of the static table: `:method: POST` and `:status: 200`.
const POST: u8 = 0x83;
const STATUS_200: u8 = 0x88;
/// The error code REFUSED_STREAM.
const REFUSED: u8 = 7;

/// What is done to a request.
#[derive(Debug, Clone, Copy)]
enum Act {
    Answer,
    /// RST_STREAM with REFUSED_STREAM: it was not processed.
    Refuse,
    /// GOAWAY that no stream was processed, and the end of the connection.
    GoAway,
    /// The end of the connection without a word.
    Close,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The requests that came, by whether each was a POST.
type Seen = Arc<Mutex<Vec<bool>>>;

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    script: &[Act],
    seen: &Seen,
) -> std::io::Result<()> {
    stream.read_exact(&mut [0; PREFACE]).await?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    stream.flush().await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let (kind, flags) = (head[3], head[4]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await?;
        match kind {
            SETTINGS if flags & ACK == 0 => stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await?,
            PING if flags & ACK == 0 => stream.write_all(&frame(PING, ACK, 0, &payload)).await?,
            HEADERS => {
                let number = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(payload[0] == POST);
                    seen.len() - 1
                };
                match script.get(number).unwrap_or(&Act::Answer) {
                    Act::Answer => {
                        let list = format!(r#"{{"results":[{}],"totalCount":1}}"#, snapshot("s1"));
                        let head = frame(HEADERS, END_HEADERS, id, &[STATUS_200]);
                        let body = frame(DATA, END_STREAM, id, list.as_bytes());
                        stream.write_all(&[head, body].concat()).await?;
                    }
                    Act::Refuse => {
                        let code = [0, 0, 0, REFUSED];
                        stream.write_all(&frame(RST_STREAM, 0, id, &code)).await?;
                    }
                    Act::GoAway => {
                        stream.write_all(&frame(GOAWAY, 0, 0, &[0; 8])).await?;
                        stream.flush().await?;
                        return stream.shutdown().await;
                    }
                    Act::Close => return stream.shutdown().await,
                }
            }
            _ => {}
        }
        stream.flush().await?;
    }
}

async fn start(tls: TlsAcceptor, script: Vec<Act>) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, script, seen) = (tls.clone(), script.clone(), Arc::clone(&kept));
            tokio::spawn(async move {
                let stream = tls.accept(stream).await?;
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                serve(stream, &script, &seen).await
            });
        }
    });
    (origin, seen)
}

#[tokio::test]
async fn case_33_http_2_going_away_is_asked_again_but_creates_nothing_twice() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    for act in [Act::Refuse, Act::GoAway, Act::Close] {
        let tls = authority.acceptor("localhost", 2100, &["h2"]);
        let (origin, seen) = start(tls, vec![act, Act::Answer, act, act, act]).await;
        let mut config = config(&origin, api_key(), Duration::from_secs(20));
        (config.allow_http, config.ca_file) = (false, Some(ca_file.clone()));
        let atlas = providers::build(&config, Arc::new(SystemClock)).unwrap();
        let backups = atlas.backups(&cluster()).await;
        assert_eq!(backups.unwrap().len(), 1, "{act:?}");
        assert_eq!(*seen.lock().unwrap(), [false, false], "{act:?}");
        let error = atlas.create_task(&shard()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::OutcomeUnknown, "{act:?}: {error}");
        assert_eq!(*seen.lock().unwrap(), [false, false, true], "{act:?}");
    }
}
