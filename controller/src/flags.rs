//! Command-line flags of the controller, as `docs/reference/flags.md` lists them. `main` reads them
//! once; they never change afterwards.
//!
//! Every flag is also an environment variable: `FERROLB_` and the flag's name in capitals. The
//! command line takes precedence.

use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use ferrolb_controller_core::node_failure::failures::MarkScope;
use ferrolb_proto::duration::parse_interval;
use ferrolb_runtime::flags::{CommonFlags, TIME_HELP};

/// Shortest lease duration, because the API server stores it in whole seconds.
const LEASE_DURATION_MIN: Duration = Duration::from_secs(1);

/// Assigns addresses from pools to LoadBalancer Services.
#[derive(Parser, Debug, Clone)]
#[command(name = "ferrolb-controller", version, after_help = TIME_HELP)]
pub struct Flags {
    /// Flags that the controller and the speaker share.
    #[command(flatten)]
    pub common: CommonFlags,

    /// Pods on a failed node that are marked as not Ready: off (none), services (those behind
    /// FerroLB's Services) or all (those behind any Service with a cluster IP)
    #[arg(
        long,
        env = "FERROLB_NODE_FAILURE_ENDPOINTS",
        value_name = "SCOPE",
        default_value = "services"
    )]
    pub node_failure_endpoints: MarkScope,

    /// Name of the Node on which this controller runs, whose pods only another replica marks;
    /// empty: not known
    #[arg(long, env = "FERROLB_NODE_NAME", value_name = "NAME", default_value = "")]
    pub node_name: String,

    /// How long the other replicas wait for a leader that does not renew its lease; whole seconds
    #[arg(long, env = "FERROLB_LEASE_DURATION", value_name = "TIME", default_value = "15s", value_parser = parse_interval)]
    pub lease_duration: Duration,

    /// How long the leader keeps writing without renewing its lease; less than --lease-duration
    #[arg(long, env = "FERROLB_LEASE_RENEW_DEADLINE", value_name = "TIME", default_value = "10s")]
    #[arg(value_parser = parse_interval)]
    pub lease_renew_deadline: Duration,

    /// How often the leader renews the lease and the other replicas read it; less than
    /// --lease-renew-deadline
    #[arg(long, env = "FERROLB_LEASE_RETRY", value_name = "TIME", default_value = "2s", value_parser = parse_interval)]
    pub lease_retry: Duration,
}

impl Flags {
    /// Returns the flags of this process. Exits with a message if one is invalid.
    #[must_use]
    pub fn read() -> Self {
        let flags = Self::parse();
        if let Err(why) = flags.check() {
            Self::command().error(ErrorKind::ValueValidation, why).exit();
        }
        flags
    }

    /// Checks the relations between the lease times.
    fn check(&self) -> Result<(), String> {
        let Self {
            lease_duration: duration,
            lease_renew_deadline: deadline,
            lease_retry: retry,
            ..
        } = self;
        if *duration < LEASE_DURATION_MIN || duration.subsec_nanos() != 0 {
            return Err("--lease-duration must be a whole number of seconds".to_owned());
        }
        if deadline >= duration {
            return Err(
                "--lease-renew-deadline must be less than --lease-duration, or two replicas could \
                 write"
                    .to_owned(),
            );
        }
        if retry >= deadline {
            return Err(
                "--lease-retry must be less than --lease-renew-deadline, or one lost response ends \
                 the lease".to_owned()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Flags, String> {
        let command_line = ["ferrolb-controller"].iter().chain(args);
        let flags = Flags::try_parse_from(command_line).map_err(|error| error.to_string())?;
        flags.check().map(|()| flags)
    }

    #[test]
    fn the_defaults_are_valid_and_as_documented() {
        let flags = parse(&[]).unwrap();
        assert_eq!(
            (flags.lease_duration, flags.lease_renew_deadline, flags.lease_retry),
            (Duration::from_secs(15), Duration::from_secs(10), Duration::from_secs(2))
        );
    }

    #[test]
    fn every_flag_has_an_environment_variable_and_a_help_text() {
        for arg in Flags::command().get_arguments() {
            let flag = arg.get_long().unwrap();
            let env = format!("FERROLB_{}", flag.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().unwrap().to_str(), Some(env.as_str()));
            assert!(arg.get_help().is_some(), "--{flag} has no help");
        }
    }

    #[test]
    fn the_help_explains_the_format_of_a_time() {
        let help = Flags::command().render_help().to_string();
        assert!(
            help.contains("<TIME>")
                && help.contains("TIME is a whole number and a unit (ms, s or m)"),
            "{help}"
        );
    }

    #[test]
    fn inconsistent_lease_times_are_rejected_with_the_flag_name() {
        let cases: [(&[&str], &str); 5] = [
            (&["--lease-renew-deadline=15s"], "--lease-renew-deadline must be less"),
            (&["--lease-duration=10s"], "--lease-renew-deadline must be less"),
            (&["--lease-retry=10s"], "--lease-retry must be less"),
            (&["--lease-duration=15500ms"], "whole number of seconds"),
            (&["--lease-retry=0s"], "longer than zero"),
        ];
        for (args, why) in cases {
            let error = parse(args).unwrap_err();
            assert!(error.contains(why), "{args:?}: {error}");
        }
        parse(&["--lease-duration=3s", "--lease-renew-deadline=2s", "--lease-retry=500ms"])
            .unwrap();
    }
}
