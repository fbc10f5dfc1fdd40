//! Compiles `api/gobgp.proto` without `protoc`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=api");
    let descriptors = protox::compile(["gobgp.proto"], ["api"])?;
    tonic_prost_build::configure()
        .build_server(false)
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .compile_fds(descriptors)?;
    Ok(())
}
