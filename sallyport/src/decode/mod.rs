//! `sallyport decode`: the messages of a capture file, one line each.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::output::Format;

/// What to decode.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Capture files, pcap or pcapng, plain or compressed with gzip.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// Prints every message; one JSON object a line with `--output json`.
pub(crate) fn run(args: &Args, _: Format) -> Result {
    Err(Error::failed(format!("decoding {} files is not there yet", args.files.len())))
}
