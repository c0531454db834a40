//! From a page to an HTTP response: headers, encoding, and a body that is made while it is read.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::Response;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use tokio::sync::OwnedSemaphorePermit;

use super::packed::{CHUNK, Unpacker};
use super::{Content, Failure, Page, status};

/// A browser must not guess types, frame the page, send forms from it, or say elsewhere where it was.
pub(super) const SECURITY: [(HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (header::VARY, "Accept-Encoding"),
];

/// Why a request is not answered with a page.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    Method,
    Certificate,
    Password,
    TooManyGuesses,
    Busy,
}

impl Refusal {
    pub fn into_response(self) -> Response<Body> {
        let page = match self {
            Self::Method => Page::text(405, "only GET and HEAD\n"),
            Self::Certificate => Page::text(403, "a client certificate is required\n"),
            Self::Password => Page::text(401, "a user name and password are required\n"),
            Self::TooManyGuesses => {
                let page = Page::text(429, "too many wrong passwords; ask again in a second\n");
                Page { retry_after: Some(1), ..page }
            }
            Self::Busy => {
                Page::unavailable("too many clients read or wait for this page; ask again in a few seconds\n", 5)
            }
        };
        let mut response = response(page, &HeaderMap::new(), None);
        let headers = response.headers_mut();
        match self {
            Self::Method => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            Self::Password => {
                let challenge = HeaderValue::from_static("Basic realm=\"restricted\", charset=\"UTF-8\"");
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            Self::Certificate | Self::TooManyGuesses | Self::Busy => {}
        }
        response
    }
}

/// The response with `page`. Its body holds `place` until it was read.
pub(super) fn response(page: Page, request: &HeaderMap, place: Option<OwnedSemaphorePermit>) -> Response<Body> {
    let gzip = matches!(page.content, Content::Packed(_)) && accepts_gzip(request);
    let parts = match page.content {
        Content::Short(text) => Parts::Ready([text].into()),
        Content::Packed(packed) if gzip => Parts::Ready(packed.gzip()),
        Content::Packed(packed) => Parts::Unpacked(Box::new(Unpacker::new(&packed))),
    };
    let mut response = Response::new(Body { parts, _place: place });
    *response.status_mut() = status(page.status);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    for (name, value) in SECURITY {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if let Some(seconds) = page.retry_after {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// Whether `Accept-Encoding` names gzip, and not with the weight 0.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    let weight = |choice: &str| {
        let mut parts = choice.split(';').map(str::trim);
        let coding = parts.next()?.to_ascii_lowercase();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        Some((coding, weight.map_or(1.0, |weight| weight.parse::<f32>().unwrap_or(0.0))))
    };
    let choices: Vec<_> = values.flat_map(|value| value.split(',')).filter_map(weight).collect();
    let of = |name: &str| choices.iter().find(|(coding, _)| coding == name).map(|&(_, weight)| weight);
    of("gzip").or_else(|| of("x-gzip")).or_else(|| of("*")).is_some_and(|weight| weight > 0.0)
}

/// What is sent.
pub(super) struct Body {
    parts: Parts,
    /// Released when the body is dropped.
    _place: Option<OwnedSemaphorePermit>,
}

enum Parts {
    Ready(VecDeque<Bytes>),
    Unpacked(Box<Unpacker>),
}

impl Parts {
    fn left(&self) -> u64 {
        match self {
            Self::Ready(parts) => parts.iter().map(|part| part.len() as u64).sum(),
            Self::Unpacked(unpacker) => unpacker.left(),
        }
    }

    fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        match self {
            Self::Ready(parts) => {
                while parts.front().is_some_and(Bytes::is_empty) {
                    parts.pop_front();
                }
                // in small parts: the body lives, and holds its place, until the client has read nearly everything
                Ok(parts.front_mut().map(|part| part.split_to(part.len().min(CHUNK))))
            }
            Self::Unpacked(unpacker) => unpacker.next_chunk(),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        Poll::Ready(self.parts.next().map(|part| part.map(Frame::data)).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.parts.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.parts.left())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_only_to_clients_that_accept_it() {
        let cases: [(&[&str], bool); 11] = [
            (&[], false),
            (&["gzip"], true),
            (&["gzip, deflate, br"], true),
            (&["deflate;q=0.5, GZIP ; q=0.1"], true),
            (&["deflate", "gzip"], true),
            (&["gzip;q=0"], false),
            (&["gzip;q=0, *"], false),
            (&["*"], true),
            (&["identity"], false),
            (&["gzipped"], false),
            (&["gzip;q=none"], false),
        ];
        for (values, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            }
            assert_eq!(accepts_gzip(&headers), expected, "{values:?}");
        }
    }
}
