//! Simulation tests of layer 2: every scenario over many seeds on segments of several sizes, and
//! checks that the checker detects a defective machine. Needs nothing but Rust. `cargo sim` runs
//! the same manually, with any number of seeds.

mod defects;
mod invariants;
