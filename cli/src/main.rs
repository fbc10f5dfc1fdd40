//! `kubectl ferrolb`: connects to the API server, runs one command, and returns its exit code.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{CommandFactory as _, Parser as _};
use ferrolb_cli::args::{Args, CheckOutput, Command, Connection, Output};
use ferrolb_cli::check::report::Report;
use ferrolb_cli::drain::Drain;
use ferrolb_cli::init::propose::Request;
use ferrolb_cli::install::manifests::Variant;
use ferrolb_cli::install::run::{InstallRequest, Target, install};
use ferrolb_cli::installation::Installation;
use ferrolb_cli::kubectl::Kubectl;
use ferrolb_cli::migrate::args::Source;
use ferrolb_cli::plan::Prediction;
use ferrolb_cli::plan::run::{Files, plan};
use ferrolb_cli::snapshot::Snapshot;
use ferrolb_cli::status::Status;
use ferrolb_cli::why::Why;
use ferrolb_cli::{check, completion, init, migrate, why};
use ferrolb_controller_core::state::State;
use ferrolb_proto::api::GROUP;
use jiff::Timestamp;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::Serialize;

/// Exit code for a Service that is not announced, and for a change with a bad effect.
const BAD_RESULT: u8 = 1;
/// Exit code if the objects cannot be read.
const FAILED: u8 = 2;
/// Interval of `status --watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// Note that precedes the output if the API server does not have the kind IPAddressPool.
const NO_POOLS: &str = "note: the CustomResourceDefinition of IPAddressPools is missing (FLB006), \
                        so no pool is known. See `kubectl ferrolb check`";
/// Error of `install --dry-run` without a cluster.
const NO_VARIANT: &str = "the installed variant cannot be read: name one with --variant";
/// Clears the terminal and moves the cursor to its start (ECMA-48, ED and CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if arguments.next().is_some_and(|program| completion::is_completion(&program)) {
        let words: Vec<_> = arguments.map(|it| it.to_string_lossy().into_owned()).collect();
        _ = print(&completion::candidates(&words));
        return ExitCode::SUCCESS;
    }
    match run(Args::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// Connection to the API server, and the namespace of the installation.
struct Cluster {
    client: Client,
    server: String,
    installation: String,
    default_namespace: String,
}

async fn run(Args { connection, command }: Args) -> Result<ExitCode> {
    let connect = || Cluster::connect(&connection);
    match command {
        Command::Status { watch, output } => connect().await?.status(watch, output).await,
        Command::Why { service, namespace, strict, output } => {
            connect().await?.why(namespace, &service, strict, output.is_some()).await
        }
        Command::Check { pre, strict, output } => connect().await?.check(pre, strict, output).await,
        Command::Init(request) => connect().await?.init(&request).await,
        Command::Install(request) if request.dry_run => {
            let variant = match request.variant {
                Some(variant) => variant,
                None => installed_variant(&connection).await.context(NO_VARIANT)?,
            };
            print(&variant.yaml(&connection.installation))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Install(request) => connect().await?.install(&request).await,
        Command::Plan { files, kustomize, delete, fail_on, output } => {
            let kubectl =
                Kubectl::new(connection.kubeconfig.as_ref(), connection.context.as_deref());
            let files = Files { applied: files, kustomize, deleted: delete };
            connect().await?.plan(kubectl, files, fail_on.is_some(), output.is_some()).await
        }
        Command::Drain { node, dry_run: _, output } => {
            connect().await?.drain(&node, output.is_some()).await
        }
        Command::Migrate(source) => migrate(&connection, &source).await,
        Command::Completion { shell } => {
            let mut command = Args::command();
            clap_complete::generate(shell, &mut command, "kubectl-ferrolb", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

impl Cluster {
    async fn connect(connection: &Connection) -> Result<Self> {
        let config = config(connection).await?;
        Ok(Self {
            default_namespace: config.default_namespace.clone(),
            server: config.cluster_url.host().unwrap_or_default().to_owned(),
            client: Client::try_from(config)?,
            installation: connection.installation.clone(),
        })
    }

    /// Returns the installation, and the state of its controller.
    async fn read(&self, unix_time: i64) -> Result<(Installation, State)> {
        let snapshot = Snapshot::read(&self.client, &self.installation, unix_time).await?;
        if snapshot.installation.lacks_pools {
            eprintln!("{NO_POOLS}");
        }
        Ok(snapshot.into_state(unix_time))
    }

    async fn status(&self, watch: bool, output: Option<Output>) -> Result<ExitCode> {
        loop {
            let now = unix_time();
            let (installation, state) = self.read(now).await?;
            let status = Status::new(&installation, &state);
            let text = match output {
                Some(Output::Json) => json(&status)?,
                Some(Output::Wide) => status.text(true, now),
                None => status.text(false, now),
            };
            if !watch {
                print(&text)?;
                return Ok(ExitCode::SUCCESS);
            }
            let clear = if output == Some(Output::Json) { "" } else { CLEAR };
            if !print(&format!("{clear}{text}"))? {
                return Ok(ExitCode::SUCCESS);
            }
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    }

    async fn why(
        &self,
        namespace: Option<String>,
        service: &str,
        strict: bool,
        as_json: bool,
    ) -> Result<ExitCode> {
        let namespace = namespace.as_deref().unwrap_or(&self.default_namespace);
        let key = why::key(service, namespace);
        let now = unix_time();
        let (_, state) = self.read(now).await?;
        let found = state.explain(&key).zip(state.service(&key));
        let (explanation, service) = found.with_context(|| {
            format!("Service {key} does not exist: list all with `kubectl ferrolb status`")
        })?;
        let others = check::read::read_others(&self.client, service, now).await;
        let others = check::load_balancers::others_of(&explanation, &others);
        let why = Why { explanation: &explanation, other_load_balancers: &others };
        print(&if as_json { json(&why)? } else { why::text(why) })?;
        let row = &explanation.row;
        Ok(code(row.announced && (!strict || row.warnings.is_empty())))
    }

    async fn plan(
        &self,
        kubectl: Kubectl,
        files: Files,
        fails_on_loss: bool,
        as_json: bool,
    ) -> Result<ExitCode> {
        let plan = plan(&self.client, kubectl, files, &self.installation, unix_time()).await?;
        print(&if as_json { json(&plan.effect)? } else { plan.text() })?;
        Ok(code(!(fails_on_loss && plan.effect.loses_addresses())))
    }

    async fn check(
        &self,
        before_installation: bool,
        strict: bool,
        output: Option<CheckOutput>,
    ) -> Result<ExitCode> {
        let (client, namespace) = (&self.client, &self.installation);
        let facts = check::read::read(client, namespace, before_installation, unix_time()).await?;
        let report = Report::new(&facts);
        print(&match output {
            Some(CheckOutput::Json) => json(&report)?,
            Some(CheckOutput::Short) => check::text::short(&report),
            None => check::text::text(&report),
        })?;
        Ok(if report.incomplete { ExitCode::from(FAILED) } else { code(report.is_good(strict)) })
    }

    async fn init(&self, request: &Request) -> Result<ExitCode> {
        let (client, namespace) = (&self.client, &self.installation);
        init::apply::init(client, namespace, unix_time(), &self.server, request, print).await?;
        Ok(ExitCode::SUCCESS)
    }

    async fn install(&self, request: &InstallRequest) -> Result<ExitCode> {
        let Self { client, server, installation: namespace, .. } = self;
        let target = Target { client, server, namespace };
        Ok(code(install(&target, request, unix_time, print).await?))
    }

    async fn drain(&self, node: &str, as_json: bool) -> Result<ExitCode> {
        let (_, state) = self.read(unix_time()).await?;
        ensure!(
            state.names().group == GROUP,
            "a drain cannot be predicted: with --api-group {}, speakers write no SpeakerStatus",
            state.names().group
        );
        let found = state.nodes().find(|it| *it.name == *node).cloned();
        let found = found.with_context(|| {
            format!("Node {node} does not exist: list all with `kubectl get nodes`")
        })?;
        let drain = Drain::new(found, Prediction::new(state));
        print(&if as_json { json(&drain)? } else { drain.text() })?;
        Ok(code(drain.empties_node()))
    }
}

async fn installed_variant(connection: &Connection) -> Result<Variant> {
    let Cluster { client, server, installation, .. } = Cluster::connect(connection).await?;
    let target = Target { client: &client, server: &server, namespace: &installation };
    target.variant().await
}

/// Runs the command `migrate`, which needs no cluster if the objects are in files.
async fn migrate(connection: &Connection, source: &Source) -> Result<ExitCode> {
    let client = match migrate::run::needs_cluster(source) {
        true => Some(Client::try_from(config(connection).await?)?),
        false => None,
    };
    let output = migrate::run::run(client, source, &connection.installation).await?;
    print(&output.text)?;
    Ok(code(output.keeps_everything))
}

/// Returns the present time in seconds since 1970.
fn unix_time() -> i64 {
    Timestamp::now().as_second()
}

fn code(is_good: bool) -> ExitCode {
    ExitCode::from(if is_good { 0 } else { BAD_RESULT })
}

fn json(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// Writes to stdout. Returns false if the reader has closed the pipe, which is no error.
fn print(text: &str) -> Result<bool> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true).context("cannot write to stdout"),
    }
}

/// Returns the credentials from the kubeconfig file, as kubectl selects them.
async fn config(connection: &Connection) -> Result<Config> {
    let options =
        KubeConfigOptions { context: connection.context.clone(), ..KubeConfigOptions::default() };
    let kubeconfig = match &connection.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let kubeconfig = kubeconfig.context("cannot read the kubeconfig file")?;
    Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .context("the kubeconfig file has no usable context")
}
