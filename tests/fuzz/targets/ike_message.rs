//! Every ISAKMP decoder: header, payload chains, each payload, proposals, and what `decode` prints of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_ike::Message;
use sallyport_ike::payload::{PayloadType, parse_chain};

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = Message::parse(data) {
        let _ = message.to_string();
        let _ = format!("{message:?}");
    }
    // The inside of an encrypted message: a chain without a header.
    if let Some((first, chain)) = data.split_first() {
        if let Ok(payloads) = parse_chain(PayloadType(*first), chain) {
            for payload in payloads {
                let _ = payload.to_string();
            }
        }
    }
});
