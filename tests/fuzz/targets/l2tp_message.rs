//! L2TP headers, AVPs (hidden ones, too) and the messages made of them, and what `decode` prints of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_l2tp::{ControlMessage, Message, Packet, TunnelSecret};

fuzz_target!(|data: &[u8]| {
    let Ok(Packet::Control(header, body)) = Packet::parse(data) else { return };
    for secret in [None, Some(&TunnelSecret::new(*b"secret"))] {
        let message = ControlMessage::parse(header, body, secret);
        let _ = message.name();
        let _ = format!("{message:?}");
        let Some(kind) = message.message_type() else { continue };
        if let Some(typed) = Message::from_avps(kind, &message.avps) {
            // What we understood can be written, understood again, and is then the same bytes.
            let bytes = typed.emit(header, None);
            let Ok(Packet::Control(header, body)) = Packet::parse(&bytes) else { panic!("our own message") };
            let again = ControlMessage::parse(header, body, None);
            let again = Message::from_avps(kind, &again.avps).expect("our own message");
            assert_eq!(again.emit(header, None), bytes);
        }
    }
});
