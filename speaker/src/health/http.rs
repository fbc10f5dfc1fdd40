//! One question by HTTP/1 to one server. Bounded in time and in memory, whatever answers, and as long as it likes to.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The longest head of an answer, in bytes.
const HEAD_MAX: usize = 16 * 1024;
/// The most header fields of an answer.
const FIELDS_MAX: usize = 100;
/// Who asks, for the server's log.
const USER_AGENT: &str = concat!("ferrolb-speaker/", env!("CARGO_PKG_VERSION"));

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code (RFC 9110 section 15).
    pub status: u16,
    /// The content; empty if it was not wanted.
    pub body: Bytes,
}

/// Why there is no answer. The messages are for a person who knows the server.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// It is not there, or in no time.
    #[error("no answer within {}", humane(.0))]
    Timeout(Duration),
    /// It cannot be reached.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The path cannot stand in a request.
    #[error("no path of a URL")]
    Path,
    /// What it says is no HTTP, or more than a head may have.
    #[error("not an HTTP answer: {0}")]
    Garbage(hyper::Error),
    /// Its content is cut off, or longer than it may be.
    #[error("the answer is cut off or too long")]
    Body,
}

fn humane(time: &Duration) -> String {
    format!("{} ms", time.as_millis())
}

/// Opens a connection that ends by a reset, not by a handshake that leaves its port in TIME_WAIT for a minute (RFC 9293 section 3.6.1) and
/// its entry in conntrack for two: thousands are asked every second, and nothing that was sent has to arrive.
///
/// # Errors
/// See [`HttpError`].
pub async fn connect(server: SocketAddr) -> Result<TcpStream, HttpError> {
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    let stream = TcpStream::connect(server)
        .await
        .map_err(|error| if refused(&error) { HttpError::Refused } else { HttpError::Connect(error) })?;
    stream.set_zero_linger().map_err(HttpError::Connect)?;
    Ok(stream)
}

/// Asks for `path`, follows no redirection, and reads the content if it is wanted, up to `body_max` bytes. All that within `timeout`.
///
/// # Errors
/// See [`HttpError`].
pub async fn get(
    server: SocketAddr,
    path: &str,
    body_max: Option<usize>,
    timeout: Duration,
) -> Result<Answer, HttpError> {
    tokio::time::timeout(timeout, ask(server, path, body_max)).await.unwrap_or(Err(HttpError::Timeout(timeout)))
}

async fn ask(server: SocketAddr, path: &str, body_max: Option<usize>) -> Result<Answer, HttpError> {
    let request = Request::get(path)
        .header(header::HOST, server.to_string())
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| HttpError::Path)?;
    let stream = TokioIo::new(connect(server).await?);
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_MAX).max_headers(FIELDS_MAX);
    let (mut sender, connection) = builder.handshake(stream).await.map_err(HttpError::Garbage)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(HttpError::Garbage)?;
        let status = response.status().as_u16();
        let Some(max) = body_max else { return Ok(Answer { status, body: Bytes::new() }) };
        let body = Limited::new(response.into_body(), max).collect().await.map_err(|_| HttpError::Body)?;
        Ok(Answer { status, body: body.to_bytes() })
    };
    // The connection moves the bytes; when it ends, the question is answered or has failed.
    let moves = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        answer = answer => answer,
        never = moves => never,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(200);

    /// Asks a server that reads a little, says `words`, and again and again `tail`, until the asker has gone.
    async fn asked(words: &'static [u8], tail: &'static [u8], body_max: Option<usize>) -> Result<Answer, HttpError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server = listener.local_addr().unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(words).await;
            while !tail.is_empty() && stream.write_all(tail).await.is_ok() {}
        };
        tokio::join!(serve, get(server, "/healthz", body_max, TIMEOUT)).1
    }

    #[tokio::test]
    async fn an_answer_is_read_as_far_as_it_is_wanted() {
        let page = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nlate";
        assert_eq!(asked(page, b"", Some(4)).await.unwrap(), Answer { status: 503, body: Bytes::from("late") });
        assert_eq!(asked(page, b"", None).await.unwrap(), Answer { status: 503, body: Bytes::new() });
        let moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(asked(moved, b"", None).await.unwrap().status, 302, "and nobody went there");
        assert!(matches!(asked(page, b"", Some(3)).await, Err(HttpError::Body)));
    }

    #[tokio::test]
    async fn a_connection_leaves_nothing_in_time_wait() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server = listener.local_addr().unwrap();
        let page = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let serve = async {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(page).await;
                while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
            }
        };
        let ask = async {
            drop(connect(server).await.unwrap());
            assert_eq!(get(server, "/", None, TIMEOUT).await.unwrap().status, 200);
        };
        tokio::join!(serve, ask);
        let sockets = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
        // 127.0.0.1 and the port: other addresses of this host may have the port, too.
        let of_server = format!("0100007F:{:04X}", server.port());
        let states = sockets.lines().skip(1).filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
            (local == of_server || remote == of_server).then_some(state)
        });
        const LISTEN: &str = "0A";
        assert_eq!(states.collect::<Vec<_>>(), [LISTEN]);
    }

    #[tokio::test]
    async fn whatever_answers_takes_bounded_time_and_room() {
        let endless = b"HTTP/1.1 200 OK\r\n\r\n";
        assert!(matches!(asked(endless, &[b'x'; 4096], Some(1 << 16)).await, Err(HttpError::Body)));
        assert_eq!(asked(endless, &[b'x'; 4096], None).await.unwrap().status, 200);
        assert!(matches!(
            asked(b"HTTP/1.1 200 OK\r\n", b"X-Long: xxxxxxxx\r\n", None).await,
            Err(HttpError::Garbage(_))
        ));
        assert!(matches!(asked(b"SSH-2.0-dropbear\r\n", b"", None).await, Err(HttpError::Garbage(_))));
        assert!(matches!(asked(b"", b"", None).await, Err(HttpError::Garbage(_))), "it hung up");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server = listener.local_addr().unwrap();
        assert!(matches!(get(server, "/", None, TIMEOUT).await, Err(HttpError::Timeout(_))), "nobody accepts");
        drop(listener);
        assert!(matches!(get(server, "/", None, TIMEOUT).await, Err(HttpError::Refused)));
        assert!(matches!(get(server, "no path", None, TIMEOUT).await, Err(HttpError::Path)));
    }
}
