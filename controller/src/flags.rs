//! The controller's own flags, exactly as `docs/architecture.md` lists them. Read once by `main`, never changed after.
//!
//! Every flag is also an environment variable, `FERROLB_` and the flag's name in capitals; the command line wins.

use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use ferrolb_proto::duration::parse_interval;
use ferrolb_runtime::flags::{CommonFlags, TIME_HELP};

/// The shortest lease: the API server keeps whole seconds.
const LEASE_DURATION_MIN: Duration = Duration::from_secs(1);

/// Gives LoadBalancer Services addresses out of pools.
#[derive(Parser, Debug, Clone)]
#[command(name = "ferrolb-controller", version, after_help = TIME_HELP)]
pub struct Flags {
    /// What both programs have.
    #[command(flatten)]
    pub common: CommonFlags,

    /// How long the other replicas wait for a silent leader; whole seconds
    #[arg(long, env = "FERROLB_LEASE_DURATION", value_name = "TIME", default_value = "15s", value_parser = parse_interval)]
    pub lease_duration: Duration,

    /// How long the leader goes on without renewing its lease; less than --lease-duration
    #[arg(long, env = "FERROLB_LEASE_RENEW_DEADLINE", value_name = "TIME", default_value = "10s")]
    #[arg(value_parser = parse_interval)]
    pub lease_renew_deadline: Duration,

    /// How often the lease is renewed, and looked at by the other replicas; less than --lease-renew-deadline
    #[arg(long, env = "FERROLB_LEASE_RETRY", value_name = "TIME", default_value = "2s", value_parser = parse_interval)]
    pub lease_retry: Duration,
}

impl Flags {
    /// The flags of this process; ends it with a message on anything wrong.
    #[must_use]
    pub fn read() -> Self {
        let flags = Self::parse();
        if let Err(why) = flags.check() {
            Self::command().error(ErrorKind::ValueValidation, why).exit();
        }
        flags
    }

    /// What no flag can know alone.
    fn check(&self) -> Result<(), String> {
        let Self { lease_duration: duration, lease_renew_deadline: deadline, lease_retry: retry, .. } = self;
        if *duration < LEASE_DURATION_MIN || duration.subsec_nanos() != 0 {
            return Err("--lease-duration is a whole number of seconds".to_owned());
        }
        if deadline >= duration {
            return Err(
                "--lease-renew-deadline must be less than --lease-duration, or two replicas could write".to_owned()
            );
        }
        if retry >= deadline {
            return Err(
                "--lease-retry must be less than --lease-renew-deadline, or one lost answer ends the lease".to_owned()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Flags, String> {
        let words = ["ferrolb-controller"].iter().chain(args);
        let flags = Flags::try_parse_from(words).map_err(|error| error.to_string())?;
        flags.check().map(|()| flags)
    }

    #[test]
    fn the_defaults_are_the_documented_ones_and_sound() {
        let flags = read(&[]).unwrap();
        assert_eq!(
            (flags.lease_duration, flags.lease_renew_deadline, flags.lease_retry),
            (Duration::from_secs(15), Duration::from_secs(10), Duration::from_secs(2))
        );
    }

    #[test]
    fn every_flag_has_an_environment_variable_of_its_name_and_a_help_text() {
        for arg in Flags::command().get_arguments() {
            let flag = arg.get_long().unwrap();
            let env = format!("FERROLB_{}", flag.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().unwrap().to_str(), Some(env.as_str()));
            assert!(arg.get_help().is_some(), "--{flag} has no help");
        }
    }

    #[test]
    fn the_help_says_how_a_time_is_written() {
        let help = Flags::command().render_help().to_string();
        assert!(help.contains("<TIME>") && help.contains("TIME is a whole number and a unit (ms, s or m)"), "{help}");
    }

    #[test]
    fn lease_times_that_do_not_fit_together_are_refused_by_name() {
        let cases: [(&[&str], &str); 5] = [
            (&["--lease-renew-deadline=15s"], "--lease-renew-deadline must be less"),
            (&["--lease-duration=10s"], "--lease-renew-deadline must be less"),
            (&["--lease-retry=10s"], "--lease-retry must be less"),
            (&["--lease-duration=15500ms"], "whole number of seconds"),
            (&["--lease-retry=0s"], "longer than zero"),
        ];
        for (args, why) in cases {
            let error = read(args).unwrap_err();
            assert!(error.contains(why), "{args:?}: {error}");
        }
        read(&["--lease-duration=3s", "--lease-renew-deadline=2s", "--lease-retry=500ms"]).unwrap();
    }
}
