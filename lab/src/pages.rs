//! The documentation as a test reads it: pages with blocks of commands and YAML, and the outputs
//! that the pages show. Markers before the blocks select the test that runs them.

mod compare;
mod normalize;
mod parse;
pub mod run;
pub mod scenarios;
mod substitute;
#[cfg(test)]
mod summary;

pub use substitute::to_lab;

use crate::setup::repository;
use anyhow::{Context, Result, ensure};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Page at the root of the repository, and the folder of all other pages.
const README: &str = "README.md";
const DOCS: &str = "docs";
/// Language of blocks with commands, of their outputs, and of objects.
const SHELL: &str = "sh";
const OUTPUT: &str = "text";
const YAML: &str = "yaml";

/// Environment that a block needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// Helm and kustomize without a cluster.
    Install,
    /// Three nodes with FerroLB and layer 2, a client on the LAN, and web pods on each node.
    Lab,
    /// The same nodes, each with a gobgpd, and an FRR router.
    Bgp,
    /// Nodes whose kubelets run pods.
    Kubeadm,
}

impl Topology {
    pub const ALL: [Self; 4] = [Self::Install, Self::Lab, Self::Bgp, Self::Kubeadm];

    /// Returns the name in a marker: `run: lab`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Lab => "lab",
            Self::Bgp => "bgp",
            Self::Kubeadm => "kubeadm",
        }
    }

    /// Returns the topologies whose blocks also run in this one, so that each block finds the
    /// objects of the blocks before it.
    pub const fn includes(self) -> &'static [Self] {
        match self {
            Self::Install => &[Self::Install],
            Self::Lab => &[Self::Lab],
            Self::Bgp => &[Self::Lab, Self::Bgp],
            Self::Kubeadm => &[Self::Lab, Self::Kubeadm],
        }
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Instruction for tests, in an HTML comment on the line before a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Marker {
    Run(Topology),
    /// Reason why no test runs the commands.
    NotRun(String),
    /// Reason why no test applies the YAML.
    NotApplied(String),
    /// Values of the Helm chart.
    HelmValues,
}

/// A fenced code block of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub language: String,
    /// Content without the indentation of the fence.
    pub text: String,
    pub marker: Option<Marker>,
    /// Line of the opening fence, counted from 1.
    pub line: usize,
    /// Text of the last heading before the block.
    pub heading: String,
    /// Output that the page shows for the commands.
    pub output: Option<String>,
}

impl Block {
    /// Returns whether the block runs in this topology.
    pub fn runs_in(&self, topology: Topology) -> bool {
        self.marker == Some(Marker::Run(topology))
    }

    /// Returns whether the block contains Kubernetes objects that an API server must accept.
    pub fn is_applied(&self) -> bool {
        let excluded = matches!(self.marker, Some(Marker::NotApplied(_) | Marker::HelmValues));
        let has_kind = || self.text.lines().any(|line| line.starts_with("kind:"));
        self.language == YAML && !excluded && has_kind()
    }
}

/// A Markdown page.
#[derive(Clone, Debug)]
pub struct Page {
    /// Path from the repository's root, such as `docs/concepts.md`.
    pub path: String,
    pub blocks: Vec<Block>,
}

impl Page {
    /// Reads a page of the repository.
    ///
    /// # Errors
    /// If there is no such page, or a block of the page has an unknown marker or no end.
    pub fn read(path: &str) -> Result<Self> {
        let text = fs::read_to_string(repository().join(path))
            .with_context(|| format!("cannot read {path}"))?;
        let blocks = parse::blocks(&text).with_context(|| path.to_owned())?;
        Ok(Self { path: path.to_owned(), blocks })
    }

    /// Returns the first block of commands that contains `command`.
    ///
    /// # Errors
    /// If the page has no such block.
    pub fn commands_with(&self, command: &str) -> Result<&Block> {
        let mut blocks = self.blocks.iter().filter(|block| block.language == SHELL);
        let found = blocks.find(|block| block.text.contains(command));
        found.with_context(|| format!("{} has no commands with {command:?}", self.path))
    }

    /// Returns whether the page has a block for this topology.
    pub fn needs(&self, topology: Topology) -> bool {
        self.blocks.iter().any(|block| block.runs_in(topology))
    }

    /// Returns the blocks that run together in this topology, in their order.
    pub fn blocks_for(&self, topology: Topology) -> Vec<&Block> {
        let runs = |block: &&Block| topology.includes().iter().any(|one| block.runs_in(*one));
        self.blocks.iter().filter(runs).collect()
    }

    /// Returns the position of a block, such as `README.md:12`.
    pub fn position(&self, block: &Block) -> String {
        format!("{}:{}", self.path, block.line)
    }
}

/// Returns README.md and all pages in `docs/`, sorted by path.
///
/// # Errors
/// See [`Page::read`].
pub fn all() -> Result<Vec<Page>> {
    let root = repository();
    let mut paths = vec![root.join(README)];
    add_pages(&root.join(DOCS), &mut paths)?;
    paths.sort();
    let relative = |path: &PathBuf| path.strip_prefix(root).map(|path| path.display().to_string());
    paths.iter().map(|path| Page::read(&relative(path)?)).collect()
}

fn add_pages(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            add_pages(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path);
        }
    }
    ensure!(!paths.is_empty(), "there are no pages in {}", folder.display());
    Ok(())
}
