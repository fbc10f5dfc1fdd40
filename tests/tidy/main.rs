//! Style and structure as tests: the rules of CONTRIBUTING.md, which a reviewer would otherwise
//! have to check in every change. They need only cargo. Function length is not here: clippy's
//! `too_many_lines` checks it.

mod crds;
mod dependencies;
mod images;
mod language;
mod links;
mod manifests;
mod reasons;
mod sources;
mod tree;
mod workloads;
