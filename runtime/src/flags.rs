//! The flags that both programs share, exactly as in `docs/reference/flags.md`. `main` reads them
//! once; they never change afterwards.
//!
//! Each program includes [`CommonFlags`] in its own clap `Parser` with `flatten`. Each flag is also
//! an environment variable: `FERROLB_` and the flag's name in capitals. The command line takes
//! precedence.

use std::net::{AddrParseError, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgAction, Args, ValueEnum};
use ferrolb_proto::api::{GROUP, LOAD_BALANCER_CLASS, NAMESPACE};
use ferrolb_proto::duration::parse_duration;

use crate::admin::ListenAddresses;

/// Text for clap's `after_help`, which explains the values that `--help` calls `TIME`.
pub const TIME_HELP: &str =
    "A TIME is a whole number and a unit (ms, s or m), such as 50ms, 30s or 1m.";

/// The flags of every FerroLB process.
#[derive(Args, Debug, Clone, PartialEq, Eq)]
pub struct CommonFlags {
    /// Namespace of FerroLB's own objects: custom resources, Lease, Secrets
    #[arg(long, env = "FERROLB_NAMESPACE", value_name = "NAME", default_value = NAMESPACE)]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub namespace: String,

    /// API group of the custom resources; metallb.io uses an existing MetalLB configuration
    #[arg(long, env = "FERROLB_API_GROUP", value_name = "GROUP", default_value = GROUP)]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub api_group: String,

    /// Value of spec.loadBalancerClass that FerroLB serves; repeat the flag for several
    /// (environment variable: comma-separated)
    #[arg(long, env = "FERROLB_LOAD_BALANCER_CLASS", value_name = "CLASS", default_value = LOAD_BALANCER_CLASS)]
    #[arg(alias = "lb-class", value_delimiter = ',', value_parser = class)]
    pub load_balancer_class: Vec<String>,

    /// Serve Services without a spec.loadBalancerClass
    #[arg(
        long,
        env = "FERROLB_DEFAULT_IMPLEMENTATION",
        value_name = "BOOL",
        default_value_t = true
    )]
    #[arg(action = ArgAction::Set)]
    pub default_implementation: bool,

    /// Address of /healthz, /readyz and /metrics, and of /state for loopback clients; 0.0.0.0 is
    /// every address of both families; if the port is in use, the program logs a warning and
    /// continues
    #[arg(
        long,
        env = "FERROLB_ADMIN_LISTEN",
        value_name = "ADDR:PORT",
        default_value = "0.0.0.0:7472"
    )]
    #[arg(alias = "port", value_parser = socket_or_port)]
    pub admin_listen: SocketAddr,

    /// Address for the kubelet's probes, separate from all other clients; loopback unless the
    /// program runs in a pod network
    #[arg(
        long,
        env = "FERROLB_PROBE_LISTEN",
        value_name = "ADDR:PORT",
        default_value = "127.0.0.1:7474"
    )]
    pub probe_listen: SocketAddr,

    /// How long the addresses of an IPAddressPool that does not exist stay assigned and announced:
    /// the pool was deleted, or is missing at the start; 0s releases them at once. Speakers use
    /// other deleted custom resources for 10 s, and for this time if no other one of the kind
    /// exists
    #[arg(long, env = "FERROLB_POOL_GRACE", value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub pool_grace: Duration,

    /// Format of log lines on stderr
    #[arg(long, env = "FERROLB_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Least important level that is logged
    #[arg(long, env = "FERROLB_LOG_LEVEL", value_enum, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,
}

impl CommonFlags {
    /// Returns the addresses of the admin endpoint's listeners.
    #[must_use]
    pub const fn listen(&self) -> ListenAddresses {
        ListenAddresses { admin: self.admin_listen, probes: self.probe_listen }
    }
}

/// Parses a socket address, or a port alone, as in MetalLB's `--port`. A port alone means this port
/// on all addresses.
fn socket_or_port(text: &str) -> Result<SocketAddr, AddrParseError> {
    text.parse()
        .map_or_else(|_| text.parse(), |port| Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))))
}

/// Parses one class of a comma-separated list such as `a, b`, and removes the spaces around it.
fn class(text: &str) -> Result<String, String> {
    let class = text.trim();
    if class.is_empty() {
        Err("write a class, or several with a comma between two".to_owned())
    } else {
        Ok(class.to_owned())
    }
}

/// Format of a log line.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people: time, level, message, fields.
    Text,
    /// One JSON object per line.
    Json,
}

/// Level of detail of the log.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Failures only.
    Error,
    /// Also conditions that an operator should look at.
    Warn,
    /// Also events that an operator wants to read a month later.
    Info,
    /// Also each decision and each retry.
    Debug,
    /// Also each packet.
    Trace,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser, Debug)]
    struct Program {
        #[command(flatten)]
        common: CommonFlags,
    }

    fn parse(args: &[&str]) -> Result<CommonFlags, String> {
        let command_line = ["program"].iter().chain(args);
        Program::try_parse_from(command_line)
            .map(|program| program.common)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_as_documented() {
        let expect = CommonFlags {
            namespace: "ferrolb-system".into(),
            api_group: "ferrolb.io".into(),
            load_balancer_class: vec!["ferrolb.io/ferrolb".into()],
            default_implementation: true,
            admin_listen: "0.0.0.0:7472".parse().unwrap(),
            probe_listen: "127.0.0.1:7474".parse().unwrap(),
            pool_grace: Duration::from_secs(60),
            log_format: LogFormat::Text,
            log_level: LogLevel::Info,
        };
        assert_eq!(parse(&[]), Ok(expect));
    }

    #[test]
    fn every_flag_has_an_environment_variable_and_a_help_text() {
        for arg in Program::command().get_arguments() {
            let flag = arg.get_long().unwrap();
            let env = format!("FERROLB_{}", flag.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().unwrap().to_str(), Some(env.as_str()));
            assert!(arg.get_help().is_some(), "--{flag} has no help");
            assert!(!arg.get_default_values().is_empty(), "--{flag} shows no default");
        }
    }

    #[test]
    fn flags_accept_all_documented_formats() {
        let flags = parse(&[
            "--load-balancer-class=a.io/x",
            "--load-balancer-class=b.io/y",
            "--default-implementation=false",
            "--admin-listen=[::1]:9000",
            "--log-format=json",
        ])
        .unwrap();
        assert_eq!(flags.load_balancer_class, ["a.io/x", "b.io/y"]);
        assert!(!flags.default_implementation);
        assert_eq!(flags.admin_listen, "[::1]:9000".parse().unwrap());
        assert_eq!(flags.log_format, LogFormat::Json);
        let metallb = parse(&["--lb-class=a", "--port=9000"]).unwrap();
        assert_eq!(metallb.load_balancer_class, ["a"], "MetalLB's flags have the same effect");
        assert_eq!(metallb.admin_listen, "0.0.0.0:9000".parse().unwrap());
        assert!(parse(&["--port=70000"]).is_err() && parse(&["--admin-listen=here"]).is_err());
        // The value of an environment variable reaches the same parser as one text.
        assert_eq!(parse(&["--load-balancer-class=a,b"]).unwrap().load_balancer_class, ["a", "b"]);
        assert_eq!(
            parse(&["--load-balancer-class= a, b "]).unwrap().load_balancer_class,
            ["a", "b"]
        );
    }

    #[test]
    fn an_invalid_flag_is_rejected_with_its_name() {
        let cases = [
            ("--namespaces=x", "--namespaces"),
            ("--namespace=", "--namespace"),
            ("--load-balancer-class=a,,b", "--load-balancer-class"),
            ("--load-balancer-class=a, ", "--load-balancer-class"),
            ("--default-implementation=maybe", "true, false"),
            ("--admin-listen=host:7472", "--admin-listen"),
            ("--log-level=loud", "debug"),
        ];
        for (flag, expect) in cases {
            let error = parse(&[flag]).unwrap_err();
            assert!(error.contains(expect), "the error of {flag} contains {expect:?}: {error}");
        }
    }
}
