//! The driver against a server on this machine. The machine's own tests cover judgements; these
//! cover requests and events.

use std::net::Ipv4Addr;

use ferrolb_proto::api::KubeProxyState;
use ferrolb_proto::health::kube_proxy::{Families, KubeProxyContext};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

const LIVE: (u16, &str) =
    (200, r#"{"lastUpdated":"2026","healthy":true,"status":{"IPv4":{"healthy":true}}}"#);
const LATE: (u16, &str) =
    (503, r#"{"lastUpdated":"2026","healthy":false,"status":{"IPv4":{"healthy":false}}}"#);
const ELIGIBLE: (u16, &str) = (200, r#"{"nodeEligible":true}"#);
const INELIGIBLE: (u16, &str) = (503, r#"{"nodeEligible":false}"#);
const WITNESS: (u16, &str) = (503, r#"{"localEndpoints":0,"serviceProxyHealthy":true}"#);
const NONE: (u16, &str) = (404, "");

/// Timeout of an expected event on a busy machine.
const EVENT_TIMEOUT: Duration = Duration::from_secs(20);

/// The server's responses by path.
#[derive(Clone, Copy)]
struct Script {
    livez: (u16, &'static str),
    healthz: (u16, &'static str),
    root: (u16, &'static str),
}

const GOOD: Script = Script { livez: LIVE, healthz: ELIGIBLE, root: NONE };

/// A server that counts its requests.
struct Server {
    address: SocketAddr,
    script: watch::Sender<Script>,
    requests: watch::Receiver<usize>,
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
                let page =
                    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(page.as_bytes()).await.unwrap();
                count.send_modify(|count| *count += 1);
            }
        });
        Self { address, script, requests: asked, _task: task }
    }

    /// Waits for this many further requests.
    async fn wait_for_requests(&mut self, more: usize) {
        let before = *self.requests.borrow();
        self.requests.wait_for(|count| *count >= before + more).await.unwrap();
    }
}

/// Returns an address of this machine where nothing listens.
fn unused_address(which: u8) -> SocketAddr {
    (Ipv4Addr::new(127, 1, 1, which), 1).into()
}

/// A running driver and its events.
struct ProxyHarness {
    questions: watch::Sender<ProxyTargets>,
    events: mpsc::Receiver<Event>,
    registry: Registry,
    _task: JoinSet<()>,
}

impl ProxyHarness {
    fn start(mode: KubeProxyMode, servers: &[SocketAddr], witnesses: &[SocketAddr]) -> Self {
        let needed = Families { v4: true, v6: false };
        let situation = KubeProxyContext {
            ready: true,
            healthy_elsewhere: false,
            started_without_routes: false,
            needed,
        };
        let questions = ProxyTargets {
            servers: servers.into(),
            health_check_node_ports: witnesses.into(),
            situation,
        };
        let (questions, asked) = watch::channel(questions);
        let (sender, events) = mpsc::channel(16);
        let mut registry = Registry::default();
        let (config, metrics) =
            (KubeProxyConfig { mode, fall: 2, rise: 3 }, ProxyHealthMetrics::new(&mut registry));
        let mut task = JoinSet::new();
        task.spawn(
            ProxyHealthDriver::new(config, Duration::from_millis(1), metrics, sender).run(asked),
        );
        Self { questions, events, registry, _task: task }
    }

    /// Returns the next judgement other than unknown.
    async fn next_judgement(&mut self) -> KubeProxyHealth {
        loop {
            let event = tokio::time::timeout(EVENT_TIMEOUT, self.events.recv())
                .await
                .expect("a word in time");
            let Some(Event::ProxyHealth(judgement)) = event else { panic!("not of the data path") };
            if judgement.state != KubeProxyState::Unknown {
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
    let mut driver = ProxyHarness::start(KubeProxyMode::Auto, &[server.address], &[]);
    let first = driver.next_judgement().await;
    assert_eq!((first.state, first.ineligible), (KubeProxyState::Healthy, false));
    assert_eq!(
        *first.message,
        *format!("http://{}/livez reports a healthy kube-proxy", server.address)
    );
    server.wait_for_requests(20).await;
    assert!(driver.events.try_recv().is_err(), "ten rounds that say the same");
    assert!(
        driver.metric("data_path_healthy 1\n")
            && driver.metric("data_path_checks_total{outcome=\"good\"} ")
    );
    server.script.send_replace(Script { livez: LATE, ..GOOD });
    let late = driver.next_judgement().await;
    assert_eq!(late.state, KubeProxyState::Unhealthy);
    assert!(late.message.contains("the rules of kube-proxy are late for IPv4"), "{}", late.message);
    assert!(
        driver.metric("data_path_healthy 0\n")
            && driver.metric("data_path_checks_total{outcome=\"bad\"} 2\n")
    );
    server.script.send_replace(GOOD);
    assert_eq!(driver.next_judgement().await.state, KubeProxyState::Healthy);
    server.script.send_replace(Script { healthz: INELIGIBLE, ..GOOD });
    let ineligible = driver.next_judgement().await;
    assert_eq!((ineligible.state, ineligible.ineligible), (KubeProxyState::Healthy, true));
}

#[tokio::test]
async fn where_nobody_listens_the_next_server_is_asked_and_then_the_node_ports_in_turn() {
    let server = Server::start(GOOD).await;
    let mut driver =
        ProxyHarness::start(KubeProxyMode::Auto, &[unused_address(1), server.address], &[]);
    let judgement = driver.next_judgement().await;
    assert_eq!(judgement.state, KubeProxyState::Healthy);
    assert!(judgement.message.contains(&server.address.to_string()), "{}", judgement.message);

    let witness = Server::start(Script { root: WITNESS, livez: NONE, healthz: NONE }).await;
    let mut driver = ProxyHarness::start(
        KubeProxyMode::Auto,
        &[unused_address(1), unused_address(2)],
        &[unused_address(3), witness.address],
    );
    assert_eq!(
        driver.next_judgement().await.state,
        KubeProxyState::NotChecked,
        "the first port is nobody's, too"
    );
    let judgement = driver.next_judgement().await;
    assert_eq!(judgement.state, KubeProxyState::Healthy);
    assert!(
        judgement
            .message
            .starts_with(&format!("nothing listens at http://{}/livez", unused_address(1))),
        "{}",
        judgement.message
    );
    assert!(driver.metric("data_path_checks_total{outcome=\"refused\"} 1\n"));
}

#[tokio::test]
async fn a_stranger_on_the_port_is_no_kube_proxy() {
    let stranger =
        Server::start(Script { livez: (200, "<html>welcome"), healthz: (200, "null"), root: NONE })
            .await;
    let mut driver = ProxyHarness::start(KubeProxyMode::Required, &[stranger.address], &[]);
    let judgement = driver.next_judgement().await;
    assert_eq!((judgement.state, judgement.ineligible), (KubeProxyState::Unhealthy, false));
    assert!(judgement.message.contains("not from kube-proxy"), "{}", judgement.message);
}

#[tokio::test]
async fn nobody_is_asked_where_it_is_off_and_none_before_it_is_known_whom() {
    let (off, mut on) = (Server::start(GOOD).await, Server::start(GOOD).await);
    let mut silent = ProxyHarness::start(KubeProxyMode::Off, &[off.address], &[]);
    let mut waiting = ProxyHarness::start(KubeProxyMode::Auto, &[], &[]);
    let mut loud = ProxyHarness::start(KubeProxyMode::Auto, &[on.address], &[]);
    assert_eq!(silent.next_judgement().await.state, KubeProxyState::NotChecked);
    assert_eq!(loud.next_judgement().await.state, KubeProxyState::Healthy);
    on.wait_for_requests(20).await;
    assert_eq!(*off.requests.borrow(), 0);
    assert!(!waiting.metric("data_path_checks_total{"), "no round, no outcome");
    waiting.questions.send_modify(|questions| questions.servers = [on.address].into());
    assert_eq!(waiting.next_judgement().await.state, KubeProxyState::Healthy);
}

#[tokio::test]
async fn the_situation_counts_between_two_rounds() {
    let mut driver = ProxyHarness::start(KubeProxyMode::Auto, &[unused_address(1)], &[]);
    assert_eq!(driver.next_judgement().await.state, KubeProxyState::NotChecked);
    driver.questions.send_modify(|questions| questions.situation.healthy_elsewhere = true);
    assert_eq!(driver.next_judgement().await.state, KubeProxyState::Unhealthy);
    let (ended, events) = (driver.questions, &mut driver.events);
    drop(ended);
    assert!(events.recv().await.is_none(), "it ends with its sender");
}
