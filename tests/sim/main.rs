//! Layer 2, simulated: every scenario over many seeds on wires of several sizes, and proof that the checker sees a broken machine.
//! Needs nothing but Rust. `cargo lab sim` runs the same by hand, for as long as wanted.

mod broken;
mod sound;
