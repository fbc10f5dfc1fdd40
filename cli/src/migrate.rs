//! The command `migrate`: plans a migration from another load balancer to FerroLB.
//!
//! ```text
//! API server or files -> Objects -> Migration -> text, JSON and manifests
//! ```
//!
//! Each source has a pure module that turns [`Objects`] into a [`Migration`]. FerroLB's
//! own allocator predicts the address of every Service ([`predict`]). [`files`] and [`live`]
//! perform the I/O, and [`run`] connects the parts.

pub mod args;
pub mod change;
pub mod external_ips;
pub mod files;
pub mod groups;
pub mod installed;
pub mod kube_vip;
pub mod kube_vip_bgp;
pub mod kube_vip_pools;
mod kube_vip_steps;
pub mod live;
mod merge;
pub mod metallb;
pub mod metallb_nodes;
pub mod metallb_steps;
pub mod metallb_workloads;
pub mod predict;
pub mod render;
pub mod run;
pub mod runbook;
pub mod served;
pub mod servicelb;
pub mod shell;
pub mod step;
pub mod translate;

#[cfg(test)]
mod tests;

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::objects::Objects;
use predict::Outcome;
pub use step::{Action, Command, Step};

/// Identifier of the step that deletes the former load balancer: no rollback exists after it.
pub const CLEAN_UP: &str = "clean-up";

/// A planned migration.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Migration {
    /// The way of the migration, as a heading.
    pub title: String,
    /// Facts about the cluster that decide the steps.
    pub facts: Vec<String>,
    /// The predicted addresses of the Services.
    pub services: Vec<Outcome>,
    /// The problems, and differences to note.
    pub problems: Vec<Problem>,
    /// The files that the steps use.
    pub files: Vec<ManifestFile>,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// A file with manifests.
#[derive(Debug, PartialEq, Serialize)]
pub struct ManifestFile {
    /// Name of the file.
    pub name: &'static str,
    /// The objects. Serialized without passwords, which are only in the file.
    #[serde(serialize_with = "without_passwords")]
    pub objects: Vec<Value>,
}

fn without_passwords<S: Serializer>(objects: &[Value], serializer: S) -> Result<S::Ok, S::Error> {
    let mut objects = objects.to_vec();
    for password in objects.iter_mut().filter_map(|it| it.pointer_mut("/spec/password")) {
        if !password.is_null() && *password != "" {
            *password = Value::from("(only in the file)");
        }
    }
    objects.serialize(serializer)
}

/// A fact that affects the migration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Severity.
    pub level: Level,
    /// The object: its kind, and its namespace or name.
    pub object: String,
    /// The fact, and the change that helps.
    pub text: String,
}

/// Severity of a [`Problem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A function of the cluster would be lost.
    Problem,
    /// A difference without a loss.
    Note,
}

impl ManifestFile {
    /// Returns the file, or nothing if there are no objects.
    #[must_use]
    pub fn unless_empty(name: &'static str, objects: Vec<Value>) -> Vec<Self> {
        if objects.is_empty() { Vec::new() } else { vec![Self { name, objects }] }
    }
}

impl Migration {
    /// Returns whether all Services keep their addresses and nothing is lost.
    #[must_use]
    pub fn keeps_everything(&self) -> bool {
        self.services.iter().all(Outcome::is_kept)
            && self.problems.iter().all(|problem| problem.level == Level::Note)
    }

    /// Sets the steps, with their numbers, and adds a fact if they need a clone of the repository.
    #[must_use]
    pub fn with_steps(mut self, steps: Vec<Step>) -> Self {
        if steps.iter().any(Step::needs_clone) {
            self.facts.push(format!(
                "the commands run in a clone of {}, which has the directory deploy",
                env!("CARGO_PKG_REPOSITORY")
            ));
        }
        let numbered = |(index, step)| Step { number: index + 1, ..step };
        self.steps = steps.into_iter().enumerate().map(numbered).collect();
        self
    }
}

impl Problem {
    /// Returns a problem of an object.
    #[must_use]
    pub fn of(object: impl Into<String>, text: impl Into<String>) -> Self {
        Self { level: Level::Problem, object: object.into(), text: text.into() }
    }

    /// Returns a note about an object.
    #[must_use]
    pub fn note(object: impl Into<String>, text: impl Into<String>) -> Self {
        Self { level: Level::Note, object: object.into(), text: text.into() }
    }
}
