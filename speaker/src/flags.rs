//! The speaker's own flags, exactly as `docs/api.md` lists them. Read once by `main`, never changed after.
//!
//! Every flag is also an environment variable, `FERROLB_` and the flag's name in capitals; the command line wins.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use clap::{ArgAction, Parser};
use ferrolb_proto::duration::{parse_duration, parse_interval};
use ferrolb_proto::facts::HEALTH_INTERVAL;
use ferrolb_proto::health::data_path::Mode;
use ferrolb_proto::range::AddressRange;
use ferrolb_runtime::flags::{CommonFlags, TIME_HELP};
use regex::Regex;

/// Links that belong to container networks or to nobody: what runs on a node by itself must not be taken for the LAN.
const EXCLUDED_BY_DEFAULT: &str = "lo,docker.*,br-[0-9a-f]{12},podman.*,cni.*,cbr.*,cali.*,cilium.*,flannel.*,veth.*,lxc.*,virbr.*,\
    kube-ipvs.*,nodelocaldns.*,vxlan.*,tunl.*,dummy.*,kube-bridge,kube-dummy-if,antrea-gw0,ovn-k8s-mp.*,weave,nerdctl.*,lxdbr.*,incusbr.*,\
    tap.*,idrac";
/// The default of `--node-name`: what the DaemonSet fills in from `spec.nodeName`.
const NODE_NAME: &str = "$NODE_NAME";
/// The shortest hello interval: below it the wire and the scheduler would decide, not the speaker.
const HELLO_INTERVAL_MIN: Duration = Duration::from_millis(10);
/// The longest hello interval: above it, no failover worth the name.
const HELLO_INTERVAL_MAX: Duration = Duration::from_secs(10);

/// The shortest gratuitous interval: more often would be noise to every host, and ten thousand addresses take 4 s.
const GRATUITOUS_INTERVAL_MIN: Duration = Duration::from_secs(10);

/// The shortest drain delay: another node that follows from the API is heard of before it has told its routers.
const DRAIN_DELAY_MIN: Duration = Duration::from_secs(1);

/// Announces this node's LoadBalancer addresses on the local network.
#[derive(Parser, Debug, Clone)]
#[command(name = "ferrolb-speaker", version, after_help = TIME_HELP)]
pub struct Flags {
    /// What both programs have.
    #[command(flatten)]
    pub common: CommonFlags,

    /// Name of the Node this speaker runs on
    #[arg(long, env = "FERROLB_NODE_NAME", value_name = "NAME", default_value = NODE_NAME, value_parser = node_name)]
    pub node_name: String,

    /// Links never spoken on: regular expressions of whole names, comma separated or repeated; the link that holds the Node's
    /// InternalIP is always in
    #[arg(long, env = "FERROLB_EXCLUDE_INTERFACES", value_name = "REGEX", default_value = EXCLUDED_BY_DEFAULT)]
    #[arg(value_delimiter = ',', value_parser = whole_name)]
    pub exclude_interfaces: Vec<Regex>,

    /// Announce from nodes that carry the label node.kubernetes.io/exclude-from-external-load-balancers, too
    #[arg(long, env = "FERROLB_IGNORE_EXCLUDE_LABEL", value_name = "BOOL", default_value_t = false)]
    #[arg(action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub ignore_exclude_label: bool,

    /// How often a node that holds an address says that it lives (10ms to 10s)
    #[arg(long, env = "FERROLB_HELLO_INTERVAL", value_name = "TIME", default_value = "50ms", value_parser = hello_interval)]
    pub hello_interval: Duration,

    /// How many hellos in a row may be missing before a node is suspected dead (2 to 100)
    #[arg(long, env = "FERROLB_HELLO_MISSES", value_name = "COUNT", default_value_t = 3)]
    #[arg(value_parser = RangedU64ValueParser::<u32>::new().range(2..=100))]
    pub hello_misses: u32,

    /// How long a node that came back takes nothing from a node that serves, or never
    #[arg(long, env = "FERROLB_FAILBACK_DELAY", value_name = "TIME|never", default_value = "30s")]
    pub failback_delay: TimeOrNever,

    /// How often all hosts are told again where an address is that has been here for long (10s and more), or never
    #[arg(long, env = "FERROLB_GRATUITOUS_INTERVAL", value_name = "TIME|never", default_value = "never")]
    #[arg(value_parser = gratuitous_interval)]
    pub gratuitous_interval: TimeOrNever,

    /// Whether other nodes announce first while kube-proxy on this one does not work: auto, where kube-proxy is there or works on another
    /// node; required, where it is not there, too; off, never
    #[arg(long, env = "FERROLB_KUBE_PROXY_HEALTH", value_name = "MODE", default_value = "auto")]
    #[arg(value_parser = PossibleValuesParser::new(["auto", "required", "off"]).map(|word| mode(&word)))]
    pub kube_proxy_health: Mode,

    /// Where kube-proxy serves its health; without it the Node's InternalIP, then loopback, port 10256
    #[arg(long, env = "FERROLB_KUBE_PROXY_ADDRESS", value_name = "ADDR:PORT")]
    pub kube_proxy_address: Option<SocketAddr>,

    /// How often kube-proxy is asked whether it works, and an endpoint whose Service says nothing else (100ms to 5m)
    #[arg(long, env = "FERROLB_HEALTH_INTERVAL", value_name = "TIME", default_value = "1s", value_parser = health_interval)]
    pub health_interval: Duration,

    /// How many failures in a row make what was healthy unhealthy (1 to 100)
    #[arg(long, env = "FERROLB_HEALTH_FALL", value_name = "COUNT", default_value_t = 2)]
    #[arg(value_parser = RangedU64ValueParser::<u32>::new().range(1..=100))]
    pub health_fall: u32,

    /// How many successes in a row make what was unhealthy healthy (1 to 100)
    #[arg(long, env = "FERROLB_HEALTH_RISE", value_name = "COUNT", default_value_t = 3)]
    #[arg(value_parser = RangedU64ValueParser::<u32>::new().range(1..=100))]
    pub health_rise: u32,

    /// Which endpoints the health checks of Services may connect to: node, those at InternalIPs and
    /// in spec.podCIDRs of the own Node; CIDRs or ranges, comma separated, those in them as well;
    /// off, none
    #[arg(long, env = "FERROLB_HEALTH_CHECKS", value_name = "node|off|CIDR,...", default_value = "node")]
    #[arg(value_parser = checked_ranges)]
    pub health_checks: CheckedRanges,

    /// The socket of this node's gobgpd; without it there is no BGP
    #[arg(long, env = "FERROLB_GOBGP", value_name = "unix:PATH", value_parser = gobgp)]
    pub gobgp: Option<String>,

    /// How long others must have announced by BGP what a node that drains announces as the last resort, before it stops (1s and more), or never
    #[arg(long, env = "FERROLB_DRAIN_DELAY", value_name = "TIME|never", default_value = "1m", value_parser = drain_delay)]
    pub drain_delay: TimeOrNever,
}

/// A time that may never come: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeOrNever(pub Option<Duration>);

impl FromStr for TimeOrNever {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self(None));
        }
        parse_duration(text).map(|delay| Self(Some(delay))).map_err(|error| format!("{error}, or the word never"))
    }
}

/// Where endpoints may be checked beside the own Node's addresses; none: nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedRanges(pub Option<Vec<AddressRange>>);

fn checked_ranges(text: &str) -> Result<CheckedRanges, String> {
    match text {
        "node" => Ok(CheckedRanges(Some(Vec::new()))),
        "off" => Ok(CheckedRanges(None)),
        ranges => {
            let ranges = ranges.split(',').map(|range| range.trim().parse()).collect::<Result<_, _>>();
            ranges.map(|ranges| CheckedRanges(Some(ranges))).map_err(|error| format!("{error}; or write node or off"))
        }
    }
}

fn mode(word: &str) -> Mode {
    match word {
        "required" => Mode::Required,
        "off" => Mode::Off,
        _ => Mode::Auto,
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
        return Err("set it, or NODE_NAME, to the name of this Node as `kubectl get nodes` prints it".to_owned());
    }
    Ok(name)
}

fn whole_name(text: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!("^(?:{})$", text.trim()))
}

fn hello_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_interval(text).map_err(|error| error.to_string())?;
    if (HELLO_INTERVAL_MIN..=HELLO_INTERVAL_MAX).contains(&interval) {
        return Ok(interval);
    }
    Err("the hello interval is 10ms to 10s".to_owned())
}

fn health_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text).map_err(|error| error.to_string())?;
    if HEALTH_INTERVAL.contains(&interval) {
        Ok(interval)
    } else {
        Err("the health interval is 100ms to 5m".to_owned())
    }
}

fn gratuitous_interval(text: &str) -> Result<TimeOrNever, String> {
    let interval: TimeOrNever = text.parse()?;
    if interval.0.is_none_or(|interval| interval >= GRATUITOUS_INTERVAL_MIN) {
        return Ok(interval);
    }
    Err("the gratuitous interval is 10s or longer, or the word never".to_owned())
}

fn drain_delay(text: &str) -> Result<TimeOrNever, String> {
    let delay: TimeOrNever = text.parse()?;
    if delay.0.is_none_or(|delay| delay >= DRAIN_DELAY_MIN) {
        return Ok(delay);
    }
    Err("the drain delay is 1s or longer, or the word never".to_owned())
}

/// The socket's path.
fn gobgp(text: &str) -> Result<String, String> {
    let path = text.strip_prefix("unix:").filter(|path| path.starts_with('/'));
    path.map(ToOwned::to_owned).ok_or_else(|| "write unix: and an absolute path".to_owned())
}

#[cfg(test)]
mod tests;
