//! `sallyport decode`: whatever file, through every layer, printed both ways; and whatever message by itself.
#![no_main]
#![allow(dead_code)] // what of the binary's files only the binary uses

use libfuzzer_sys::fuzz_target;

#[path = "../../../sallyport/src/hex.rs"]
mod hex;

/// The part of the binary's `output` that the decoder uses.
mod output {
    pub(crate) fn one_line(text: &str) -> String {
        text.escape_debug().to_string()
    }
}

/// The decoder lives in the binary, which is no library: its files are taken as they are, and this stands for their
/// `mod.rs`.
#[path = "../../../sallyport/src/decode"]
mod decode {
    mod capture;
    mod demux;
    mod ike;
    mod l2tp;
    mod layers;
    mod ppp;
    mod reassembly;
    mod record;

    use capture::Reader;
    use layers::Decoder;
    use record::{Clock, Printer};

    /// What a bare message is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Raw {
        Ike,
        Esp,
        L2tp,
        Ppp,
        Ip,
        Ethernet,
    }

    fn print(decoder: &mut Decoder) {
        let mut printers = [Printer::new(false, Clock::Utc, None), Printer::new(true, Clock::Relative, None)];
        for record in decoder.records.drain(..) {
            for printer in &mut printers {
                let line = printer.line(&record);
                assert_eq!(line.matches('\n').count(), 1, "one line each");
            }
        }
    }

    pub(crate) fn file(data: &[u8]) {
        let mut decoder = Decoder::new(true);
        if let Ok(mut reader) = Reader::new(data) {
            while let Ok(Some(frame)) = reader.next() {
                decoder.frame(&frame);
                print(&mut decoder);
            }
            decoder.finish();
            print(&mut decoder);
        }
    }

    pub(crate) fn message(choice: u8, data: &[u8]) {
        let raw = [Raw::Ike, Raw::Esp, Raw::L2tp, Raw::Ppp, Raw::Ip, Raw::Ethernet][usize::from(choice % 6)];
        let mut decoder = Decoder::new(choice & 0x80 != 0);
        decoder.raw(raw, data);
        print(&mut decoder);
    }
}

fuzz_target!(|data: &[u8]| {
    decode::file(data);
    if let Some((choice, message)) = data.split_first() {
        decode::message(*choice, message);
    }
});
