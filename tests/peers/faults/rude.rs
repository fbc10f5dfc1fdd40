//! Servers on the port of BGP that are no routers: what they do to who connects, and how often somebody has.

use anyhow::Result;
use ferrolb_tests::{Lab, netns, wait};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The port of BGP (RFC 4271 section 8.2.1).
const PORT: u16 = 179;
/// No story is longer.
const STORY_MAX: Duration = Duration::from_secs(600);
/// So many bytes of what is no BGP.
const GARBAGE: u32 = 4096;

/// What a server does to who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Sends what is no BGP, and waits for more.
    Garbage,
    /// Sends a header whose length no message can have (RFC 4271 section 4.1), and waits for more.
    Length,
    /// Hangs up at once.
    HangsUp,
    /// Says nothing, ever.
    Silent,
}

impl Manner {
    pub(super) const ALL: [Self; 4] = [Self::Garbage, Self::Length, Self::HangsUp, Self::Silent];

    /// What the BGPPeer for it is called.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Garbage => "garbage",
            Self::Length => "length",
            Self::HangsUp => "hangs-up",
            Self::Silent => "silent",
        }
    }

    /// Where it listens.
    pub(super) const fn address(self) -> Ipv4Addr {
        let last = match self {
            Self::Garbage => 151,
            Self::Length => 152,
            Self::HangsUp => 153,
            Self::Silent => 154,
        };
        Ipv4Addr::new(172, 30, 0, last)
    }

    /// What its BGPPeer is to say.
    pub(super) const fn said(self) -> &'static str {
        match self {
            Self::Garbage | Self::Length => "sent nothing that is an OPEN of BGP",
            Self::HangsUp | Self::Silent => "takes the connection and says nothing",
        }
    }

    /// A connection that goes on, if it does. One that the other side has ended is of no interest.
    fn meet(self, mut stream: TcpStream) -> Option<TcpStream> {
        let words = match self {
            Self::Garbage => (0..GARBAGE).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect(),
            Self::Length => [[0xff; 16].as_slice(), &u16::MAX.to_be_bytes(), &[1]].concat(),
            Self::HangsUp => return None,
            Self::Silent => Vec::new(),
        };
        let _ = stream.write_all(&words);
        Some(stream)
    }
}

/// A server of each manner, which ends when it is told.
#[derive(Debug)]
pub(super) struct Servers {
    stop: Arc<AtomicBool>,
    met: Arc<[AtomicUsize; 4]>,
    thread: JoinHandle<Result<()>>,
}

impl Servers {
    /// Starts all of them on a host, each at an address of its own.
    pub(super) fn start(lab: &Lab, host: &str) -> Result<Self> {
        for manner in Manner::ALL {
            lab.exec(host, &["ip", "address", "add", &format!("{}/24", manner.address()), "dev", "eth0"])?;
        }
        let listeners = lab.within(host, || Manner::ALL.into_iter().map(listen).collect::<Result<Vec<_>>>())??;
        let (stop, met) = (Arc::new(AtomicBool::new(false)), Arc::new([const { AtomicUsize::new(0) }; 4]));
        let (stopped, counts) = (Arc::clone(&stop), Arc::clone(&met));
        let namespace = lab.state().name.namespace(host);
        let thread = std::thread::spawn(move || {
            netns::enter(&namespace)?;
            let mut open = Vec::new();
            wait::until("the servers are told to end", STORY_MAX, || {
                for ((manner, listener), count) in listeners.iter().zip(&*counts) {
                    while let Ok((stream, _)) = listener.accept() {
                        count.fetch_add(1, Ordering::Relaxed);
                        open.extend(manner.meet(stream));
                    }
                }
                Ok(stopped.load(Ordering::Relaxed).then_some(()))
            })
        });
        Ok(Self { stop, met, thread })
    }

    /// How often somebody has connected to each, in the order of [`Manner::ALL`].
    pub(super) fn met(&self) -> [usize; 4] {
        [0, 1, 2, 3].map(|at: usize| self.met[at].load(Ordering::Relaxed))
    }

    /// Ends them, with all their connections.
    pub(super) fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn listen(manner: Manner) -> Result<(Manner, TcpListener)> {
    let listener = TcpListener::bind(SocketAddr::new(manner.address().into(), PORT))?;
    listener.set_nonblocking(true)?;
    Ok((manner, listener))
}
