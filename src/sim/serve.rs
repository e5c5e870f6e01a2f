//! A loopback HTTP/1.1 server whose connections can be cut: what axum's own server cannot do.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tower::ServiceExt;

use super::bill::Meter;
use super::gate::Severed;

/// Bytes of an answer that may wait to be sent, and so be lost when its connection is cut; hyper
/// allows no less.
const UNSENT: usize = 8192;

/// A listening host. Dropping it closes the listener and every connection.
#[derive(Debug)]
pub(super) struct Host {
    accepting: JoinHandle<()>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Listens on `address`; returns the address with its real port.
pub(super) async fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves `router` to every connection of `listener`.
pub(super) fn serve(listener: TcpListener, router: Router, meter: Meter) -> Host {
    let accepting = tokio::spawn(async move {
        // Dropped with this task, and the connections with it.
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else {
                        // Out of descriptors: some are about to be closed.
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        continue;
                    };
                    meter.bill().connections += 1;
                    connections.spawn(converse(stream, router.clone()));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    });
    Host { accepting }
}

/// One connection, until either side closes it.
async fn converse(stream: TcpStream, router: Router) {
    // Bodies are written in pieces; waiting to fill segments would only add delay.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = router.clone().oneshot(request.map(Body::new));
        async move {
            let Ok(answer): Result<Response, Infallible> = answer.await;
            match answer.extensions().get::<Severed>() {
                // An error makes hyper close the connection without an answer.
                Some(_) => Err(Cut),
                None => Ok(answer),
            }
        }
    });
    // How a connection ends is the client's concern; the bill has what was asked.
    let _ = http1::Builder::new()
        .title_case_headers(true)
        .max_buf_size(UNSENT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

#[derive(Debug)]
struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut by a fault")
    }
}

impl std::error::Error for Cut {}
