//! Runs the command `init`: reads the objects, and applies the proposal if the user confirms it.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};
use ferrolb_controller_core::state::Names;
use kube::{Client, Error};

use super::manifest;
use super::propose::{Proposal, ProposedPool, Request, propose};
use crate::apply::apply;
use crate::check::read::{AddressFacts, read_addresses};
use crate::objects::text;
use crate::read::NOT_FOUND;

/// Proposes a pool: the explanation goes to stderr, and the YAML to `print`. With `--yes`, or after
/// a confirmation in a terminal, applies the objects. `server` is the host of the API server in the
/// kubeconfig file.
///
/// # Errors
/// The API server is unavailable or rejects an object, or there is no free address.
pub async fn init(
    client: &Client,
    namespace: &str,
    unix_time: i64,
    server: &str,
    request: &Request,
    print: impl Fn(&str) -> Result<bool>,
) -> Result<()> {
    let facts = read_addresses(client, server, namespace, unix_time).await?;
    let AddressFacts { objects, in_use, denied } = facts;
    for message in denied {
        eprintln!("note: not all objects could be read: no permission: {message}");
    }
    let proposal = propose(&objects, &in_use, request)?;
    eprint!("{proposal}");
    let Proposal::New(pool) = proposal else { return Ok(()) };
    let names = &objects.installation.config.names;
    print(&manifest::yaml(&pool, names)?)?;
    if request.yes || confirmed()? {
        apply_all(client, &pool, names).await?;
        let name = &pool.name;
        eprintln!(
            "applied IPAddressPool {name} and L2Advertisement {name}: see `kubectl ferrolb status`"
        );
    } else {
        let command = manifest::command(&pool, namespace);
        eprintln!("IPAddressPool {} is not applied yet: `{command}`", pool.name);
    }
    Ok(())
}

/// Requests a confirmation in a terminal. Without one, as in `kubectl ferrolb init | kubectl apply
/// -f -`, there is no confirmation.
fn confirmed() -> Result<bool> {
    if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        return Ok(false);
    }
    eprint!("Apply? [y/N] ");
    std::io::stderr().flush()?;
    let mut reply = String::new();
    std::io::stdin().lock().read_line(&mut reply).context("cannot read the reply")?;
    Ok(["y", "yes"].contains(&reply.trim().to_lowercase().as_str()))
}

async fn apply_all(client: &Client, pool: &ProposedPool, names: &Names) -> Result<()> {
    for object in manifest::objects(pool, names) {
        apply(client, &object, false).await.map_err(|error| {
            let context = failure(text(&object, "/kind"), &pool.name, &error);
            anyhow::Error::new(error).context(context)
        })?;
    }
    Ok(())
}

/// Describes an object that cannot be applied. The API server finds neither the kind nor the
/// namespace if FerroLB is not installed.
fn failure(kind: &str, name: &str, error: &Error) -> String {
    let is_missing = matches!(error, Error::Api(status) if status.code == NOT_FOUND);
    let hint = if is_missing { ": is FerroLB installed?" } else { "" };
    format!("cannot apply {kind} {name}{hint}")
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn only_a_missing_kind_is_a_missing_installation() {
        let text = |code| {
            let error =
                Error::Api(Box::new(Status::failure("conflict", "Conflict").with_code(code)));
            failure("IPAddressPool", "lan", &error)
        };
        assert_eq!(text(404), "cannot apply IPAddressPool lan: is FerroLB installed?");
        assert_eq!(text(409), "cannot apply IPAddressPool lan");
    }
}
