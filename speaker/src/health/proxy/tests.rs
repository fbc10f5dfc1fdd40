//! The driver against a server on this machine. What is judged is the machine's affair; here it is what is asked, and what is said.

use std::net::Ipv4Addr;

use ferrolb_proto::api::DataPathState;
use ferrolb_proto::health::data_path::{Families, Situation};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

const LIVE: (u16, &str) = (200, r#"{"lastUpdated":"2026","healthy":true,"status":{"IPv4":{"healthy":true}}}"#);
const LATE: (u16, &str) = (503, r#"{"lastUpdated":"2026","healthy":false,"status":{"IPv4":{"healthy":false}}}"#);
const ELIGIBLE: (u16, &str) = (200, r#"{"nodeEligible":true}"#);
const INELIGIBLE: (u16, &str) = (503, r#"{"nodeEligible":false}"#);
const WITNESS: (u16, &str) = (503, r#"{"localEndpoints":0,"serviceProxyHealthy":true}"#);
const NONE: (u16, &str) = (404, "");

/// How long a test waits for a word, on a busy machine, before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the server answers by path.
#[derive(Clone, Copy)]
struct Script {
    livez: (u16, &'static str),
    healthz: (u16, &'static str),
    root: (u16, &'static str),
}

const GOOD: Script = Script { livez: LIVE, healthz: ELIGIBLE, root: NONE };

/// A server that counts what it was asked.
struct Server {
    address: SocketAddr,
    script: watch::Sender<Script>,
    asked: watch::Receiver<usize>,
    _task: JoinSet<()>,
}

impl Server {
    async fn start(script: Script) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (script, scripts) = watch::channel(script);
        let (count, asked) = watch::channel(0);
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 1024];
                let length = stream.read(&mut head).await.unwrap();
                let head = String::from_utf8_lossy(&head[..length]).into_owned();
                let Script { livez, healthz, root } = *scripts.borrow();
                let (status, body) = match head.split(' ').nth(1) {
                    Some("/livez") => livez,
                    Some("/healthz") => healthz,
                    Some("/") => root,
                    _ => NONE,
                };
                let page = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(page.as_bytes()).await.unwrap();
                count.send_modify(|count| *count += 1);
            }
        });
        Self { address, script, asked, _task: task }
    }

    /// Waits until it was asked so often from now on.
    async fn asked(&mut self, more: usize) {
        let before = *self.asked.borrow();
        self.asked.wait_for(|count| *count >= before + more).await.unwrap();
    }
}

/// An address of this machine at which nobody listens.
fn nobody(which: u8) -> SocketAddr {
    (Ipv4Addr::new(127, 1, 1, which), 1).into()
}

/// A driver that runs, with what it says.
struct Driver {
    questions: watch::Sender<Questions>,
    events: mpsc::Receiver<Event>,
    registry: Registry,
    _task: JoinSet<()>,
}

impl Driver {
    fn start(mode: Mode, servers: &[SocketAddr], witnesses: &[SocketAddr]) -> Self {
        let needed = Families { v4: true, v6: false };
        let situation = Situation { ready: true, elsewhere: false, unrouted: false, needed };
        let questions = Questions { servers: servers.into(), witnesses: witnesses.into(), situation };
        let (questions, asked) = watch::channel(questions);
        let (sender, events) = mpsc::channel(16);
        let mut registry = Registry::default();
        let (config, metrics) = (Config { mode, fall: 2, rise: 3 }, DataPathMetrics::new(&mut registry));
        let mut task = JoinSet::new();
        task.spawn(ProxyHealth::new(config, Duration::from_millis(1), metrics, sender).run(asked));
        Self { questions, events, registry, _task: task }
    }

    /// The next thing it says but that it knows nothing yet.
    async fn says(&mut self) -> Judgement {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("a word in time");
            let Some(Event::DataPath(judgement)) = event else { panic!("not of the data path") };
            if judgement.state != DataPathState::Unknown {
                return judgement;
            }
        }
    }

    fn metric(&self, line: &str) -> bool {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text.contains(&format!("\n{line}"))
    }
}

#[tokio::test]
async fn what_kube_proxy_says_is_told_when_it_changes_and_never_again() {
    let mut server = Server::start(GOOD).await;
    let mut driver = Driver::start(Mode::Auto, &[server.address], &[]);
    let first = driver.says().await;
    assert_eq!((first.state, first.ineligible), (DataPathState::Healthy, false));
    assert_eq!(*first.message, *format!("http://{}/livez says that kube-proxy works", server.address));
    server.asked(20).await;
    assert!(driver.events.try_recv().is_err(), "ten rounds that say the same");
    assert!(driver.metric("data_path_healthy 1\n") && driver.metric("data_path_checks_total{outcome=\"good\"} "));
    server.script.send_replace(Script { livez: LATE, ..GOOD });
    let late = driver.says().await;
    assert_eq!(late.state, DataPathState::Unhealthy);
    assert!(late.message.contains("late with its rules for IPv4"), "{}", late.message);
    assert!(driver.metric("data_path_healthy 0\n") && driver.metric("data_path_checks_total{outcome=\"bad\"} 2\n"));
    server.script.send_replace(GOOD);
    assert_eq!(driver.says().await.state, DataPathState::Healthy);
    server.script.send_replace(Script { healthz: INELIGIBLE, ..GOOD });
    let ineligible = driver.says().await;
    assert_eq!((ineligible.state, ineligible.ineligible), (DataPathState::Healthy, true));
}

#[tokio::test]
async fn where_nobody_listens_the_next_server_is_asked_and_then_the_node_ports_in_turn() {
    let server = Server::start(GOOD).await;
    let mut driver = Driver::start(Mode::Auto, &[nobody(1), server.address], &[]);
    let judgement = driver.says().await;
    assert_eq!(judgement.state, DataPathState::Healthy);
    assert!(judgement.message.contains(&server.address.to_string()), "{}", judgement.message);

    let witness = Server::start(Script { root: WITNESS, livez: NONE, healthz: NONE }).await;
    let mut driver = Driver::start(Mode::Auto, &[nobody(1), nobody(2)], &[nobody(3), witness.address]);
    assert_eq!(driver.says().await.state, DataPathState::NotChecked, "the first port is nobody's, too");
    let judgement = driver.says().await;
    assert_eq!(judgement.state, DataPathState::Healthy);
    assert!(
        judgement.message.starts_with(&format!("nothing listens at http://{}/livez", nobody(1))),
        "{}",
        judgement.message
    );
    assert!(driver.metric("data_path_checks_total{outcome=\"refused\"} 1\n"));
}

#[tokio::test]
async fn a_stranger_on_the_port_is_no_kube_proxy() {
    let stranger = Server::start(Script { livez: (200, "<html>welcome"), healthz: (200, "null"), root: NONE }).await;
    let mut driver = Driver::start(Mode::Required, &[stranger.address], &[]);
    let judgement = driver.says().await;
    assert_eq!((judgement.state, judgement.ineligible), (DataPathState::Unhealthy, false));
    assert!(judgement.message.contains("none of kube-proxy's"), "{}", judgement.message);
}

#[tokio::test]
async fn nobody_is_asked_where_it_is_off_and_none_before_it_is_known_whom() {
    let (off, mut on) = (Server::start(GOOD).await, Server::start(GOOD).await);
    let mut silent = Driver::start(Mode::Off, &[off.address], &[]);
    let mut waiting = Driver::start(Mode::Auto, &[], &[]);
    let mut loud = Driver::start(Mode::Auto, &[on.address], &[]);
    assert_eq!(silent.says().await.state, DataPathState::NotChecked);
    assert_eq!(loud.says().await.state, DataPathState::Healthy);
    on.asked(20).await;
    assert_eq!(*off.asked.borrow(), 0);
    assert!(!waiting.metric("data_path_checks_total{"), "no round, no outcome");
    waiting.questions.send_modify(|questions| questions.servers = [on.address].into());
    assert_eq!(waiting.says().await.state, DataPathState::Healthy);
}

#[tokio::test]
async fn the_situation_counts_between_two_rounds() {
    let mut driver = Driver::start(Mode::Auto, &[nobody(1)], &[]);
    assert_eq!(driver.says().await.state, DataPathState::NotChecked);
    driver.questions.send_modify(|questions| questions.situation.elsewhere = true);
    assert_eq!(driver.says().await.state, DataPathState::Unhealthy);
    let (ended, events) = (driver.questions, &mut driver.events);
    drop(ended);
    assert!(events.recv().await.is_none(), "it ends with its sender");
}
