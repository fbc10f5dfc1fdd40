//! Command line flags of the speaker, as listed in `docs/reference/flags.md`. `main` parses them
//! once; afterwards they are constant.
//!
//! Every flag is also an environment variable: `FERROLB_` and the name of the flag in capitals. The
//! command line takes precedence.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use clap::{ArgAction, Parser};
use ferrolb_proto::duration::{parse_duration, parse_interval};
use ferrolb_proto::facts::HEALTH_INTERVAL_RANGE;
use ferrolb_proto::range::AddressRange;
use ferrolb_runtime::flags::{CommonFlags, TIME_HELP};
use ferrolb_speaker_core::health::kube_proxy::KubeProxyMode;
use regex::Regex;

/// Name patterns of interfaces that the speaker does not use by default: those of container
/// networks, virtual machines and management controllers. Such interfaces normally do not lead to
/// the LAN.
const DEFAULT_EXCLUDED_INTERFACES: &str = "lo,docker.*,br-[0-9a-f]{12},podman.*,cni.*,cbr.*,cali.*,cilium.*,flannel.*,veth.*,lxc.*,virbr.*,\
    kube-ipvs.*,nodelocaldns.*,vxlan.*,tunl.*,dummy.*,kube-bridge,kube-dummy-if,antrea-gw0,ovn-k8s-mp.*,weave,nerdctl.*,lxdbr.*,incusbr.*,\
    tap.*,idrac";
/// Default of `--node-name`. The value stands for the environment variable `NODE_NAME`, which the
/// DaemonSet sets from `spec.nodeName`.
const NODE_NAME: &str = "$NODE_NAME";
/// Shortest hello interval. With a shorter interval, network latency and scheduling delays would
/// look like missing hellos.
const HELLO_INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Longest hello interval. With a longer interval, failover would take too long to be useful.
const HELLO_INTERVAL_MAX: Duration = Duration::from_secs(10);
/// Longest detection time of a busy node.
const DETECTION_TIME_LIMIT: Duration = Duration::from_secs(60);

/// Shortest interval of periodic gratuitous ARPs and unsolicited neighbor advertisements. Every
/// host of the segment processes these frames, and announcing ten thousand addresses once takes
/// four seconds.
const GRATUITOUS_INTERVAL_MIN: Duration = Duration::from_secs(10);

/// Announces this node's LoadBalancer addresses to the network
#[derive(Parser, Debug, Clone)]
#[command(name = "ferrolb-speaker", version, after_help = TIME_HELP)]
pub struct Flags {
    /// Flags of both components.
    #[command(flatten)]
    pub common: CommonFlags,

    /// Name of the Node that this speaker runs on
    #[arg(long, env = "FERROLB_NODE_NAME", value_name = "NAME", default_value = NODE_NAME, value_parser = node_name)]
    pub node_name: String,

    /// Interfaces that the speaker does not use: regular expressions that match the whole name,
    /// comma-separated or repeated. The interface with the Node's InternalIP is always used
    #[arg(long, env = "FERROLB_EXCLUDE_INTERFACES", value_name = "REGEX", default_value = DEFAULT_EXCLUDED_INTERFACES)]
    #[arg(value_delimiter = ',', value_parser = whole_name_regex)]
    pub exclude_interfaces: Vec<Regex>,

    /// Announce also from nodes with the label
    /// node.kubernetes.io/exclude-from-external-load-balancers
    #[arg(
        long,
        env = "FERROLB_IGNORE_EXCLUDE_LABEL",
        value_name = "BOOL",
        default_value_t = false
    )]
    #[arg(alias = "ignore-exclude-lb", action = ArgAction::Set)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub ignore_exclude_label: bool,

    /// Interval between the hello frames of a node that owns an address (10ms to 10s)
    #[arg(long, env = "FERROLB_HELLO_INTERVAL", value_name = "TIME", default_value = "50ms", value_parser = hello_interval)]
    pub hello_interval: Duration,

    /// Number of consecutive missing hello frames after which a node is suspected of having failed
    /// (2 to 100)
    #[arg(long, env = "FERROLB_HELLO_MISSES", value_name = "COUNT", default_value_t = 3)]
    #[arg(value_parser = RangedU64ValueParser::<u32>::new().range(2..=100))]
    pub hello_misses: u32,

    /// Longest time until other nodes declare this node failed, if its hello frames were late
    /// because it is busy (up to 1m)
    #[arg(long, env = "FERROLB_DETECTION_TIME_MAX", value_name = "TIME", default_value = "2s")]
    #[arg(value_parser = detection_time_max)]
    pub detection_time_max: Duration,

    /// UDP port by which speakers watch other nodes, and challenge a node whose hello frames are
    /// missing; the same on all nodes; with 0, speakers send no UDP, and pods of failed nodes stay
    /// Ready
    #[arg(long, env = "FERROLB_CHALLENGE_PORT", value_name = "PORT", default_value_t = 7473)]
    pub challenge_port: u16,

    /// How long a returning node waits before it takes addresses from a node that serves them, or
    /// never
    #[arg(long, env = "FERROLB_FAILBACK_DELAY", value_name = "TIME|never", default_value = "30s")]
    pub failback_delay: TimeOrNever,

    /// Interval at which gratuitous ARP and unsolicited neighbor advertisements are repeated for
    /// addresses that have not moved (10s or more), or never
    #[arg(
        long,
        env = "FERROLB_GRATUITOUS_INTERVAL",
        value_name = "TIME|never",
        default_value = "never"
    )]
    #[arg(value_parser = gratuitous_interval)]
    pub gratuitous_interval: TimeOrNever,

    /// Prefer other nodes while kube-proxy on this node is unhealthy: auto, if kube-proxy exists
    /// here or is healthy on another node; required, also if there is no kube-proxy here; off,
    /// never
    #[arg(long, env = "FERROLB_KUBE_PROXY_HEALTH", value_name = "MODE", default_value = "auto")]
    #[arg(value_parser = PossibleValuesParser::new(["auto", "required", "off"]).map(|word| proxy_health_mode(&word)))]
    pub kube_proxy_health: KubeProxyMode,

    /// Address and port of kube-proxy's health server; default: port 10256 at the Node's
    /// InternalIP, then at loopback
    #[arg(long, env = "FERROLB_KUBE_PROXY_ADDRESS", value_name = "ADDR:PORT")]
    pub kube_proxy_address: Option<SocketAddr>,

    /// Interval of the health checks of kube-proxy, and of endpoints whose Service sets none (100ms
    /// to 5m)
    #[arg(long, env = "FERROLB_HEALTH_INTERVAL", value_name = "TIME", default_value = "1s", value_parser = health_interval)]
    pub health_interval: Duration,

    /// Number of consecutive failures after which a healthy target is unhealthy (1 to 100)
    #[arg(long, env = "FERROLB_HEALTH_FALL", value_name = "COUNT", default_value_t = 2)]
    #[arg(value_parser = RangedU64ValueParser::<u32>::new().range(1..=100))]
    pub health_fall: u32,

    /// Number of consecutive successes after which an unhealthy target is healthy (1 to 100)
    #[arg(long, env = "FERROLB_HEALTH_RISE", value_name = "COUNT", default_value_t = 3)]
    #[arg(value_parser = RangedU64ValueParser::<u32>::new().range(1..=100))]
    pub health_rise: u32,

    /// Endpoints that health checks of Services may connect to: node, those at the InternalIPs and
    /// in spec.podCIDRs of this speaker's Node, and pods to which its kernel has a route; CIDRs or
    /// address ranges, comma-separated, also those in these ranges; off, none
    #[arg(
        long,
        env = "FERROLB_HEALTH_CHECKS",
        value_name = "node|off|CIDR,...",
        default_value = "node"
    )]
    #[arg(value_parser = checked_ranges)]
    pub health_checks: CheckedRanges,

    /// Unix socket of this node's gobgpd; BGP is off without this flag
    #[arg(long, env = "FERROLB_GOBGP", value_name = "unix:PATH", value_parser = gobgp)]
    pub gobgp: Option<String>,
}

/// Value of a flag that takes a duration or the word `never`, which is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeOrNever(pub Option<Duration>);

impl FromStr for TimeOrNever {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self(None));
        }
        parse_duration(text)
            .map(|delay| Self(Some(delay)))
            .map_err(|error| format!("{error}: write a time, or `never`"))
    }
}

/// Ranges of the endpoints that health checks may connect to, in addition to the InternalIPs and
/// the pods of this speaker's Node. None: no endpoint is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedRanges(pub Option<Vec<AddressRange>>);

fn checked_ranges(text: &str) -> Result<CheckedRanges, String> {
    match text {
        "node" => Ok(CheckedRanges(Some(Vec::new()))),
        "off" => Ok(CheckedRanges(None)),
        ranges => {
            let ranges =
                ranges.split(',').map(|range| range.trim().parse()).collect::<Result<_, _>>();
            ranges
                .map(|ranges| CheckedRanges(Some(ranges)))
                .map_err(|error| format!("{error}: write CIDR ranges, `node` or `off`"))
        }
    }
}

fn proxy_health_mode(word: &str) -> KubeProxyMode {
    match word {
        "required" => KubeProxyMode::Required,
        "off" => KubeProxyMode::Off,
        _ => KubeProxyMode::Auto,
    }
}

fn node_name(text: &str) -> Result<String, String> {
    let name = if text == NODE_NAME {
        #[expect(
            clippy::disallowed_methods,
            reason = "the default of --node-name is this variable, by the program contract"
        )]
        std::env::var("NODE_NAME").unwrap_or_default()
    } else {
        text.to_owned()
    };
    if name.is_empty() {
        return Err(
            "set it, or NODE_NAME, to the name of this Node as `kubectl get nodes` prints it"
                .to_owned(),
        );
    }
    Ok(name)
}

fn whole_name_regex(text: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!("^(?:{})$", text.trim()))
}

fn hello_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_interval(text).map_err(|error| error.to_string())?;
    if (HELLO_INTERVAL_MIN..=HELLO_INTERVAL_MAX).contains(&interval) {
        return Ok(interval);
    }
    Err("the hello interval must be from 10ms to 10s".to_owned())
}

fn detection_time_max(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text).map_err(|error| error.to_string())?;
    if time <= DETECTION_TIME_LIMIT {
        Ok(time)
    } else {
        Err("the detection time must be at most 1m".to_owned())
    }
}

fn health_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text).map_err(|error| error.to_string())?;
    if HEALTH_INTERVAL_RANGE.contains(&interval) {
        Ok(interval)
    } else {
        Err("the health interval must be from 100ms to 5m".to_owned())
    }
}

fn gratuitous_interval(text: &str) -> Result<TimeOrNever, String> {
    let interval: TimeOrNever = text.parse()?;
    if interval.0.is_none_or(|interval| interval >= GRATUITOUS_INTERVAL_MIN) {
        return Ok(interval);
    }
    Err("the gratuitous interval must be 10s or longer, or never".to_owned())
}

/// Parses the value `unix:PATH` of `--gobgp`, and returns the path.
fn gobgp(text: &str) -> Result<String, String> {
    let path = text.strip_prefix("unix:").filter(|path| path.starts_with('/'));
    path.map(ToOwned::to_owned).ok_or_else(|| "write unix: and an absolute path".to_owned())
}

#[cfg(test)]
mod tests;
