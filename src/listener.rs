//! Listeners: connections of HTTP/1.1 and HTTP/2 (with prior knowledge), held to time and bounds.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// From one request to the end of the next one's headers: longer than exporters keep a connection
/// in their pools (60 to 90 s, mostly used every few), so that a batch rarely meets a reset.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(75);
/// How often the other side of HTTP/2 is asked for a sign of life, and how long it may take.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Requests at once on one connection of HTTP/2.
const STREAMS_MAX: u32 = 250;
const HEADERS_BYTES_MAX: u32 = 32 << 10;
/// A pause when a connection can't be accepted: mostly there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens where it may do without: a port that is taken is no reason not to start.
pub async fn bind_optional(
    address: Option<SocketAddr>,
    setting: &'static str,
) -> Option<TcpListener> {
    let address = address?;
    TcpListener::bind(address)
        .await
        .inspect_err(|error| {
            tracing::warn!(
                %error,
                "can't listen on {address} and goes on without; set {setting} to another address or to off"
            );
        })
        .ok()
}

/// Answers connections until it is told to stop; then no new requests, and running ones finish.
pub async fn serve(listener: TcpListener, router: Router, mut stopped: watch::Receiver<bool>) {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX);
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let connection = connections.watch(serve_connection(&http, stream, router.clone()));
        tokio::spawn(async move {
            // A client that breaks the protocol or goes away is its own business.
            let _ = connection.await;
        });
    }
    drop(listener);
    connections.shutdown().await;
}

fn serve_connection(
    http: &auto::Builder<TokioExecutor>,
    stream: TcpStream,
    router: Router,
) -> auto::Connection<'static, TokioIo<TcpStream>, TowerToHyperService<Router>, TokioExecutor> {
    // Small answers must not wait for the client's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .into_owned()
}
