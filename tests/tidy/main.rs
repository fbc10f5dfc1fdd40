//! Style and structure as tests: what a reviewer would have to look for by eye in every change (CONTRIBUTING.md has the rules).
//! Needs nothing but cargo. Function length is not here: clippy's `too_many_lines` holds it.

mod arrows;
mod crds;
mod images;
mod links;
mod manifests;
mod reasons;
mod sources;
mod tree;
mod workloads;
