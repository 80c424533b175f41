//! Peers that are slow, silent or too many, at times short enough for tests.

use super::*;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_mins(5);
/// A time that only runs out when something is broken.
const PATIENCE: Duration = Duration::from_mins(1);

/// Nothing runs out but what a test shortens.
fn patient() -> Timing {
    let allowance = Allowance {
        grace: LONG,
        bytes_per_second: 1 << 20,
    };
    Timing {
        opening: LONG,
        head: LONG,
        idle: LONG,
        body: allowance,
        answer: allowance,
    }
}

struct Running {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
}

async fn answer(request: Request) -> Response {
    match request.uri().path() {
        "/large" => Bytes::from(vec![0; 64 << 20]).into_response(),
        "/read" => match axum::body::to_bytes(request.into_body(), 1 << 20).await {
            Ok(bytes) => bytes.len().to_string().into_response(),
            Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
        },
        "/refuse" => StatusCode::UNAUTHORIZED.into_response(),
        _ => "ok".into_response(),
    }
}

async fn start(timing: Timing, limits: ConnectionLimits) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(answer);
    let (stop, stopped) = watch::channel(false);
    let connections = Connections::new(limits);
    let serving = tokio::spawn(serve_at(timing, listener, router, connections, stopped));
    Running {
        address,
        stop,
        serving,
    }
}

async fn start_at(timing: Timing) -> Running {
    let none = ConnectionLimits {
        all: 0,
        of_address: 0,
    };
    start(timing, none).await
}

impl Running {
    async fn connect(&self, first: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(first).await.unwrap();
        stream
    }
}

/// What the server says until it closes the connection.
async fn heard(stream: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    let read = stream.read_to_end(&mut heard);
    let outcome = tokio::time::timeout(PATIENCE, read).await;
    // A reset is an end too.
    let _ = outcome.expect("the connection is still open");
    String::from_utf8_lossy(&heard).into_owned()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty frame of SETTINGS.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

#[tokio::test]
async fn silent_connections_are_closed() {
    let opening = start_at(Timing {
        opening: SHORT,
        ..patient()
    })
    .await;
    for first in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n"] {
        let mut stream = opening.connect(first).await;
        assert_eq!(heard(&mut stream).await, "", "{first:?}");
    }
    let head = start_at(Timing {
        head: SHORT,
        ..patient()
    })
    .await;
    let mut stream = head.connect(b"GET / HTTP/1.1\r\nhost: x\r\n").await;
    assert_eq!(heard(&mut stream).await, "");
    // The second head of a connection too.
    let mut stream = head.connect(GET).await;
    let mut answer = vec![0; 15];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200 OK");
    stream.write_all(b"GET / HTTP").await.unwrap();
    heard(&mut stream).await;
    let idle = start_at(Timing {
        idle: SHORT,
        ..patient()
    })
    .await;
    let mut stream = idle.connect(GET).await;
    assert!(heard(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
    let mut stream = idle.connect(&[PREFACE, SETTINGS].concat()).await;
    heard(&mut stream).await;
}

#[tokio::test]
async fn bodies_arrive_at_a_least_rate() {
    let running = start_at(Timing {
        body: Allowance {
            grace: SHORT,
            bytes_per_second: 1 << 20,
        },
        ..patient()
    })
    .await;
    for framing in ["content-length: 21000000", "transfer-encoding: chunked"] {
        let head = format!("POST /read HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n");
        let mut stream = running.connect(head.as_bytes()).await;
        let heard = heard(&mut stream).await;
        assert!(heard.starts_with("HTTP/1.1 408"), "{heard}");
        assert!(heard.contains("connection: close"), "{heard}");
    }
}

fn is_too_slow() -> Timing {
    Timing {
        answer: Allowance {
            grace: SHORT,
            bytes_per_second: 1 << 30,
        },
        ..patient()
    }
}

#[tokio::test]
async fn answers_are_taken_at_a_least_rate() {
    let running = start_at(is_too_slow()).await;
    let mut stream = running
        .connect(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    // The server closes although nothing was read: all that its and our buffers hold is what we get.
    let began = std::time::Instant::now();
    while !is_closed(&stream).await {
        assert!(began.elapsed() < PATIENCE, "the connection is still open");
    }
    let heard = heard(&mut stream).await;
    assert!(heard.len() < 64 << 20);
}

/// Whether the other side has closed: what is written to it is answered with a reset sooner or later.
async fn is_closed(stream: &TcpStream) -> bool {
    tokio::time::sleep(Duration::from_millis(20)).await;
    stream
        .try_write(b"x")
        .is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
}

/// A peer that answers pings and never opens its window loses the stream, not the connection.
#[tokio::test]
async fn streams_whose_window_stays_shut_are_reset() {
    let running = start_at(is_too_slow()).await;
    let stream = running.connect(b"").await;
    let io = hyper_util::rt::TokioIo::new(stream);
    let mut client = hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
    client.initial_stream_window_size(1000);
    let (mut send, connection) = client.handshake(io).await.unwrap();
    tokio::spawn(connection);
    let ask = |path: &str| {
        axum::http::Request::get(format!("http://x{path}"))
            .body(String::new())
            .unwrap()
    };
    let stalled = send.send_request(ask("/large")).await.unwrap();
    // Its body is not read: its window stays shut. Others get through meanwhile and after that.
    let other = send.send_request(ask("/")).await.unwrap();
    assert_eq!(other.status(), 200);
    let mut body = stalled.into_body();
    let read = async {
        use http_body_util::BodyExt;
        tokio::time::sleep(SHORT * 5).await;
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return true;
            }
        }
        false
    };
    assert!(
        read.await,
        "the whole answer was given to a peer that stood still"
    );
    let other = send.send_request(ask("/")).await.unwrap();
    assert_eq!(other.status(), 200);
}

/// A client that writes all of its body before it reads gets to see why that is refused.
#[tokio::test]
async fn senders_of_refused_bodies_see_the_answer() {
    let running = start_at(patient()).await;
    for bytes in [100 << 10, 5 << 20] {
        let head = format!("POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: {bytes}\r\n\r\n");
        let mut stream = running.connect(head.as_bytes()).await;
        stream.write_all(&vec![0; bytes]).await.unwrap();
        let mut heard = vec![0; 12];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, b"HTTP/1.1 401", "{bytes}");
    }
    let large = "x".repeat(100 << 10);
    let mut stream = running
        .connect(format!("GET /{large} HTTP/1.1\r\n").as_bytes())
        .await;
    assert!(heard(&mut stream).await.starts_with("HTTP/1.1 4"));
}

#[tokio::test]
async fn connections_beyond_the_limit_are_turned_away() {
    let limits = ConnectionLimits {
        all: 0,
        of_address: 1,
    };
    let running = start(patient(), limits).await;
    let mut first = running.connect(GET).await;
    let mut answer = vec![0; 15];
    first.read_exact(&mut answer).await.unwrap();
    let mut second = running.connect(b"").await;
    assert!(heard(&mut second).await.starts_with("HTTP/1.1 503"));
    drop(first);
    let began = std::time::Instant::now();
    loop {
        let mut third = running.connect(b"").await;
        let _ = third.write_all(GET).await;
        let mut answer = vec![0; 15];
        if third.read_exact(&mut answer).await.is_ok() && answer == b"HTTP/1.1 200 OK" {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "no place became free");
    }
}

#[tokio::test]
async fn stopping_ends_idle_and_silent_connections() {
    let running = start_at(patient()).await;
    let mut silent = running.connect(b"").await;
    let mut idle = running.connect(GET).await;
    let mut answer = vec![0; 15];
    idle.read_exact(&mut answer).await.unwrap();
    running.stop.send_replace(true);
    assert_eq!(heard(&mut silent).await, "");
    heard(&mut idle).await;
    tokio::time::timeout(PATIENCE, running.serving)
        .await
        .unwrap()
        .unwrap();
}
