//! A slow connection to the API server: a TCP relay that delays everything the server sends. The
//! relay neither loses nor reorders data, and cannot decrypt the connections.

use anyhow::{Context, Result, anyhow, ensure};
use ferrolb_lab::cluster::ferrolb::{CONTROLLER, kubeconfig};
use ferrolb_lab::topology::{CONTROL_PLANE, Host};
use ferrolb_lab::{Lab, netns};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Size of a read, in bytes.
const CHUNK_BYTES: usize = 16 << 10;
/// Maximum number of delayed chunks of one connection. While a connection has as many, the relay
/// reads no more from the server.
const CHUNKS_MAX: usize = 1024;

/// Port of the API server, and port of the relay. Both use the same address, so the certificate of
/// the API server is valid for both.
const PORTS: [u16; 2] = [6443, 7443];

/// A relay that runs until it is dropped.
pub(crate) struct Relay {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Relay {
    /// Starts a relay and writes its port into the controller's kubeconfig: a controller that
    /// starts afterwards receives every reply of the API server later by `delay`.
    ///
    /// All other clients connect directly.
    pub(crate) fn before_api(lab: &Lab, delay: Duration) -> Result<Self> {
        let path = kubeconfig(lab.state(), CONTROLLER);
        let [server, relay] =
            PORTS.map(|port| SocketAddr::new(Host::control_plane().v4().into(), port));
        let text = fs::read_to_string(&path)?;
        ensure!(text.contains(&server.to_string()), "{} does not name {server}", path.display());
        fs::write(&path, text.replace(&server.to_string(), &relay.to_string()))?;
        Self::start(lab, relay, server, delay)
    }

    /// Starts a relay on the control plane's host that listens on `listen` and connects to
    /// `server`.
    fn start(lab: &Lab, listen: SocketAddr, server: SocketAddr, delay: Duration) -> Result<Self> {
        let namespace = lab.state().name.namespace(CONTROL_PLANE);
        let (stop, stopped) = oneshot::channel();
        let (started, wait_started) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            netns::enter(&namespace)?;
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
                let listener =
                    TcpListener::bind(listen).await.context("cannot listen on the relay's port")?;
                started.send(())?;
                tokio::select! {
                    result = accept_connections(&listener, server, delay) => result,
                    _ = stopped => Ok(()),
                }
            })
        });
        let relay = Self { stop: Some(stop), thread: Some(thread) };
        wait_started.recv().map_err(|_| anyhow!("the relay did not start"))?;
        Ok(relay)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            println!("the relay failed: {error:#}");
        }
    }
}

/// Accepts clients and relays each connection in a task of its own.
async fn accept_connections(
    listener: &TcpListener,
    server: SocketAddr,
    delay: Duration,
) -> Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await?;
        // A failed connection needs no report: both ends detect the failure.
        connections.spawn(relay_connection(client, server, delay));
        while connections.try_join_next().is_some() {}
    }
}

async fn relay_connection(
    client: TcpStream,
    server: SocketAddr,
    delay: Duration,
) -> io::Result<()> {
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = TcpStream::connect(server).await?.into_split();
    let (chunks, queue) = mpsc::channel(CHUNKS_MAX);
    let requests = async {
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    tokio::try_join!(
        requests,
        read_delayed(from_server, chunks, delay),
        write_when_due(queue, to_client)
    )
    .map(drop)
}

/// Reads chunks from the server and queues each one with the time at which the client gets it.
async fn read_delayed(
    mut server: OwnedReadHalf,
    chunks: mpsc::Sender<(Instant, Vec<u8>)>,
    delay: Duration,
) -> io::Result<()> {
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let read = server.read_buf(&mut chunk).await?;
        // An empty chunk marks the end of the stream, so that the end is delayed too.
        if chunks.send((Instant::now() + delay, chunk)).await.is_err() || read == 0 {
            return Ok(());
        }
    }
}

/// Writes each queued chunk to the client when it is due.
async fn write_when_due(
    mut queue: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut client: OwnedWriteHalf,
) -> io::Result<()> {
    while let Some((due, chunk)) = queue.recv().await {
        tokio::time::sleep_until(due).await;
        client.write_all(&chunk).await?;
    }
    client.shutdown().await
}
