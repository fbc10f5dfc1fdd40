//! A slow connection to the API server: a TCP relay that delays everything the server sends. It
//! loses and reorders nothing, and cannot read the encrypted connections.

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
/// Number of delayed chunks on one connection before the server has to wait.
const CHUNKS_MAX: usize = 1024;

/// Port of the API server, and port of the relay. Both have the same address, so the same
/// certificate is valid.
const PORTS: [u16; 2] = [6443, 7443];

/// A relay that runs until it is dropped.
pub(crate) struct Relay {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Relay {
    /// Redirects the controller's kubeconfig to a relay: for a controller that starts after this,
    /// every reply of the API server takes `delay` longer.
    ///
    /// All other clients connect directly.
    pub(crate) fn before_api(lab: &Lab, delay: Duration) -> Result<Self> {
        let settings = kubeconfig(lab.state(), CONTROLLER);
        let [server, slow] =
            PORTS.map(|port| SocketAddr::new(Host::control_plane().v4().into(), port));
        let text = fs::read_to_string(&settings)?;
        ensure!(
            text.contains(&server.to_string()),
            "{} does not name {server}",
            settings.display()
        );
        fs::write(&settings, text.replace(&server.to_string(), &slow.to_string()))?;
        Self::start(lab, slow, server, delay)
    }

    /// Starts a relay on the control plane's host.
    fn start(lab: &Lab, listen: SocketAddr, server: SocketAddr, delay: Duration) -> Result<Self> {
        let namespace = lab.state().name.namespace(CONTROL_PLANE);
        let (leave, left) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            netns::enter(&namespace)?;
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
                let listener = TcpListener::bind(listen).await.context("the relay's port")?;
                ready.send(())?;
                tokio::select! {
                    failed = relay(&listener, server, delay) => failed,
                    _ = left => Ok(()),
                }
            })
        });
        let relay = Self { stop: Some(leave), thread: Some(thread) };
        is_ready.recv().map_err(|_| anyhow!("the relay did not start"))?;
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

async fn relay(listener: &TcpListener, server: SocketAddr, delay: Duration) -> Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await?;
        // A broken connection is for its two ends to notice.
        connections.spawn(connection(client, server, delay));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(client: TcpStream, server: SocketAddr, delay: Duration) -> io::Result<()> {
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = TcpStream::connect(server).await?.into_split();
    let (chunks, held) = mpsc::channel(CHUNKS_MAX);
    let ask = async {
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    tokio::try_join!(ask, read_delayed(from_server, chunks, delay), write_when_due(held, to_client))
        .map(drop)
}

/// Reads chunks from the server and queues each with the time at which it is due.
async fn read_delayed(
    mut server: OwnedReadHalf,
    chunks: mpsc::Sender<(Instant, Vec<u8>)>,
    delay: Duration,
) -> io::Result<()> {
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let read = server.read_buf(&mut chunk).await?;
        // An empty chunk marks the end of the stream, which is delayed too.
        if chunks.send((Instant::now() + delay, chunk)).await.is_err() || read == 0 {
            return Ok(());
        }
    }
}

/// Writes each queued chunk to the client when it is due.
async fn write_when_due(
    mut held: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut client: OwnedWriteHalf,
) -> io::Result<()> {
    while let Some((due, chunk)) = held.recv().await {
        tokio::time::sleep_until(due).await;
        client.write_all(&chunk).await?;
    }
    client.shutdown().await
}
