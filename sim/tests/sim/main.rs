//! Simulation tests of layer 2: every scenario over many seeds on segments of several sizes, and
//! checks that the checker detects a defective machine. The same for the machines of node failure.
//! The tests need no program but Rust's toolchain. `cargo sim` runs the same scenarios with any
//! number of seeds.

mod defects;
mod invariants;
mod node_failure;
