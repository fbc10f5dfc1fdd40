//! Text of shell commands. Pure.

use ferrolb_proto::api::NAMESPACE;
use serde_json::Value;

use crate::objects::{name, namespace};

/// Command that lists the addresses of all Services of type LoadBalancer.
const ADDRESSES: &str = "kubectl get services --all-namespaces --field-selector \
    spec.type=LoadBalancer -o custom-columns='NAMESPACE:.metadata.namespace,NAME:.metadata.name,\
    ADDRESSES:.status.loadBalancer.ingress[*].ip'";
/// File with the addresses before the migration.
pub const BEFORE: &str = "addresses-before.txt";

/// The chart: in a clone of FerroLB's repository, or in the registry of a release.
pub const CHART: &str = env!("FERROLB_CHART");
/// Manifests of an installation for layer 2.
pub const MANIFESTS: &str = "deploy/install.yaml";
/// Manifests of an installation with BGP.
pub const MANIFESTS_WITH_BGP: &str = "deploy/install-bgp.yaml";

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

/// Returns the commands that create the directory of the migration. Only its owner may read the
/// files that follow, which may contain passwords.
#[must_use]
pub fn create_directory(directory: &str) -> [String; 2] {
    ["umask 077".to_owned(), format!("mkdir -p {}", quoted(directory))]
}

/// Returns the command that lists the addresses of all Services.
#[must_use]
pub fn list_addresses() -> String {
    ADDRESSES.to_owned()
}

/// Returns the command that saves the addresses of all Services.
#[must_use]
pub fn save_addresses(directory: &str) -> String {
    format!("{ADDRESSES} > {}", file(directory, BEFORE))
}

/// Returns the command that compares the addresses of all Services with the saved ones.
#[must_use]
pub fn compare_addresses(directory: &str) -> String {
    format!("{ADDRESSES} | diff {} -", file(directory, BEFORE))
}

/// Returns the command that stops FerroLB's controller. A controller without pools would remove
/// the addresses from the Services.
#[must_use]
pub fn stop_controller(ferrolb: &str) -> String {
    format!("kubectl -n {} scale deployment controller --replicas=0", quoted(ferrolb))
}

/// Returns the command that shows whether an address has changed, and its expected result.
#[must_use]
pub fn unchanged(directory: &str) -> (String, &'static str) {
    (compare_addresses(directory), "prints nothing: no address has changed")
}

/// Returns the check before an installation, and its expected result.
#[must_use]
pub const fn before_installation() -> (&'static str, &'static str) {
    ("kubectl ferrolb check --pre", "problems: 0")
}

/// Returns the command that lists the nodes with a speaker, and its expected result.
#[must_use]
pub fn speakers(ferrolb: &str) -> (String, &'static str) {
    (format!("kubectl -n {} get fspeaker", quoted(ferrolb)), "one line for each node")
}

/// Returns a command of `kubectl ferrolb` for the installation in a namespace.
#[must_use]
pub fn ferrolb(namespace: &str, command: &str) -> String {
    if namespace == NAMESPACE {
        return format!("kubectl ferrolb {command}");
    }
    format!("kubectl ferrolb {command} --installation {}", quoted(namespace))
}

/// Returns a kubectl command for a Service, without its last arguments.
#[must_use]
pub fn on_service(verb: &str, service: &Value) -> String {
    format!("kubectl -n {} {verb} service {}", quoted(namespace(service)), quoted(name(service)))
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
