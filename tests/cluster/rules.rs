//! Rules of address assignment that depend on a real API server, because the API server sets,
//! allocates, drops or refuses fields. The table in `controller/core/src/state/tests/rows` covers
//! the rules themselves.

use crate::pools::object;
use crate::scenario::{run_scenario, step, without_proxy};
use crate::{allocation, families, sharing, types};
use anyhow::{Result, ensure};
use ferrolb_lab::Lab;
use ferrolb_proto::api::{CustomResourceKind, GROUP, NAMESPACE};
use serde_json::{Value, json};

#[test]
fn assignment_rules_hold_on_a_real_api_server() {
    run_scenario(&without_proxy("rules"), |lab| {
        lab.install_ferrolb()?;
        step("the API server adds nothing to the spec of an object", || check_specs(lab))?;
        lab.start_controller(&[])?;
        for part in [types::part, allocation::part, sharing::part, families::part] {
            part(lab)?;
            step("all Services and pools are deleted", || delete_all(lab))?;
        }
        Ok(())
    });
}

/// Checks that objects of all kinds have the spec that was written. Tools that compare objects with
/// their source would otherwise report a difference.
fn check_specs(lab: &Lab) -> Result<()> {
    let allocation = json!({"namespaces": ["nobody"]});
    let pool = json!({"addresses": ["172.30.9.1"], "serviceAllocation": allocation});
    let peer = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1",
        "passwordSecret": {"name": "nothing"}});
    let written = [
        (CustomResourceKind::IPAddressPool, pool),
        (CustomResourceKind::L2Advertisement, json!({"ipAddressPools": ["specs"]})),
        (CustomResourceKind::BGPAdvertisement, json!({"ipAddressPools": ["specs"]})),
        (CustomResourceKind::BGPPeer, peer),
        (CustomResourceKind::BFDProfile, json!({"receiveInterval": 300})),
        (CustomResourceKind::Community, json!({"communities": [{"name": "a", "value": "1:2"}]})),
    ];
    for (kind, spec) in &written {
        lab.apply_objects(&[object(*kind, "specs", spec.clone())])?;
        let name = format!("{}.{GROUP}", kind.plural());
        let arguments = ["-n", NAMESPACE, "get", &name, "specs", "-o", "jsonpath={.spec}"];
        let stored: Value = serde_json::from_str(&lab.kubectl(&arguments)?)?;
        ensure!(stored == *spec, "{}: {stored} instead of {spec}", kind.name());
        lab.kubectl(&["-n", NAMESPACE, "delete", &name, "specs"])?;
    }
    Ok(())
}

/// Deletes all Services and pools. The next part uses other addresses, so the test need not wait
/// for the controller.
fn delete_all(lab: &Lab) -> Result<()> {
    lab.kubectl(&["delete", "services", "--field-selector", "metadata.name!=kubernetes"])?;
    lab.kubectl(&["delete", "ipaddresspools", "--all", "--namespace", NAMESPACE]).map(drop)
}
