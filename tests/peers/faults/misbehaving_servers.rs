//! Servers on the BGP port that are not routers: the behavior of each, and the number of
//! connections to it.

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
/// Longer than any scenario.
const SCENARIO_MAX: Duration = Duration::from_secs(600);
/// Number of bytes that are not BGP.
const GARBAGE: u32 = 4096;

/// Behavior of a server towards each client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misbehavior {
    /// Sends bytes that are not BGP, and waits.
    Garbage,
    /// Sends a header with an invalid length (RFC 4271 section 4.1), and waits.
    Length,
    /// Closes the connection at once.
    Closes,
    /// Never sends anything.
    Silent,
}

impl Misbehavior {
    pub(super) const ALL: [Self; 4] = [Self::Garbage, Self::Length, Self::Closes, Self::Silent];

    /// Returns the name of the server's BGPPeer.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Garbage => "garbage",
            Self::Length => "length",
            Self::Closes => "hangs-up",
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

    /// Serves a connection, and returns it if it stays open. Errors are ignored, because the client
    /// may have closed it.
    fn serve(self, mut stream: TcpStream) -> Option<TcpStream> {
        let words = match self {
            Self::Garbage => {
                (0..GARBAGE).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
            }
            Self::Length => [[0xff; 16].as_slice(), &u16::MAX.to_be_bytes(), &[1]].concat(),
            Self::Closes => return None,
            Self::Silent => Vec::new(),
        };
        let _ = stream.write_all(&words);
        Some(stream)
    }
}

/// A server of each behavior, until [`MisbehavingServers::stop`].
#[derive(Debug)]
pub(super) struct MisbehavingServers {
    stop: Arc<AtomicBool>,
    connections: Arc<[AtomicUsize; 4]>,
    thread: JoinHandle<Result<()>>,
}

impl MisbehavingServers {
    /// Starts all servers on a host, each at an address of its own.
    pub(super) fn start(lab: &Lab, host: &str) -> Result<Self> {
        for manner in Misbehavior::ALL {
            lab.exec(
                host,
                &["ip", "address", "add", &format!("{}/24", manner.address()), "dev", "eth0"],
            )?;
        }
        let listeners = lab.within(host, || {
            Misbehavior::ALL.into_iter().map(listen).collect::<Result<Vec<_>>>()
        })??;
        let (stop, met) =
            (Arc::new(AtomicBool::new(false)), Arc::new([const { AtomicUsize::new(0) }; 4]));
        let (stopped, counts) = (Arc::clone(&stop), Arc::clone(&met));
        let namespace = lab.state().name.namespace(host);
        let thread = std::thread::spawn(move || {
            netns::enter(&namespace)?;
            let mut open = Vec::new();
            wait::until("the servers are told to end", SCENARIO_MAX, || {
                for ((manner, listener), count) in listeners.iter().zip(&*counts) {
                    while let Ok((stream, _)) = listener.accept() {
                        count.fetch_add(1, Ordering::Relaxed);
                        open.extend(manner.serve(stream));
                    }
                }
                Ok(stopped.load(Ordering::Relaxed).then_some(()))
            })
        });
        Ok(Self { stop, connections: met, thread })
    }

    /// Returns the number of connections to each server, in the order of [`Misbehavior::ALL`].
    pub(super) fn connections(&self) -> [usize; 4] {
        [0, 1, 2, 3].map(|at: usize| self.connections[at].load(Ordering::Relaxed))
    }

    /// Stops the servers and closes all connections.
    pub(super) fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn listen(manner: Misbehavior) -> Result<(Misbehavior, TcpListener)> {
    let listener = TcpListener::bind(SocketAddr::new(manner.address().into(), PORT))?;
    listener.set_nonblocking(true)?;
    Ok((manner, listener))
}
