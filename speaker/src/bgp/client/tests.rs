//! Lists from gobgpd that are cut, refused or slow, built from synthetic responses.

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

type Part = Result<Frame<Bytes>, Status>;

/// Returns an uncompressed gRPC message of no bytes (PROTOCOL-HTTP2, Length-Prefixed-Message).
fn message() -> Part {
    Ok(Frame::data(Bytes::from_static(&[0; 5])))
}

/// Returns the end of a stream with a gRPC status.
fn end(status: &'static str) -> Part {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    trailers.insert("grpc-message", "broken".parse().unwrap());
    Ok(Frame::trailers(trailers))
}

async fn collect_parts(
    parts: Pin<Box<dyn Stream<Item = Part> + Send>>,
) -> Result<usize, (Code, String)> {
    let answer =
        Streaming::new_response(EmptyDecoder, StreamBody::new(parts), StatusCode::OK, None, None);
    let all = collect("ListPath", answer).await;
    all.map(|all| all.len()).map_err(|failed| (failed.code, failed.why))
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_not_whole_is_a_failed_call_and_no_shorter_list() {
    let listed = |parts: Vec<Part>| collect_parts(stream::iter(parts).boxed());
    assert_eq!(listed(vec![message(), message(), end("0")]).await, Ok(2));
    assert_eq!(listed(vec![end("0")]).await, Ok(0));
    let failed = listed(vec![message(), message(), end("13")]).await;
    assert_eq!(failed, Err((Code::Internal, "broken".to_owned())));
    let cut = listed(vec![message(), Err(Status::unavailable("the connection was reset"))]).await;
    assert_eq!(cut.map_err(|(code, _)| code), Err(Code::Unavailable));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_stops_in_the_middle_is_waited_for_as_long_as_a_call() {
    let begun = tokio::time::Instant::now();
    let slow = collect_parts(stream::iter([message()]).chain(stream::pending()).boxed()).await;
    assert_eq!(slow, Err((Code::DeadlineExceeded, "not all within 10s".to_owned())));
    assert_eq!(begun.elapsed(), CALL_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_answered_is_waited_for_as_long_as_a_call() {
    let begun = tokio::time::Instant::now();
    let failed =
        with_timeout::<()>("GetBgp", std::future::pending()).await.err().map(|failed| failed.code);
    assert_eq!((failed, begun.elapsed()), (Some(Code::DeadlineExceeded), CALL_TIMEOUT));
}
