//! Tests of lists from gobgpd that are truncated, rejected or slow, with synthetic responses.

use std::pin::Pin;

use futures::stream;
use http_body_util::StreamBody;
use hyper::HeaderMap;
use hyper::StatusCode;
use hyper::body::{Bytes, Frame};
use tonic::Streaming;
use tonic::codec::{DecodeBuf, Decoder};

use super::*;

/// Decodes every message as an empty one.
struct EmptyDecoder;

impl Decoder for EmptyDecoder {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        Ok(Some(()))
    }
}

type StreamPart = Result<Frame<Bytes>, Status>;

/// Returns an uncompressed gRPC message of no bytes (PROTOCOL-HTTP2, Length-Prefixed-Message).
fn empty_message() -> StreamPart {
    Ok(Frame::data(Bytes::from_static(&[0; 5])))
}

/// Returns the end of a stream with a gRPC status.
fn status_trailers(status: &'static str) -> StreamPart {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    trailers.insert("grpc-message", "broken".parse().unwrap());
    Ok(Frame::trailers(trailers))
}

async fn collect_parts(
    parts: Pin<Box<dyn Stream<Item = StreamPart> + Send>>,
) -> Result<usize, (Code, String)> {
    let response =
        Streaming::new_response(EmptyDecoder, StreamBody::new(parts), StatusCode::OK, None, None);
    let all = collect("ListPath", response).await;
    all.map(|all| all.len()).map_err(|failed| (failed.code, failed.why))
}

#[tokio::test(start_paused = true)]
async fn a_truncated_list_is_a_failed_call() {
    let listed = |parts: Vec<StreamPart>| collect_parts(stream::iter(parts).boxed());
    assert_eq!(listed(vec![empty_message(), empty_message(), status_trailers("0")]).await, Ok(2));
    assert_eq!(listed(vec![status_trailers("0")]).await, Ok(0));
    let failed = listed(vec![empty_message(), empty_message(), status_trailers("13")]).await;
    assert_eq!(failed, Err((Code::Internal, "broken".to_owned())));
    let truncated =
        listed(vec![empty_message(), Err(Status::unavailable("the connection was reset"))]).await;
    assert_eq!(truncated.map_err(|(code, _)| code), Err(Code::Unavailable));
}

#[tokio::test(start_paused = true)]
async fn a_stalled_list_fails_after_the_call_timeout() {
    let start = tokio::time::Instant::now();
    let slow =
        collect_parts(stream::iter([empty_message()]).chain(stream::pending()).boxed()).await;
    assert_eq!(slow, Err((Code::DeadlineExceeded, "incomplete response after 10s".to_owned())));
    assert_eq!(start.elapsed(), CALL_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_response_fails_after_the_call_timeout() {
    let start = tokio::time::Instant::now();
    let failed =
        with_timeout::<()>("GetBgp", std::future::pending()).await.err().map(|failed| failed.code);
    assert_eq!((failed, start.elapsed()), (Some(Code::DeadlineExceeded), CALL_TIMEOUT));
}
