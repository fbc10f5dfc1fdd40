//! Starts etcd and the API server on the control plane's host, then the controller manager, and
//! writes the administrator's kubeconfig.

use super::audit;
use crate::process::{self, Launch, ProcessRecord};
use crate::run;
use crate::setup::GARBAGE_COLLECTION;
use crate::state::{LabFacts, LabState};
use crate::topology::{API_SERVICE, CONTROL_PLANE, Families, Host, POD_RANGES, SERVICE_RANGES};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;

/// Token of the administrator, a member of `system:masters`. The API server is reachable only from
/// inside its lab.
const ADMIN_TOKEN: &str = "lab-administrator";
/// Default port of the API server.
pub const API_PORT: u16 = 6443;
/// Validity of the API server's certificate, in days.
const CERTIFICATE_DAYS: &str = "365";

/// Variables of the control plane in scenarios. Several clusters run at a time, and threads that
/// search for work take a tenth of the API server's processor time.
const SCENARIO_VARIABLES: [(&str, &str); 2] = [GARBAGE_COLLECTION, ("GOMAXPROCS", "1")];

/// Starts etcd and the API server, which replies after some seconds.
///
/// # Errors
/// If the keys cannot be created or a program cannot be started.
pub fn start(state: &LabState, facts: &LabFacts) -> Result<()> {
    create_keys(state, facts.families)?;
    let address = api_address(facts.families);
    let tokens = state.file("tokens");
    fs::write(&tokens, format!("{ADMIN_TOKEN},admin,admin,system:masters\n"))?;
    write_kubeconfig(state, &state.kubeconfig(), ADMIN_TOKEN)?;
    let file = |name: &str| state.file(name).display().to_string();
    fs::write(file(audit::POLICY), audit::policy(facts.audit))?;
    let [policy, log] = audit::flags(file).map(|(flag, value)| format!("--{flag}={value}"));
    launch(
        state,
        facts,
        "etcd",
        &[&format!("--data-dir={}", file("etcd")), "--unsafe-no-fsync", "--log-level=warn"],
    )?;
    launch(
        state,
        facts,
        "kube-apiserver",
        &[
            "--etcd-servers=http://127.0.0.1:2379",
            &format!("--advertise-address={address}"),
            &format!("--tls-cert-file={}", file("apiserver.crt")),
            &format!("--tls-private-key-file={}", file("apiserver.key")),
            &format!("--token-auth-file={}", tokens.display()),
            "--authorization-mode=RBAC",
            &format!("--service-cluster-ip-range={}", facts.families.of(SERVICE_RANGES).join(",")),
            "--service-account-issuer=https://lab",
            &format!("--service-account-key-file={}", file("accounts.pub")),
            &format!("--service-account-signing-key-file={}", file("accounts.key")),
            // No kubelet mounts a token into the lab's pods.
            "--disable-admission-plugins=ServiceAccount",
            "--allow-privileged=true",
            &policy,
            &log,
        ],
    )?;
    Ok(())
}

/// Starts the controller manager. It ends if the API server is not ready, so wait for that first.
///
/// # Errors
/// If the program cannot be started.
pub fn start_controller_manager(state: &LabState, facts: &LabFacts) -> Result<()> {
    let file = |name: &str| state.file(name).display().to_string();
    let kubeconfig = file("kubeconfig");
    launch(
        state,
        facts,
        "kube-controller-manager",
        &[
            &format!("--kubeconfig={kubeconfig}"),
            &format!("--service-account-private-key-file={}", file("accounts.key")),
            &format!("--cluster-cidr={}", facts.families.of(POD_RANGES).join(",")),
            "--use-service-account-credentials=false",
            "--leader-elect=false",
            controllers(facts.leases),
        ],
    )
    .map(drop)
}

/// Returns the address of the API server.
fn api_address(families: Families) -> IpAddr {
    families.first(Host::control_plane().addresses())
}

/// Returns the flag that selects the controllers. Without `leases`, no node renews its Lease, and
/// the node lifecycle controller would mark all nodes as failed, so it is off. All times are
/// Kubernetes' defaults.
const fn controllers(leases: bool) -> &'static str {
    if leases { "--controllers=*" } else { "--controllers=*,-node-lifecycle-controller" }
}

fn launch(
    state: &LabState,
    facts: &LabFacts,
    program: &str,
    args: &[&str],
) -> Result<ProcessRecord> {
    let mut env: BTreeMap<_, _> =
        [("HOME".to_owned(), state.file("home").display().to_string())].into();
    if facts.scenario {
        env.extend(SCENARIO_VARIABLES.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    let launch = Launch {
        name: program.to_owned(),
        host: CONTROL_PLANE.to_owned(),
        node: None,
        program: facts.kubernetes.join(program),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env,
        low_priority: facts.scenario,
    };
    process::start(state, launch)
}

/// Creates the API server's key and self-signed certificate, and the key that signs service account
/// tokens. The keys use elliptic curves, because the creation of an RSA key takes a second.
fn create_keys(state: &LabState, families: Families) -> Result<()> {
    let openssl =
        |args: &[&str]| run::run(Command::new("openssl").current_dir(state.file("")).args(args));
    let (host, service) = (api_address(families), families.first(API_SERVICE));
    let names = format!("subjectAltName=IP:{host},IP:127.0.0.1,IP:{service}");
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        "/CN=kube-apiserver",
        "-days",
        CERTIFICATE_DAYS,
        "-addext",
        &names,
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-keyout",
        "apiserver.key",
        "-out",
        "apiserver.crt",
    ])?;
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "accounts.key"])?;
    openssl(&["ec", "-in", "accounts.key", "-pubout", "-out", "accounts.pub"])?;
    Ok(())
}

/// Writes the kubeconfig that uses `token` and works on any host of the lab.
///
/// # Errors
/// If the file cannot be written.
pub fn write_kubeconfig(state: &LabState, path: &Path, token: &str) -> Result<()> {
    let (server, trusted) = (
        SocketAddr::new(api_address(state.facts()?.families), API_PORT),
        state.file("apiserver.crt"),
    );
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
         clusters: [{{name: lab, cluster: {{server: \"https://{server}\", certificate-authority: \"{}\"}}}}]\n\
         users: [{{name: user, user: {{token: \"{token}\"}}}}]\n\
         contexts: [{{name: lab, context: {{cluster: lab, user: user}}}}]\n",
        trusted.display()
    );
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
