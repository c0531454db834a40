//! hyper answers requests that it cannot parse by itself (400, 414, 431). These answers get the headers that every
//! other answer has.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::answer::SECURITY;

const END: &[u8] = b"\r\n\r\n";
/// Such an answer is a head of fewer bytes, and the last one on its connection.
const LONGEST: usize = 512;

/// Writes what hyper sends, and completes its own answers.
#[derive(Default)]
pub(super) struct Completer {
    /// A completed answer, and how much of it was written.
    completed: Option<(Vec<u8>, usize)>,
}

impl Completer {
    /// Writes `bytes` to `stream`. Each call must give everything that is left to write.
    pub fn poll_write(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.completed.is_none() {
            match start(bytes) {
                None => return Pin::new(stream).poll_write(cx, bytes),
                Some(0) => self.completed = Some((complete(bytes), 0)),
                // an answer before it
                Some(start) => return Pin::new(stream).poll_write(cx, &bytes[..start]),
            }
        }
        while let Some((answer, written)) = &mut self.completed {
            if *written == answer.len() {
                self.completed = None;
                break;
            }
            match ready!(Pin::new(&mut *stream).poll_write(cx, &answer[*written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                more => *written += more,
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }
}

/// Where an answer of hyper's own starts: a head at the very end, without the headers that our answers have.
fn start(bytes: &[u8]) -> Option<usize> {
    let tail = bytes.len().saturating_sub(LONGEST);
    let start = tail + bytes.get(tail..)?.windows(10).rposition(|window| window == b"HTTP/1.1 4")?;
    let head = &bytes[start..];
    let is_whole = head.windows(END.len()).position(|window| window == END) == Some(head.len() - END.len());
    let ours = SECURITY[0].0.as_str().as_bytes();
    (is_whole && !head.windows(ours.len()).any(|window| window == ours)).then_some(start)
}

/// The head with the security headers.
fn complete(head: &[u8]) -> Vec<u8> {
    let mut completed = head[..head.len() - 2].to_vec();
    for (name, value) in SECURITY {
        completed.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    completed.extend_from_slice(b"\r\n");
    completed
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: today\r\n\r\n";

    #[test]
    fn only_an_answer_without_our_headers_at_the_end_is_completed() {
        assert_eq!(start(BAD), Some(0));
        let page = [b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 400 is text".as_slice(), BAD].concat();
        assert_eq!(start(&page), Some(page.len() - BAD.len()), "after another answer");
        let ours = complete(BAD);
        assert!(
            ours.ends_with(b"\r\nvary: Accept-Encoding\r\n\r\n") && ours.starts_with(b"HTTP/1.1 400 Bad Request\r\n")
        );
        for other in [&ours[..], b"", b"HTTP/1.1 200 OK\r\n\r\n", &[BAD, b"body"].concat(), &BAD[..BAD.len() - 1]] {
            assert_eq!(start(other), None, "{}", String::from_utf8_lossy(other));
        }
    }

    #[tokio::test]
    async fn a_slow_reader_gets_the_completed_answer_whole() {
        let (mut server, mut client) = tokio::io::duplex(7);
        let page = [b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".as_slice(), BAD].concat();
        let expected = [&page[..page.len() - BAD.len()], &complete(BAD)].concat();
        let writer = tokio::spawn(async move {
            let mut completer = Completer::default();
            let mut left = &page[..];
            while !left.is_empty() {
                let written = std::future::poll_fn(|cx| completer.poll_write(&mut server, cx, left)).await.unwrap();
                left = &left[written..];
            }
        });
        let mut received = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut client, &mut received).await.unwrap();
        writer.await.unwrap();
        assert_eq!(String::from_utf8(received).unwrap(), String::from_utf8(expected).unwrap());
    }
}
