//! Metrics of the second path. The main loop creates them. The thread of the second path and the
//! threads of the interfaces update them without a lock.

use ferrolb_proto::wire::hello::HelloDecodeError;
use ferrolb_runtime::metrics::registered;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Reason for which a datagram of the second path was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramDrop {
    /// Its source is no InternalIP of a Node.
    UnknownSource,
    /// Its source has sent too many datagrams.
    RateLimit,
    /// Malformed content.
    Malformed,
    /// Unsupported protocol version.
    Version,
    /// Datagram of another cluster, or signed with a key that this speaker has not received yet.
    ForeignKey,
    /// Invalid signature.
    Signature,
    /// The queue of an interface's thread, or of the driver that watches nodes, was full.
    LinkQueue,
    /// The kernel dropped the datagram because the socket's queue was full.
    Kernel,
    /// Outgoing datagram that could not be sent: the kernel rejected it, the receiver's address is
    /// unknown, or the port is not open.
    SendRejected,
}

impl From<HelloDecodeError> for DatagramDrop {
    fn from(error: HelloDecodeError) -> Self {
        match error {
            HelloDecodeError::Malformed => Self::Malformed,
            HelloDecodeError::Version => Self::Version,
            HelloDecodeError::ForeignKey => Self::ForeignKey,
            HelloDecodeError::Signature => Self::Signature,
        }
    }
}

impl DatagramDrop {
    const ALL: [Self; 9] = [
        Self::UnknownSource,
        Self::RateLimit,
        Self::Malformed,
        Self::Version,
        Self::ForeignKey,
        Self::Signature,
        Self::LinkQueue,
        Self::Kernel,
        Self::SendRejected,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::UnknownSource => "source",
            Self::RateLimit => "rate",
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::ForeignKey => "foreign_key",
            Self::Signature => "signature",
            Self::LinkQueue => "queue",
            Self::Kernel => "kernel",
            Self::SendRejected => "send",
        }
    }
}

/// Metrics of the second path.
#[derive(Clone, Debug)]
pub struct SecondPathMetrics {
    /// Datagrams sent.
    pub sent: Counter,
    /// Valid datagrams received.
    pub received: Counter,
    dropped: [Counter; DatagramDrop::ALL.len()],
}

impl SecondPathMetrics {
    /// Creates metrics at zero and registers them in `registry`, under its prefix.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let sent = registered(
            registry,
            "datagrams_sent",
            "Hello protocol frames sent by UDP: between a node and those that watch it, and to nodes whose hello frames are missing",
        );
        let received = registered(
            registry,
            "datagrams_received",
            "Valid hello protocol frames received by UDP",
        );
        let dropped: Family<[(&'static str, &'static str); 1], Counter> =
            registered(registry, "datagrams_dropped", "UDP datagrams dropped, by reason");
        let dropped = DatagramDrop::ALL
            .map(|reason| dropped.get_or_create(&[("reason", reason.label())]).clone());
        Self { sent, received, dropped }
    }

    /// Returns the counter of datagrams dropped for this reason.
    #[must_use]
    pub const fn dropped(&self, reason: DatagramDrop) -> &Counter {
        &self.dropped[reason as usize]
    }
}
