//! Tests of style and structure: the rules of CONTRIBUTING.md that a reviewer would otherwise check
//! in every change. The tests need only cargo. clippy's `too_many_lines` checks the length of
//! functions.

mod blocks;
mod contacts;
mod contributing;
mod crds;
mod dependencies;
mod generated;
mod images;
mod krew;
mod language;
mod links;
mod manifests;
mod pages;
mod reading;
mod reference;
mod sources;
mod tree;
mod workflows;
mod workloads;
