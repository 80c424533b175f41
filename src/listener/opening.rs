//! The first bytes of a connection: they say which protocol it speaks.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::vitals::Vitals;

/// What a client of HTTP/2 with prior knowledge begins with. Source: RFC 9113, 3.4.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection whose protocol is known, with the bytes that were read to learn it.
pub(super) struct Opened {
    pub(super) stream: TcpStream,
    pub(super) is_http2: bool,
    first: Bytes,
    vitals: Option<Arc<Vitals>>,
}

impl Opened {
    /// Reads until the protocol is known; none if the peer says nothing and goes.
    pub(super) async fn read(mut stream: TcpStream) -> io::Result<Option<Self>> {
        let mut first = [0; PREFACE.len()];
        let mut length = 0;
        while length < PREFACE.len() && PREFACE.starts_with(&first[..length]) {
            match stream.read(&mut first[length..]).await? {
                0 => break,
                more => length += more,
            }
        }
        let is_http2 = first[..length] == *PREFACE;
        let opened = (length > 0).then(|| Self {
            stream,
            is_http2,
            first: Bytes::copy_from_slice(&first[..length]),
            vitals: None,
        });
        Ok(opened)
    }

    /// Tells of bytes that arrive from now on.
    pub(super) fn watched_by(self, vitals: Arc<Vitals>) -> Self {
        Self {
            vitals: Some(vitals),
            ..self
        }
    }
}

impl AsyncRead for Opened {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let length = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first[..length]);
            self.first.advance(length);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if let Some(vitals) = &self.vitals
            && buffer.filled().len() > before
        {
            vitals.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Opened {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
