//! The program itself, started twice for one node: the second process waits until the first has
//! ended.

use std::io::{BufRead, BufReader};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, channel};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, socket};
use rustix::thread::{Uid, set_thread_res_uid};

use crate::segment::Segment;
use crate::speaker::TIMEOUT;

/// Credentials for an API server that does not exist.
const KUBECONFIG: &str = r#"
current-context: x
contexts: [{name: x, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
"#;
static KUBECONFIG_FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("kubeconfig-of-no-cluster");
    std::fs::write(&file, KUBECONFIG).expect("a temporary file");
    file
});
const STARTED: &str = "speaker started";
const WAITING: &str = "another speaker runs on this node, waiting";
const CANNOT_DETECT: &str = "cannot detect another speaker";

/// A running speaker and its log.
struct SpeakerProcess {
    child: Child,
    log: Receiver<String>,
}

impl SpeakerProcess {
    fn start(lan: &Segment, host: &str, node: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ferrolb-speaker"));
        command
            .args([&format!("--node-name={node}"), "--admin-listen=127.0.0.1:0"])
            .env("KUBECONFIG", &*KUBECONFIG_FILE);
        let mut child = lan
            .inside(host, || command.stderr(Stdio::piped()).spawn())
            .expect("the speaker starts");
        let (lines, log) = channel();
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
        });
        Self { child, log }
    }

    /// Waits for a log line that contains one of the known texts. Returns the text and the line.
    fn next_log_text(&self) -> (&'static str, String) {
        loop {
            let line = self.log.recv_timeout(TIMEOUT).expect("a line of the log");
            if let Some(text) =
                [STARTED, WAITING, CANNOT_DETECT].into_iter().find(|text| line.contains(text))
            {
                return (text, line);
            }
        }
    }
}

impl Drop for SpeakerProcess {
    fn drop(&mut self) {
        self.child.kill().expect("the speaker runs");
        self.child.wait().expect("the speaker ends");
    }
}

#[test]
fn a_second_speaker_of_a_node_waits_until_the_first_has_ended() {
    let lan = Segment::new(&["node1", "node2"]);
    let first = SpeakerProcess::start(&lan, "node1", "node1");
    assert_eq!(first.next_log_text().0, STARTED);
    let second = SpeakerProcess::start(&lan, "node1", "node1");
    assert_eq!(second.next_log_text().0, WAITING);
    let [other_node, other_host] = [("node1", "node2"), ("node2", "node1")];
    for (host, node) in [other_node, other_host] {
        assert_eq!(
            SpeakerProcess::start(&lan, host, node).next_log_text().0,
            STARTED,
            "the speaker of {node} on {host} does not start"
        );
    }
    drop(first);
    assert_eq!(second.next_log_text().0, STARTED);
}

/// Returns the name of the socket of the speaker of `node1`.
fn socket_name(lan: &Segment) -> String {
    let first = SpeakerProcess::start(lan, "node1", "node1");
    assert_eq!(first.next_log_text().0, STARTED);
    let (_, line) = SpeakerProcess::start(lan, "node1", "node1").next_log_text();
    let mut words = line.split(['@', '"', ' ']);
    words.find(|word| word.starts_with("ferrolb-speaker-")).expect("the socket's name").to_owned()
}

#[test]
fn a_process_that_accepts_no_connection_does_not_block_the_speaker() {
    let lan = Segment::new(&["node1"]);
    let name = socket_name(&lan);
    let bound = lan.inside("node1", || {
        let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).expect("a name");
        bind(&socket, &address).expect("a free name");
        socket
    });
    let speaker = SpeakerProcess::start(&lan, "node1", "node1");
    assert_eq!([speaker.next_log_text().0, speaker.next_log_text().0], [CANNOT_DETECT, STARTED]);
    drop(bound);
}

#[test]
fn a_process_of_another_user_does_not_block_the_speaker() {
    let lan = Segment::new(&["node1"]);
    let name = socket_name(&lan);
    let occupied_socket = lan.inside("node1", || {
        let nobody = Uid::from_raw(65_534);
        set_thread_res_uid(nobody, nobody, nobody).expect("root is needed");
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).expect("a name"))
            .expect("a socket")
    });
    let speaker = SpeakerProcess::start(&lan, "node1", "node1");
    assert_eq!([speaker.next_log_text().0, speaker.next_log_text().0], [CANNOT_DETECT, STARTED]);
    drop(occupied_socket);
}
