//! The wait, with virtual time.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use anyhow::{Result, anyhow};
use futures::stream::{self, LocalBoxStream, StreamExt as _};
use tokio::time::{Instant, sleep};

use crate::install::progress::Progress;
use crate::install::wait::wait;

/// Result of one read: a progress, an error, or no reply.
#[derive(Clone)]
enum Read {
    Pods(usize),
    Refused,
    NoReply,
}

/// Result of a wait.
#[derive(Debug, PartialEq)]
struct Waited {
    lines: Vec<String>,
    result: Result<(), String>,
    seconds: u64,
    reads: usize,
}

/// Returns a change every second.
fn each_second() -> LocalBoxStream<'static, ()> {
    stream::repeat(()).then(|()| sleep(Duration::from_secs(1))).boxed_local()
}

/// Waits for three pods with the results of consecutive reads, the last of which repeats.
async fn waited(changes: LocalBoxStream<'_, ()>, reads: &[Read]) -> Waited {
    let (lines, index, start) = (RefCell::new(Vec::new()), Cell::new(0), Instant::now());
    let read = async || {
        let read = &reads[index.get().min(reads.len() - 1)];
        index.set(index.get() + 1);
        match read {
            Read::Pods(done) => Ok(Progress::new(*done, 3)),
            Read::Refused => Err(anyhow!("connection refused")),
            Read::NoReply => std::future::pending().await,
        }
    };
    let show = |line: &str| lines.borrow_mut().push(line.to_owned());
    let result = wait("ready pods", "see the pods", changes, read, show).await;
    let result = result.map_err(|it| it.to_string());
    let seconds = start.elapsed().as_secs();
    Waited { lines: lines.into_inner(), result, seconds, reads: index.get() }
}

#[tokio::test(start_paused = true)]
async fn the_limit_begins_again_with_every_change() {
    let [none, one, all] = [0, 1, 3].map(Read::Pods);
    let reads = [none.clone(), none.clone(), one.clone(), one.clone(), all];
    let done = waited(each_second(), &reads).await;
    assert_eq!(done.result, Ok(()));
    let counts = ["0 of 3", "1 of 3", "3 of 3"];
    assert_eq!(done.lines, counts.map(|it| format!("ready pods: {it}")));
    // 84 s with none, as a read follows 0.2 s after a change. Then 120 s with one.
    let failed = waited(each_second(), &[vec![none; 70], vec![one]].concat()).await;
    let limit = "ready pods: 1 of 3, without a change for 120 s: see the pods";
    assert_eq!((failed.result, failed.seconds), (Err(limit.to_owned()), 204));
}

#[tokio::test(start_paused = true)]
async fn objects_are_read_after_a_change_only() {
    let none = waited(stream::pending().boxed_local(), &[Read::Pods(0)]).await;
    assert_eq!((none.reads, none.seconds), (2, 120), "at the start, and at the limit");
    let after = |seconds| stream::once(sleep(Duration::from_secs(seconds)));
    let simultaneous = stream::select_all([after(7), after(7), after(7)].map(Box::pin));
    let changes = simultaneous.chain(stream::pending()).boxed_local();
    let done = waited(changes, &[Read::Pods(0), Read::Pods(3)]).await;
    assert_eq!((done.result, done.reads, done.seconds), (Ok(()), 2, 7));
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_api_server_does_not_end_the_wait() {
    let note = "note: ready pods: connection refused: this command tries again";
    let outage = vec![Read::Refused; 90];
    let reads = [vec![Read::Pods(1)], outage.clone(), vec![Read::Pods(3)]].concat();
    let done = waited(each_second(), &reads).await;
    let lines = ["ready pods: 1 of 3", note, "ready pods: 3 of 3"];
    assert_eq!((done.lines, done.result), (lines.map(str::to_owned).to_vec(), Ok(())));
    let failed = waited(stream::pending().boxed_local(), &outage).await;
    let limit = "ready pods, without a change for 120 s (connection refused): see the pods";
    assert_eq!((failed.result, failed.seconds), (Err(limit.to_owned()), 120));
}

#[tokio::test(start_paused = true)]
async fn a_read_without_a_reply_ends() {
    let reads = [Read::Pods(1), Read::NoReply];
    let failed = waited(each_second(), &reads).await;
    let limit = "ready pods: 1 of 3, without a change for 120 s (the API server does not reply): \
                 see the pods";
    assert_eq!(failed.result, Err(limit.to_owned()));
    let done = waited(each_second(), &[&reads[..], &[Read::Pods(3)]].concat()).await;
    assert_eq!((done.result, done.seconds), (Ok(()), 11));
}
