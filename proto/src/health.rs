//! Whether what is announced works: machines that judge by answers which a speaker's drivers ask for. Pure.

pub mod data_path;
