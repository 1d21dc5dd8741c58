//! `sallyport decode`: the IKE, ESP, L2TP and PPP messages of a capture file, one line each.
//!
//! It reads with the same decoders as the gateway, so it shows what the gateway would see, and proves them on other
//! people's captures. Nothing in a file stops it: a message that cannot be read has a line that says why.

mod capture;
mod demux;
mod ike;
mod l2tp;
mod layers;
mod ppp;
mod reassembly;
mod record;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::output::Format;
use capture::{Reader, Trouble};
use layers::Decoder;
pub(crate) use record::Clock;
use record::Printer;

/// The longest file that is taken as a single bare message with `--raw`: what a UDP datagram can hold, in hexadecimal.
const MAX_RAW: u64 = 256 * 1024;

/// What to decode.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Capture files, pcap or pcapng, plain or compressed with gzip; - is standard input.
    #[arg(required = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    /// How to print the time of a frame.
    #[arg(long, value_enum, default_value_t, value_name = "CLOCK")]
    pub(crate) time: Clock,
    /// Print passwords, too (PAP sends them in the clear).
    #[arg(long)]
    pub(crate) show_secrets: bool,
    /// Each file is one message of this protocol, as bytes or as hexadecimal digits, and no capture.
    #[arg(long, value_enum, value_name = "PROTOCOL")]
    pub(crate) raw: Option<Raw>,
}

/// What a bare message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Raw {
    /// An IKE message, with or without the non-ESP marker of port 4500.
    Ike,
    /// An ESP packet.
    Esp,
    /// An L2TP message.
    L2tp,
    /// A PPP frame, with or without address and control field.
    Ppp,
    /// An IPv4 or IPv6 packet.
    Ip,
    /// An Ethernet frame.
    Ethernet,
}

/// Prints every message; one JSON object a line with `--output json`.
pub(crate) fn run(args: &Args, format: Format) -> Result {
    let mut out = BufWriter::new(io::stdout().lock());
    let several = args.files.len() > 1;
    let mut failures = 0;
    for path in &args.files {
        let name = several.then(|| path.display().to_string());
        let mut printer = Printer::new(format == Format::Json, args.time, name);
        if let Err(error) = one_file(args, path, &mut printer, &mut out) {
            if !several {
                out.flush()?;
                return Err(error);
            }
            failures += 1;
            warn(path, &error.to_string());
        }
    }
    out.flush()?;
    match failures {
        0 => Ok(()),
        n => Err(Error::failed(format!("{n} of {} files could not be decoded", args.files.len()))),
    }
}

fn one_file(args: &Args, path: &Path, printer: &mut Printer, out: &mut impl Write) -> Result {
    let input: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(|e| Error::file("read", path, &e))?)
    };
    let mut decoder = Decoder::new(args.show_secrets);
    if let Some(raw) = args.raw {
        decode_raw(raw, input, path, &mut decoder)?;
        return print(&mut decoder, printer, out);
    }
    let not_a_capture = |trouble| match trouble {
        Trouble::NotACapture(why) => {
            Error::failed(format!("{} is no capture file: {why}", path.display())).remedy("see decode --help for --raw")
        }
        Trouble::Damaged(why) => Error::failed(format!("{}: {why}", path.display())),
        Trouble::Io(error) => Error::file("read", path, &error),
    };
    let mut reader = Reader::new(input).map_err(not_a_capture)?;
    loop {
        match reader.next() {
            Ok(Some(frame)) => {
                printer.note_time(frame.time);
                decoder.frame(&frame);
                print(&mut decoder, printer, out)?;
            }
            Ok(None) => break,
            // Captures of a full disk or a killed tcpdump end anywhere: what came before is what counts.
            Err(Trouble::Damaged(why)) => {
                out.flush()?;
                warn(path, &format!("{why}; nothing after it was read"));
                break;
            }
            Err(trouble) => {
                out.flush()?;
                return Err(not_a_capture(trouble));
            }
        }
    }
    decoder.finish();
    print(&mut decoder, printer, out)?;
    out.flush()?;
    for link in decoder.unknown_links() {
        warn(path, &format!("frames of link type {link} were passed over: it is not known here"));
    }
    Ok(())
}

fn print(decoder: &mut Decoder, printer: &mut Printer, out: &mut impl Write) -> Result {
    for record in decoder.records.drain(..) {
        out.write_all(printer.line(&record).as_bytes())?;
    }
    Ok(())
}

/// Says what is odd about a file, where it does not mix with the messages.
fn warn(path: &Path, what: &str) {
    // If standard error is closed, nobody is left to tell.
    let _ = writeln!(io::stderr(), "sallyport: {}: {}", path.display(), crate::output::one_line(what));
}

fn decode_raw(raw: Raw, input: impl Read, path: &Path, decoder: &mut Decoder) -> Result {
    let mut bytes = Vec::new();
    input.take(MAX_RAW + 1).read_to_end(&mut bytes).map_err(|e| Error::file("read", path, &e))?;
    if bytes.len() as u64 > MAX_RAW {
        return Err(Error::failed(format!("{} is too long for a single message", path.display())));
    }
    let bytes = from_hex(&bytes).unwrap_or(bytes);
    decoder.raw(raw, &bytes);
    Ok(())
}

/// The bytes of hexadecimal digits in any grouping; `None` if it is something else.
fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.iter().filter(|b| !b.is_ascii_whitespace() && **b != b':');
    let digits: Vec<u8> = digits.map(|b| char::from(*b).to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    let (pairs, odd) = digits.as_chunks::<2>();
    (odd.is_empty() && !pairs.is_empty()).then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}
