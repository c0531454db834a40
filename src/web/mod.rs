//! Serves pages over HTTP; knows nothing of what is on them. Whatever clients do, it holds a bounded number of
//! everything.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

mod access;
mod answer;
mod connections;
mod listener;
mod packed;
mod passwords;
mod unparsable;
mod web_config;

pub use access::{Access, Currency};
use answer::{Body, Refusal};
use connections::{Connections, Visit};
pub use packed::{Packed, Packer};
use passwords::{Passwords, Verdict};

/// This many costly pages are made at the same time; the others wait for their turn.
const MAX_PAGES_AT_ONCE: usize = 3;
/// How long one waits for its turn.
const TURN: Duration = Duration::from_secs(15);
/// This many costly pages are made, wait for their turn or are being read at the same time.
const MAX_COSTLY: usize = 64;
/// A client that has read a costly answer for longer than this may lose its place to the next one.
const UNDISTURBED: Duration = Duration::from_secs(3);
/// How long a request waits for such a place.
const PLACE: Duration = Duration::from_secs(1);

/// One answer.
#[derive(Clone, Debug)]
pub struct Page {
    /// The HTTP status.
    pub status: u16,
    /// The media type.
    pub content_type: &'static str,
    /// The text.
    pub content: Content,
    /// After how many seconds it makes sense to ask again.
    pub retry_after: Option<u32>,
}

/// The text of a page.
#[derive(Clone, Debug)]
pub enum Content {
    /// Short: as it is.
    Short(Bytes),
    /// Long: compressed.
    Packed(Packed),
}

impl Page {
    /// A page of plain text.
    #[must_use]
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        let content = Content::Short(body.into().into());
        Self { status, content_type: "text/plain; charset=utf-8", content, retry_after: None }
    }

    /// A page that is there, with its text compressed.
    #[must_use]
    pub fn packed(content_type: &'static str, text: Packed) -> Self {
        Self { status: 200, content_type, content: Content::Packed(text), retry_after: None }
    }

    /// A page that cannot be made now, and when to ask for it again.
    #[must_use]
    pub fn unavailable(reason: impl Into<String>, retry_after: u32) -> Self {
        Self { retry_after: Some(retry_after), ..Self::text(503, reason) }
    }
}

/// What it takes to make a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// Nothing to speak of: it is made at once.
    Cheap,
    /// It takes a while, or waits for something.
    Costly,
}

/// What is served: a path and its query, already split and decoded; `None` is not found.
pub trait Site: Send + Sync + 'static {
    /// The page at `path`.
    fn page(&self, path: &str, query: &[(String, String)]) -> Option<Page>;

    /// What it takes to make it.
    fn cost(&self, path: &str) -> Cost;

    /// Whether anybody may see it, without a password or certificate.
    fn is_open(&self, path: &str) -> bool;
}

/// What the server can say about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WebCounts {
    /// Open connections.
    pub connections: usize,
    /// Connections that were closed because there were too many.
    pub evicted: u64,
}

/// The limits of a server, and a view of how much of them is used.
#[derive(Clone, Debug)]
pub struct Limits(Arc<Connections>);

impl Limits {
    /// At most this many connections.
    #[must_use]
    pub fn new(connections: usize) -> Self {
        Self(Arc::new(Connections::new(connections)))
    }

    /// What is used.
    #[must_use]
    pub fn counts(&self) -> WebCounts {
        let (connections, evicted) = self.0.counts();
        WebCounts { connections, evicted }
    }
}

/// Serves `site` to those who have `access` until `stop` completes and the answers under way have been read.
pub async fn serve(
    listener: TcpListener,
    site: Arc<impl Site>,
    access: Option<Access>,
    limits: Limits,
    stop: impl Future<Output = ()> + Send,
) {
    let server = Server {
        site,
        access,
        passwords: Passwords::default(),
        turns: Semaphore::new(MAX_PAGES_AT_ONCE),
        places: Arc::new(Semaphore::new(MAX_COSTLY)),
        connections: limits.0,
    };
    listener::serve(listener, Arc::new(server), stop).await;
}

/// What is known of the client.
#[derive(Clone, Debug)]
struct Peer {
    visit: Arc<Visit>,
    /// It has shown a certificate of a CA that is trusted.
    certified: bool,
}

struct Server {
    site: Arc<dyn Site>,
    access: Option<Access>,
    passwords: Passwords,
    turns: Semaphore,
    places: Arc<Semaphore>,
    connections: Arc<Connections>,
}

impl Server {
    async fn answer(self: Arc<Self>, peer: Peer, request: Request<Incoming>) -> Response<Body> {
        let (page, place) = match self.page(&peer, &request).await {
            Ok(page) => page,
            Err(refusal) => return refusal.into_response(),
        };
        answer::response(page, request.headers(), place)
    }

    async fn page(
        &self,
        peer: &Peer,
        request: &Request<Incoming>,
    ) -> Result<(Page, Option<OwnedSemaphorePermit>), Refusal> {
        let path = request.uri().path();
        if !self.site.is_open(path) {
            self.admit(peer, request).await?;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Refusal::Method);
        }
        let query = request.uri().query().unwrap_or_default();
        let query: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        if self.site.cost(path) == Cost::Cheap {
            return Ok((make(&*self.site, path, &query), None));
        }
        peer.visit.mark_costly();
        let place = self.place().await?;
        let turn = tokio::time::timeout(TURN, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(Refusal::Busy) };
        let (site, path) = (self.site.clone(), path.to_owned());
        // it may take a while, or wait
        let page = tokio::task::spawn_blocking(move || make(&*site, &path, &query)).await;
        let broken = |_| Page::text(500, "this page cannot be made; the log says why\n");
        Ok((page.unwrap_or_else(broken), Some(place)))
    }

    /// A place among the costly answers. Clients that read slowly keep one only while nobody else wants it.
    async fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Ok(place);
        }
        self.connections.close_slowest_reader(UNDISTURBED);
        let place = tokio::time::timeout(PLACE, self.places.clone().acquire_owned()).await;
        if let Ok(Ok(place)) = place { Ok(place) } else { Err(Refusal::Busy) }
    }

    /// Whether the client may see what it asks for.
    async fn admit(&self, peer: &Peer, request: &Request<Incoming>) -> Result<(), Refusal> {
        let Some(access) = &self.access else { return Ok(()) };
        let rules = access.current().await;
        if rules.certificate_required && !peer.certified {
            return Err(Refusal::Certificate);
        }
        if rules.users.is_empty() {
            return Ok(());
        }
        let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        match self.passwords.check(&rules, authorization, peer.visit.from).await {
            Verdict::Right => Ok(()),
            Verdict::Wrong => Err(Refusal::Password),
            Verdict::Busy => Err(Refusal::TooManyGuesses),
        }
    }
}

fn make(site: &dyn Site, path: &str, query: &[(String, String)]) -> Page {
    site.page(path, query).unwrap_or_else(|| Page::text(404, format!("there is no {path}\n")))
}

/// A status that was written down as a number.
fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// What a stream or a body may fail with.
type Failure = io::Error;
