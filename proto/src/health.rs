//! Whether what is announced works: pure machines that are told what answers came, and when. The speaker's health drivers run them.

pub mod data_path;
pub mod hysteresis;
pub mod prober;
