//! Interfaces that the speakers use: those of the plugin are not among them.

use anyhow::{Result, ensure};
use ferrolb_lab::Lab;
use ferrolb_proto::api::NAMESPACE;

const USED: &str =
    r#"jsonpath={range .items[*]}{.metadata.name} {.status.interfaces[*].name}{"\n"}{end}"#;

/// Checks that each worker has the plugin's interfaces, and that its speaker uses only `eth0`.
pub(crate) fn check(lab: &Lab, links: &[&str]) -> Result<()> {
    let used = lab.kubectl(&["-n", NAMESPACE, "get", "fspeaker", "-o", USED])?;
    for node in lab.nodes() {
        ensure!(
            used.lines().any(|line| line == format!("{node} eth0")),
            "{node} uses other interfaces than eth0: {used}"
        );
    }
    for node in lab.nodes().iter().skip(1) {
        let present = lab.exec(node, &["ip", "-brief", "link"])?;
        for link in links {
            let is_present =
                present.lines().any(|line| line.split([' ', '@']).next() == Some(link));
            ensure!(is_present, "{node} has no interface {link}: {present}");
        }
    }
    Ok(())
}
