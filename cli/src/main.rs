//! `kubectl ferrolb`: connects to the API server, runs one command, and returns its exit code.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser as _};
use ferrolb_cli::args::{Args, CheckOutput, Command, Output, WhyOutput};
use ferrolb_cli::check::read::read as read_check;
use ferrolb_cli::check::report::Report;
use ferrolb_cli::check::text as check_text;
use ferrolb_cli::init::apply::init;
use ferrolb_cli::init::propose::Request;
use ferrolb_cli::snapshot::Snapshot;
use ferrolb_cli::status::Status;
use ferrolb_cli::why;
use ferrolb_proto::facts::Key;
use jiff::Timestamp;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Exit code for a Service that is not announced.
const NOT_ANNOUNCED: u8 = 1;
/// Exit code of a check with problems.
const HAS_PROBLEMS: u8 = 1;
/// Exit code if the objects cannot be read.
const FAILED: u8 = 2;
/// Interval of `status --watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// Clears the terminal and moves the cursor to its start (ECMA-48, ED and CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

async fn run(args: Args) -> Result<ExitCode> {
    if let Command::Completion { shell } = args.command {
        let mut command = Args::command();
        clap_complete::generate(shell, &mut command, "kubectl-ferrolb", &mut std::io::stdout());
        return Ok(ExitCode::SUCCESS);
    }
    let config = config(&args).await?;
    let default_namespace = config.default_namespace.clone();
    let client = Client::try_from(config)?;
    let now = || Timestamp::now().as_second();
    let read = || Snapshot::read(&client, &args.installation, now());
    match &args.command {
        Command::Status { watch, output } => loop {
            let text = status(read().await?, *output)?;
            if !watch {
                print(&text)?;
                return Ok(ExitCode::SUCCESS);
            }
            if !print(&format!("{CLEAR}{text}"))? {
                return Ok(ExitCode::SUCCESS);
            }
            tokio::time::sleep(WATCH_INTERVAL).await;
        },
        Command::Why { service, namespace, output } => {
            let namespace = namespace.as_deref().unwrap_or(&default_namespace);
            let key = service
                .split_once('/')
                .map_or_else(|| Key::new(namespace, service), |(of, name)| Key::new(of, name));
            let state = read().await?.state(now());
            let explanation =
                state.explain(&key).with_context(|| format!("Service {key} does not exist"))?;
            print(&match output {
                Some(WhyOutput::Json) => serde_json::to_string_pretty(&explanation)? + "\n",
                None => why::text(&explanation),
            })?;
            let code = if explanation.row.announced { 0 } else { NOT_ANNOUNCED };
            Ok(ExitCode::from(code))
        }
        Command::Check { pre, strict, output } => {
            let report = Report::new(&read_check(&client, &args.installation, *pre, now()).await?);
            print(&match output {
                Some(CheckOutput::Json) => serde_json::to_string_pretty(&report)? + "\n",
                Some(CheckOutput::Short) => check_text::short(&report),
                None => check_text::text(&report),
            })?;
            Ok(ExitCode::from(match report.is_good(*strict) {
                _ if report.incomplete => FAILED,
                true => 0,
                false => HAS_PROBLEMS,
            }))
        }
        Command::Init { pool, range, yes } => {
            let request = Request { pool: pool.clone(), range: range.clone() };
            init(&client, &args.installation, now(), &request, *yes, print).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Completion { .. } => Ok(ExitCode::SUCCESS),
    }
}

fn status(mut snapshot: Snapshot, output: Option<Output>) -> Result<String> {
    let now = Timestamp::now().as_second();
    let state = snapshot.state(now);
    let status = Status::new(&snapshot, &state);
    Ok(match output {
        Some(Output::Json) => serde_json::to_string_pretty(&status)? + "\n",
        Some(Output::Wide) => status.text(true, now),
        None => status.text(false, now),
    })
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
async fn config(args: &Args) -> Result<Config> {
    let options =
        KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let kubeconfig = match &args.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let kubeconfig = kubeconfig.context("cannot read the kubeconfig file")?;
    Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .context("the kubeconfig file has no usable context")
}
