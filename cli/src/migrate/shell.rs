//! The shell commands of several plans, with their expected outputs. Pure.

use std::fmt::Display;

use ferrolb_proto::api::NAMESPACE;
use serde_json::Value;

use super::Command;
use crate::install::manifests::Variant;
use crate::objects::{name, namespace};

/// Command that lists the addresses of all Services of type LoadBalancer.
const ADDRESSES: &str = "kubectl get services --all-namespaces --field-selector \
    spec.type=LoadBalancer -o custom-columns='NAMESPACE:.metadata.namespace,NAME:.metadata.name,\
    ADDRESSES:.status.loadBalancer.ingress[*].ip'";
/// File with the addresses before the migration.
pub const BEFORE: &str = "addresses-before.txt";

/// The chart: in a clone of FerroLB's repository, or in the registry of a release.
pub const CHART: &str = env!("FERROLB_CHART");

/// Returns a text as one word of a shell command.
#[must_use]
pub fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=@%+".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Returns the path of a file in the directory of the migration.
#[must_use]
pub fn file(directory: &str, name: &str) -> String {
    quoted(&format!("{}/{name}", directory.trim_end_matches('/')))
}

/// A subcommand of kubectl.
#[derive(Clone, Copy)]
pub struct Verb {
    words: &'static str,
    /// The expected output.
    pub output: &'static str,
}

impl Verb {
    const fn new(words: &'static str, output: &'static str) -> Self {
        Self { words, output }
    }

    /// Returns the command with these words after the subcommand.
    pub fn run(self, words: impl Display) -> Command {
        Command::new(format!("kubectl {} {words}", self.words), self.output)
    }

    /// Returns the command in a namespace.
    pub fn run_in(self, namespace: &str, words: impl Display) -> Command {
        let namespace = quoted(namespace);
        Command::new(format!("kubectl -n {namespace} {} {words}", self.words), self.output)
    }

    /// Returns the command for the objects in a file, whose name is quoted.
    pub fn on_file(self, file: &str) -> Command {
        self.run(format_args!("-f {file}"))
    }

    /// Returns the command for a Service.
    pub fn on_service(self, service: &Value, words: impl Display) -> Command {
        let name = quoted(name(service));
        self.run_in(namespace(service), format_args!("service {name} {words}"))
    }
}

pub const ANNOTATE: Verb = Verb::new("annotate", "`annotated` for each Service");
pub const APPLY: Verb =
    Verb::new("apply", "`created`, `configured` or `unchanged` for each object");
pub const CREATE: Verb = Verb::new("create", "`created`");
pub const DELETE: Verb = Verb::new("delete", "`deleted` for each object that exists");
pub const DRY_RUN: Verb = Verb::new("apply --dry-run=server", "no error");
pub const GET: Verb = Verb::new("get", "no error");
pub const LABEL: Verb =
    Verb::new("label", "`labeled`, `unlabeled` or `not labeled` for each object");
pub const PATCH: Verb = Verb::new("patch", "`patched`, or `patched (no change)`");
pub const ROLLOUT_STATUS: Verb = Verb::new("rollout status", "`successfully rolled out`");
pub const SCALE: Verb = Verb::new("scale", "`scaled`");
pub const SET_ENV: Verb = Verb::new("set env", "`env updated`");
pub const WAIT: Verb = Verb::new("wait", "`condition met` for each object");
pub const WAIT_DELETED: Verb =
    Verb::new("wait --for=delete", "`condition met`, or no output if no pod is left");

/// Returns a command that prints nothing.
pub fn silent(command: impl Into<String>) -> Command {
    Command::new(command, "no output")
}

/// Returns the commands that create the directory of the migration. Only its owner may read the
/// files that follow, which may contain passwords.
#[must_use]
pub fn create_directory(directory: &str) -> [Command; 2] {
    ["umask 077".to_owned(), format!("mkdir -p {}", quoted(directory))].map(silent)
}

/// Returns the command that applies the objects that another command prints.
#[must_use]
pub fn apply_output_of(command: &str) -> Command {
    Command::new(format!("{command} | kubectl apply -f -"), APPLY.output)
}

/// Returns the command that deletes the objects in a file, if they exist.
#[must_use]
pub fn delete_file(file: &str) -> Command {
    DELETE.run(format_args!("--ignore-not-found -f {file}"))
}

/// Returns the commands that install FerroLB by the manifests of this program's version, and wait
/// until its speakers run.
#[must_use]
pub fn install(namespace: &str, variant: Variant) -> [Command; 2] {
    let print = ferrolb(namespace, &format!("install --variant {variant} --dry-run"));
    [apply_output_of(&print), ROLLOUT_STATUS.run_in(namespace, "daemonset/speaker")]
}

/// Returns the command that lists the addresses of all Services.
#[must_use]
pub fn list_addresses() -> Command {
    Command::new(ADDRESSES, "the addresses of each Service")
}

/// Returns the command that saves the output of another one in a file, whose name is quoted. A
/// repetition keeps the file, because later steps change what the command prints.
#[must_use]
pub fn save(command: impl Display, file: &str) -> Command {
    silent(format!("test -e {file} || {{ {command} > {file}.new && mv {file}.new {file}; }}"))
}

/// Returns the command that saves the addresses of all Services.
#[must_use]
pub fn save_addresses(directory: &str) -> Command {
    save(ADDRESSES, &file(directory, BEFORE))
}

/// Returns the command that compares the addresses of all Services with the saved ones.
#[must_use]
pub fn compare_addresses(directory: &str) -> Command {
    silent(format!("{ADDRESSES} | diff {} -", file(directory, BEFORE)))
}

/// Returns the command that stops FerroLB's controller. A controller without pools would remove
/// the addresses from the Services.
#[must_use]
pub fn stop_controller(ferrolb: &str) -> Command {
    SCALE.run_in(ferrolb, "deployment controller --replicas=0")
}

/// Returns the check that no address has changed.
#[must_use]
pub fn unchanged(directory: &str) -> Command {
    compare_addresses(directory).expecting("prints nothing: no address has changed")
}

/// Returns the check before an installation.
#[must_use]
pub fn before_installation() -> Command {
    Command::new("kubectl ferrolb check --pre", "`problems: 0`")
}

/// Returns the check that all nodes have a speaker.
#[must_use]
pub fn speakers(ferrolb: &str) -> Command {
    GET.run_in(ferrolb, "fspeaker").expecting("one line for each node")
}

/// Returns a check of FerroLB's pools.
#[must_use]
pub fn list_pools(ferrolb: &str, expect: &'static str) -> Command {
    GET.run_in(ferrolb, "ipaddresspools.ferrolb.io").expecting(expect)
}

/// Returns a command of `kubectl ferrolb` for the installation in a namespace.
#[must_use]
pub fn ferrolb(namespace: &str, command: &str) -> String {
    if namespace == NAMESPACE {
        return format!("kubectl ferrolb {command}");
    }
    format!("kubectl ferrolb {command} --installation {}", quoted(namespace))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_are_quoted_if_the_shell_would_change_them() {
        assert_eq!(quoted("metallb-system"), "metallb-system");
        assert_eq!(quoted("my dir"), "'my dir'");
        assert_eq!(quoted("a'; rm"), r"'a'\''; rm'");
        assert_eq!(quoted(""), "''");
    }
}
