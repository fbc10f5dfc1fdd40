//! Servers on the BGP port that are not routers: each server misbehaves in its own way and counts
//! its connections.

use anyhow::Result;
use ferrolb_lab::{Lab, netns, wait};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The port of BGP (RFC 4271 section 8.2.1).
const PORT: u16 = 179;
/// Maximum time for which the servers run: longer than any scenario.
const SCENARIO_MAX: Duration = Duration::from_secs(600);
/// Number of bytes that the server `garbage` sends.
const GARBAGE_BYTES: u32 = 4096;

/// Behavior of a server towards each client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misbehavior {
    /// Sends bytes that are not BGP, and keeps the connection open.
    Garbage,
    /// Sends a BGP header with an invalid length (RFC 4271 section 4.1), and keeps the connection
    /// open.
    Length,
    /// Closes the connection at once.
    Closes,
    /// Sends nothing, and keeps the connection open.
    Silent,
}

impl Misbehavior {
    pub(super) const ALL: [Self; 4] = [Self::Garbage, Self::Length, Self::Closes, Self::Silent];

    /// Returns the name of the server's BGPPeer.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Garbage => "garbage",
            Self::Length => "length",
            Self::Closes => "closes",
            Self::Silent => "silent",
        }
    }

    /// Returns the address on which the server listens.
    pub(super) const fn address(self) -> Ipv4Addr {
        let last = match self {
            Self::Garbage => 151,
            Self::Length => 152,
            Self::Closes => 153,
            Self::Silent => 154,
        };
        Ipv4Addr::new(172, 30, 0, last)
    }

    /// Returns a part of the issue that FerroLB reports for the session.
    pub(super) const fn issue(self) -> &'static str {
        match self {
            Self::Garbage | Self::Length => "did not send a BGP OPEN",
            Self::Closes | Self::Silent => "accepts the connection and sends no OPEN",
        }
    }

    /// Serves a connection, and returns the connection if it stays open. Ignores errors, because
    /// the client may have closed the connection.
    fn serve(self, mut stream: TcpStream) -> Option<TcpStream> {
        let bytes = match self {
            Self::Garbage => (0..GARBAGE_BYTES)
                .map(|index| index.wrapping_mul(2_654_435_761).to_be_bytes()[0])
                .collect(),
            Self::Length => [[0xff; 16].as_slice(), &u16::MAX.to_be_bytes(), &[1]].concat(),
            Self::Closes => return None,
            Self::Silent => Vec::new(),
        };
        let _ = stream.write_all(&bytes);
        Some(stream)
    }
}

/// Running servers, one for each misbehavior.
#[derive(Debug)]
pub(super) struct MisbehavingServers {
    stop: Arc<AtomicBool>,
    connections: Arc<[AtomicUsize; 4]>,
    thread: JoinHandle<Result<()>>,
}

impl MisbehavingServers {
    /// Starts all servers on a host, each at an address of its own.
    pub(super) fn start(lab: &Lab, host: &str) -> Result<Self> {
        for misbehavior in Misbehavior::ALL {
            lab.exec(
                host,
                &["ip", "address", "add", &format!("{}/24", misbehavior.address()), "dev", "eth0"],
            )?;
        }
        let listeners = lab.within(host, || {
            Misbehavior::ALL.into_iter().map(listen).collect::<Result<Vec<_>>>()
        })??;
        let (stop, connections) =
            (Arc::new(AtomicBool::new(false)), Arc::new([const { AtomicUsize::new(0) }; 4]));
        let (stopped, counts) = (Arc::clone(&stop), Arc::clone(&connections));
        let namespace = lab.state().name.namespace(host);
        let thread = std::thread::spawn(move || {
            netns::enter(&namespace)?;
            let mut open = Vec::new();
            wait::until("the test stops the servers", SCENARIO_MAX, || {
                for ((misbehavior, listener), count) in listeners.iter().zip(&*counts) {
                    while let Ok((stream, _)) = listener.accept() {
                        count.fetch_add(1, Ordering::Relaxed);
                        open.extend(misbehavior.serve(stream));
                    }
                }
                Ok(stopped.load(Ordering::Relaxed).then_some(()))
            })
        });
        Ok(Self { stop, connections, thread })
    }

    /// Returns the number of connections to each server, in the order of [`Misbehavior::ALL`].
    pub(super) fn connections(&self) -> [usize; 4] {
        [0, 1, 2, 3].map(|index: usize| self.connections[index].load(Ordering::Relaxed))
    }

    /// Stops the servers and closes all connections.
    pub(super) fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn listen(misbehavior: Misbehavior) -> Result<(Misbehavior, TcpListener)> {
    let listener = TcpListener::bind(SocketAddr::new(misbehavior.address().into(), PORT))?;
    listener.set_nonblocking(true)?;
    Ok((misbehavior, listener))
}
