//! What people install: `deploy/` as kustomize and Helm make it. Needs Go, which builds the two, and neither root rights nor a cluster.

mod chart;
mod kustomize;
mod refusals;
mod rendered;
mod same;
mod values;
