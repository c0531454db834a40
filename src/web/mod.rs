//! Serves pages over HTTP; knows nothing of what is on them.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;

mod access;
mod listener;
mod passwords;

pub use access::Access;
use listener::{Peer, TlsListener};
use passwords::Passwords;

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The HTTP status.
    pub status: u16,
    /// The media type.
    pub content_type: &'static str,
    /// The text.
    pub body: String,
}

impl Page {
    /// A page of plain text.
    #[must_use]
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }
}

/// What is served: a path and its query, already split and decoded; `None` is not found.
pub trait Site: Send + Sync + 'static {
    /// The page at `path`.
    fn page(&self, path: &str, query: &[(String, String)]) -> Option<Page>;

    /// Whether anybody may see it, without a password or certificate.
    fn is_open(&self, path: &str) -> bool;
}

struct Server {
    site: Arc<dyn Site>,
    access: Arc<Option<Access>>,
    passwords: Passwords,
}

/// Serves `site` to those who have `access` until `stop` completes.
pub async fn serve(
    listener: TcpListener,
    site: Arc<impl Site>,
    access: Option<Access>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let access = Arc::new(access);
    let server = Server { site, access: access.clone(), passwords: Passwords::default() };
    let router = Router::new().fallback(answer).with_state(Arc::new(server));
    let door = TlsListener::open(listener, access);
    axum::serve(door, router.into_make_service_with_connect_info::<Peer>()).with_graceful_shutdown(stop).await
}

async fn answer(
    State(server): State<Arc<Server>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request<Body>,
) -> Response {
    let path = request.uri().path();
    if !server.site.is_open(path)
        && let Some(refusal) = server.refuse(peer, request.headers()).await
    {
        return refusal;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")], "only GET and HEAD\n").into_response();
    }
    let query: Vec<(String, String)> =
        axum::extract::Query::try_from_uri(request.uri()).map(|query| query.0).unwrap_or_default();
    let (site, path) = (server.site.clone(), path.to_owned());
    // a page may take a while, or wait
    let page = tokio::task::spawn_blocking(move || {
        site.page(&path, &query).unwrap_or_else(|| Page::text(404, format!("there is no {path}\n")))
    });
    let page = page.await.unwrap_or_else(|_| Page::text(500, "this page cannot be made; the log says why\n"));
    let status = StatusCode::from_u16(page.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = [
        (header::CONTENT_TYPE, page.content_type),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
    ];
    (status, headers, page.body).into_response()
}

impl Server {
    /// Why a request is not answered, if so.
    async fn refuse(&self, peer: Peer, headers: &HeaderMap) -> Option<Response> {
        let rules = self.access.as_ref().as_ref()?.current();
        if rules.certificate_required && !peer.certified {
            return Some((StatusCode::FORBIDDEN, "a client certificate is required\n").into_response());
        }
        let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if rules.users.is_empty() || self.passwords.admit(&rules.users, authorization).await {
            return None;
        }
        let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"restricted\", charset=\"UTF-8\"")];
        Some((StatusCode::UNAUTHORIZED, challenge, "a user name and password are required\n").into_response())
    }
}
