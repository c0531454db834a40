//! Serves pages over HTTP; knows nothing of what is on them.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;

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
}

/// Serves `site` until `stop` completes.
pub async fn serve(
    listener: TcpListener,
    site: Arc<impl Site>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let router = Router::new().fallback(answer).with_state(site as Arc<dyn Site>);
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}

async fn answer(State(site): State<Arc<dyn Site>>, request: Request<Body>) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")], "only GET and HEAD\n").into_response();
    }
    let query: Vec<(String, String)> =
        axum::extract::Query::try_from_uri(request.uri()).map(|query| query.0).unwrap_or_default();
    let path = request.uri().path();
    let page = site.page(path, &query).unwrap_or_else(|| Page::text(404, format!("there is no {path}\n")));
    let status = StatusCode::from_u16(page.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = [
        (header::CONTENT_TYPE, page.content_type),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
    ];
    (status, headers, page.body).into_response()
}
