//! Tests of the installation: `deploy/` as kustomize and Helm render it. The tests need Go, which
//! builds both tools, but neither root nor a cluster.

mod chart;
mod guide;
mod k3s;
mod kustomize;
mod migration;
mod refusals;
mod rendered;
mod same;
mod values;
