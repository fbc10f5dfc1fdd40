//! One HTTP/1 request to one server, bounded in time and memory whatever the server sends.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Maximum length of a response's status line and header fields, in bytes.
const HEAD_MAX: usize = 16 * 1024;
/// Maximum number of header fields of a response.
const FIELDS_MAX: usize = 100;
/// Identifies the speaker in the server's log.
const USER_AGENT: &str = concat!("ferrolb-speaker/", env!("CARGO_PKG_VERSION"));

/// A server's response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status code (RFC 9110 section 15).
    pub status: u16,
    /// The content of the response; empty if the caller did not request it.
    pub body: Bytes,
}

/// Reasons for a missing response. The messages are for operators of the server.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Nothing listens at the address.
    #[error("connection refused")]
    Refused,
    /// The server did not respond before this timeout.
    #[error("no response within {}", in_milliseconds(.0))]
    Timeout(Duration),
    /// The server cannot be reached.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The requested path is not valid in a request.
    #[error("not the path of a URL")]
    Path,
    /// The response is not HTTP, or its head exceeds the limits.
    #[error("not an HTTP response: {0}")]
    NotHttp(hyper::Error),
    /// The content is truncated, or exceeds its limit.
    #[error("the response is truncated or too long")]
    Body,
}

fn in_milliseconds(time: &Duration) -> String {
    format!("{} ms", time.as_millis())
}

/// Opens a TCP connection that is closed by a reset. A normal close would leave the local port in
/// TIME_WAIT for one minute (RFC 9293 section 3.6.1), and the conntrack entry for two minutes. That
/// is too long for thousands of requests per second. A reset may discard data in transit, which is
/// no longer needed.
///
/// # Errors
/// See [`HttpError`].
pub async fn connect(server: SocketAddr) -> Result<TcpStream, HttpError> {
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    let stream = TcpStream::connect(server).await.map_err(|error| {
        if refused(&error) { HttpError::Refused } else { HttpError::Connect(error) }
    })?;
    stream.set_zero_linger().map_err(HttpError::Connect)?;
    Ok(stream)
}

/// Requests `path`, and reads the content of the response if `body_max` is set, at most that many
/// bytes. Follows no redirection. Takes at most `timeout` in total.
///
/// # Errors
/// See [`HttpError`].
pub async fn get(
    server: SocketAddr,
    path: &str,
    body_max: Option<usize>,
    timeout: Duration,
) -> Result<HttpResponse, HttpError> {
    tokio::time::timeout(timeout, request(server, path, body_max))
        .await
        .unwrap_or(Err(HttpError::Timeout(timeout)))
}

async fn request(
    server: SocketAddr,
    path: &str,
    body_max: Option<usize>,
) -> Result<HttpResponse, HttpError> {
    let request = Request::get(path)
        .header(header::HOST, server.to_string())
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| HttpError::Path)?;
    let stream = TokioIo::new(connect(server).await?);
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_MAX).max_headers(FIELDS_MAX);
    let (mut sender, connection) = builder.handshake(stream).await.map_err(HttpError::NotHttp)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(HttpError::NotHttp)?;
        let status = response.status().as_u16();
        let Some(max) = body_max else { return Ok(HttpResponse { status, body: Bytes::new() }) };
        let body =
            Limited::new(response.into_body(), max).collect().await.map_err(|_| HttpError::Body)?;
        Ok(HttpResponse { status, body: body.to_bytes() })
    };
    // This future must run for the connection to transfer bytes. The end of the connection is
    // ignored, because the request has then succeeded or failed by itself.
    let transfer = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        exchange = exchange => exchange,
        never = transfer => never,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(200);

    /// Sends a request to a server that reads it, sends `head`, and then repeats `tail` until the
    /// client closes the connection.
    async fn request_from_server(
        head: &'static [u8],
        tail: &'static [u8],
        body_max: Option<usize>,
    ) -> Result<HttpResponse, HttpError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server = listener.local_addr().unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(head).await;
            while !tail.is_empty() && stream.write_all(tail).await.is_ok() {}
        };
        tokio::join!(serve, get(server, "/healthz", body_max, TIMEOUT)).1
    }

    #[tokio::test]
    async fn a_response_body_is_read_up_to_its_limit() {
        let page = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nlate";
        assert_eq!(
            request_from_server(page, b"", Some(4)).await.unwrap(),
            HttpResponse { status: 503, body: Bytes::from("late") }
        );
        assert_eq!(
            request_from_server(page, b"", None).await.unwrap(),
            HttpResponse { status: 503, body: Bytes::new() }
        );
        let moved =
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(
            request_from_server(moved, b"", None).await.unwrap().status,
            302,
            "the redirection is not followed"
        );
        assert!(matches!(request_from_server(page, b"", Some(3)).await, Err(HttpError::Body)));
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
        let requests = async {
            drop(connect(server).await.unwrap());
            assert_eq!(get(server, "/", None, TIMEOUT).await.unwrap().status, 200);
        };
        tokio::join!(serve, requests);
        let sockets = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
        // 127.0.0.1 and the port: other addresses of this host may use the same port.
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
    async fn every_response_takes_bounded_time_and_memory() {
        let endless = b"HTTP/1.1 200 OK\r\n\r\n";
        assert!(matches!(
            request_from_server(endless, &[b'x'; 4096], Some(1 << 16)).await,
            Err(HttpError::Body)
        ));
        assert_eq!(request_from_server(endless, &[b'x'; 4096], None).await.unwrap().status, 200);
        assert!(matches!(
            request_from_server(b"HTTP/1.1 200 OK\r\n", b"X-Long: xxxxxxxx\r\n", None).await,
            Err(HttpError::NotHttp(_))
        ));
        assert!(matches!(
            request_from_server(b"SSH-2.0-dropbear\r\n", b"", None).await,
            Err(HttpError::NotHttp(_))
        ));
        assert!(
            matches!(request_from_server(b"", b"", None).await, Err(HttpError::NotHttp(_))),
            "the server closes the connection"
        );
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server = listener.local_addr().unwrap();
        assert!(
            matches!(get(server, "/", None, TIMEOUT).await, Err(HttpError::Timeout(_))),
            "the server accepts no connection"
        );
        drop(listener);
        assert!(matches!(get(server, "/", None, TIMEOUT).await, Err(HttpError::Refused)));
        assert!(matches!(get(server, "no path", None, TIMEOUT).await, Err(HttpError::Path)));
    }
}
