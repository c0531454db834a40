//! Lets connections in: as they come, or after a TLS handshake.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;

use super::access::Access;

/// A handshake takes three packets; who needs longer is not waited for.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How many may be under way.
const HANDSHAKES: usize = 256;

/// What is known of the other end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// It has shown a certificate of a CA that is trusted.
    pub certified: bool,
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}
type Arrived = (Box<dyn Stream>, Peer);

/// Connections that are ready for HTTP. Handshakes go on beside each other: one that dawdles holds up nobody.
pub(super) struct TlsListener(mpsc::Receiver<Arrived>);

impl TlsListener {
    pub fn open(listener: TcpListener, access: Arc<Option<Access>>) -> Self {
        let (ready, arrived) = mpsc::channel(1);
        tokio::spawn(admit(listener, access, ready));
        Self(arrived)
    }
}

impl Listener for TlsListener {
    type Io = Box<dyn Stream>;
    type Addr = Peer;

    async fn accept(&mut self) -> Arrived {
        match self.0.recv().await {
            Some(arrived) => arrived,
            // the task ends with this value, never before it
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { certified: false })
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        *stream.remote_addr()
    }
}

async fn admit(mut listener: TcpListener, access: Arc<Option<Access>>, ready: mpsc::Sender<Arrived>) {
    let slots = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let (stream, _) = tokio::select! {
            // axum's own accept, which sits out a shortage of descriptors
            accepted = Listener::accept(&mut listener) => accepted,
            () = ready.closed() => return,
        };
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (access, ready) = (access.clone(), ready.clone());
        tokio::spawn(async move {
            if let Ok(Ok(arrived)) = tokio::time::timeout(HANDSHAKE, greet(stream, access.as_ref().as_ref())).await {
                drop(slot);
                // nobody is there any more once the program stops
                let _ = ready.send(arrived).await;
            }
        });
    }
}

async fn greet(stream: TcpStream, access: Option<&Access>) -> io::Result<Arrived> {
    let Some(tls) = access.and_then(|access| access.current().tls.clone()) else {
        return Ok((Box::new(stream), Peer { certified: false }));
    };
    let stream = TlsAcceptor::from(tls).accept(stream).await?;
    let certified = stream.get_ref().1.peer_certificates().is_some();
    Ok((Box::new(stream), Peer { certified }))
}
