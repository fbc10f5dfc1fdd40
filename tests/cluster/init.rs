//! `kubectl ferrolb init` on a real cluster: the proposed pool is free, and a Service gets one of
//! its addresses.

use crate::scenario::{run_scenario, step};
use crate::services::{self, WEB, wait_announced};
use anyhow::{Result, ensure};
use ferrolb_lab::{Lab, Options};

/// Proposals on the lab's segment, 172.30.0.0/24: the first, and the next one.
const FIRST: &str = "172.30.0.240-172.30.0.250";
const SECOND: &str = "172.30.0.229-172.30.0.239";

/// Writes the kubeconfig file of a user who may read neither Namespaces nor ServiceCIDRs.
const MAKE_USER: &str = r#"kubectl create serviceaccount limited
kubectl apply -f - <<'EOF'
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: limited}
rules:
  - {apiGroups: [""], resources: [services, nodes], verbs: [list]}
  - {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list]}
  - {apiGroups: [apps], resources: [deployments, daemonsets], verbs: [get]}
  - {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get]}
  - {apiGroups: [ferrolb.io], resources: ['*'], verbs: [list]}
EOF
kubectl create clusterrolebinding limited --clusterrole=limited --serviceaccount=default:limited
kubectl config view --raw > "$HELM_DATA_HOME.kubeconfig"
kubectl --kubeconfig "$HELM_DATA_HOME.kubeconfig" config set-credentials limited \
"--token=$(kubectl create token limited)"
kubectl --kubeconfig "$HELM_DATA_HOME.kubeconfig" config set-context --current --user=limited"#;

#[test]
fn a_proposed_pool_serves_a_service() {
    run_scenario(&Options::named("init"), |lab| {
        lab.start_ferrolb()?;
        step("without a confirmation, nothing changes", || {
            let text = lab.shell("kubectl ferrolb init 2>&1 </dev/null")?;
            for part in [FIRST, "Subnet of the nodes: 172.30.0.0-172.30.0.255", "DHCP"] {
                ensure!(text.contains(part), "{part:?} is missing:\n{text}");
            }
            pools(lab, &[])
        })?;
        step("Namespaces and ServiceCIDRs are optional", || {
            lab.shell(MAKE_USER)?;
            let command = "kubectl ferrolb init --kubeconfig $HELM_DATA_HOME.kubeconfig 2>&1";
            let text = lab.shell(&format!("{command} </dev/null"))?;
            for part in [FIRST, "note: ", "namespaces", "servicecidrs"] {
                ensure!(text.contains(part), "{part:?} is missing:\n{text}");
            }
            Ok(())
        })?;
        step("only the YAML is on stdout", || {
            lab.shell("kubectl ferrolb init | kubectl apply -f -")?;
            pools(lab, &[FIRST])?;
            lab.kubectl(&["-n", "ferrolb-system", "delete", "fpool,fl2", "--all"]).map(drop)
        })?;
        step("--yes applies, and a Service is announced", || {
            lab.shell("kubectl ferrolb init --yes")?;
            pools(lab, &[FIRST])?;
            lab.pod("web", "node1", &WEB)?;
            let address = services::serve(lab, "web")?.to_string();
            wait_announced(lab, "web", "Announced", &address)
        })?;
        step("an existing pool stays, and --pool adds one next to it", || {
            let text = lab.shell("kubectl ferrolb init --yes 2>&1")?;
            ensure!(text.contains("IPAddressPool default exists"), "{text}");
            pools(lab, &[FIRST])?;
            lab.shell("kubectl ferrolb init --pool second --yes")?;
            pools(lab, &[FIRST, SECOND])
        })?;
        step("a range with the address of a node is rejected", || {
            let command = "kubectl ferrolb init --pool third --range 172.30.0.9-172.30.0.12 2>&1";
            let text = lab.shell(&format!("{command} || test $? = 2"))?;
            ensure!(text.contains("an address of Node node1"), "{text}");
            pools(lab, &[FIRST, SECOND])
        })
    });
}

/// Checks the addresses of all pools, by the pools' names.
fn pools(lab: &Lab, expected: &[&str]) -> Result<()> {
    let path = "jsonpath={.items[*].spec.addresses[*]}";
    let found = lab.kubectl(&["-n", "ferrolb-system", "get", "fpool", "-o", path])?;
    ensure!(found.split_whitespace().eq(expected.iter().copied()), "{found}");
    Ok(())
}
