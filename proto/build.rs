//! Turns the `.proto` files into Rust without a system `protoc`.

use std::error::Error;

const FILES: [&str; 7] = [
    "sallyport/v1/types.proto",
    "sallyport/v1/log.proto",
    "sallyport/v1/gateway.proto",
    "sallyport/v1/operator.proto",
    "sallyport/v1/raft.proto",
    "sallyport/v1/root.proto",
    "sallyport/v1/trust.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=sallyport");
    let descriptors = protox::compile(FILES, ["."])?;
    tonic_prost_build::configure().skip_debug(["sallyport.v1.Secret"]).compile_fds(descriptors)?;
    Ok(())
}
