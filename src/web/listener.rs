//! Accepts connections, speaks TLS where that is configured, and HTTP/1; closes what takes too long.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::answer::Body;
use super::connections::{Entry, Stage, Visit};
use super::unparsable::Completer;
use super::{Access, Failure, Peer, Server};

/// A request's line and headers may have this many bytes together; it is also what is held of an answer until the
/// client reads on.
const MAX_HEAD: usize = 16 * 1024;
/// More headers than any client or proxy sends.
const MAX_HEADERS: usize = 64;
/// How often deadlines are checked.
const CHECK: Duration = Duration::from_secs(1);
/// How long nobody is accepted after descriptors or memory ran out.
const SHORTAGE: Duration = Duration::from_millis(20);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Serves until `stop` completes, and then what is under way.
pub(super) async fn serve(listener: TcpListener, server: Arc<Server>, stop: impl Future<Output = ()> + Send) {
    let (stopping, stopped) = watch::channel(false);
    // every connection holds a sender: when all are gone, nothing is under way
    let (open, mut none_open) = mpsc::channel::<Infallible>(1);
    let mut stop = pin!(stop);
    let mut checks = tokio::time::interval(CHECK);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    let entry = server.connections.enter(from.ip());
                    let (server, stopped, open) = (server.clone(), stopped.clone(), open.clone());
                    tokio::spawn(Connection { server, stopped, _open: open }.serve(stream, entry));
                    // its request is read before the next connections come
                    tokio::task::yield_now().await;
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    server.connections.make_room();
                    tokio::time::sleep(SHORTAGE).await;
                }
            },
            _ = checks.tick() => server.connections.close_overdue(Instant::now()),
            () = &mut stop => break,
        }
    }
    drop((listener, open));
    stopping.send_replace(true);
    while tokio::time::timeout(CHECK, none_open.recv()).await.is_err() {
        server.connections.close_overdue(Instant::now());
    }
}

/// The client went away before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

struct Connection {
    server: Arc<Server>,
    stopped: watch::Receiver<bool>,
    _open: mpsc::Sender<Infallible>,
}

impl Connection {
    async fn serve(mut self, stream: TcpStream, entry: Entry) {
        let visit = entry.visit.clone();
        tokio::select! {
            () = visit.closed() => {}
            // a client that went away or spoke nonsense is no news
            _ = self.wait_and_converse(stream, &visit) => {}
        }
    }

    /// The buffers of a conversation take some 20 KB: a client gets them when its first byte has come.
    async fn wait_and_converse(&mut self, stream: TcpStream, visit: &Arc<Visit>) -> io::Result<()> {
        let mut first = [0];
        tokio::select! {
            peeked = stream.peek(&mut first) => drop(peeked?),
            _ = self.stopped.wait_for(|stop| *stop) => return Ok(()),
        }
        Box::pin(self.converse(stream, visit)).await
    }

    async fn converse(&mut self, stream: TcpStream, visit: &Arc<Visit>) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let (stream, certified) = shake_hands(stream, self.server.access.as_ref(), visit).await?;
        visit.enter(Stage::Request);
        let peer = Peer { visit: visit.clone(), certified };
        let service = service_fn(|request: Request<Incoming>| {
            let (server, peer) = (self.server.clone(), peer.clone());
            async move {
                peer.visit.enter(Stage::Answer);
                let visit = peer.visit.clone();
                let response = server.answer(peer, request).await;
                Ok::<Response<Reading>, Infallible>(response.map(|body| Reading { body, visit }))
            }
        });
        let io = TokioIo::new(Watched { stream, visit: visit.clone(), completer: Completer::default() });
        let connection = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            // the deadlines are those of `Stage`
            .header_read_timeout(None::<Duration>)
            // one buffer, in which its own answers can be found
            .writev(false)
            .serve_connection(io, service);
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return ended.map_err(io::Error::other),
            _ = self.stopped.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
        }
        connection.await.map_err(io::Error::other)
    }
}

/// Speaks TLS where that is configured, and whether the client has shown a certificate.
async fn shake_hands(stream: TcpStream, access: Option<&Access>, visit: &Visit) -> io::Result<(Box<dyn Stream>, bool)> {
    let tls = match access {
        Some(access) => access.current().await.tls.clone(),
        None => None,
    };
    let Some(tls) = tls else { return Ok((Box::new(stream), false)) };
    visit.enter(Stage::Handshake);
    let stream = TlsAcceptor::from(tls).accept(stream).await?;
    let certified = stream.get_ref().1.peer_certificates().is_some();
    Ok((Box::new(stream), certified))
}

/// Reports when the next request begins, and completes hyper's own answers.
struct Watched {
    stream: Box<dyn Stream>,
    visit: Arc<Visit>,
    completer: Completer,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.visit.received();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { stream, completer, .. } = &mut *self;
        completer.poll_write(stream, cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A body that reports when it has been taken over for sending: the connection waits for the next request then.
struct Reading {
    body: Body,
    visit: Arc<Visit>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.visit.enter(Stage::Idle);
    }
}

impl HttpBody for Reading {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
