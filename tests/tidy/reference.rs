//! Generated pages of docs/reference/ whose sources are files of the repository or the custom
//! resources. The test `reference` of the crate `ferrolb-tests` generates the others, which need
//! the programs.

mod api;
mod conditions;
mod fields;
mod helm_values;
