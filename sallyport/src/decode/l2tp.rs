//! L2TP messages: control as lines with their AVPs, data opened down to the PPP frame.

use sallyport_l2tp::avp::{Avp, AvpType, Value as AvpValue, printable};
use sallyport_l2tp::{ControlHeader, ControlMessage, DataHeader, Packet};
use serde_json::{Value, json};

use super::layers::Decoder;
use super::record::Place;
use crate::hex;

impl Decoder {
    /// A UDP payload on port 1701.
    pub(super) fn l2tp(&mut self, place: &Place, bytes: &[u8]) {
        match Packet::parse(bytes) {
            Ok(Packet::Control(header, body)) => self.l2tp_control(place, header, body),
            Ok(Packet::Data(header, frame)) => self.l2tp_data(place, &header, frame),
            Err(error) => self.malformed(place, "L2TP", error, String::new(), json!({ "length": bytes.len() })),
        }
    }

    fn l2tp_control(&mut self, place: &Place, header: ControlHeader, body: &[u8]) {
        let message = ControlMessage::parse(header, body, None);
        let mut summary = format!("{} tunnel {} session {}", message.name(), header.tunnel_id, header.session_id);
        summary.push_str(&format!(" ns {} nr {}", header.ns, header.nr));
        let mut avps = Vec::with_capacity(message.avps.list.len());
        for (i, avp) in message.avps.list.iter().enumerate() {
            let secret = !self.show_secrets && is_password(avp);
            if !matches!(avp.value, AvpValue::MessageType(_)) {
                summary.push_str(if i <= 1 { ": " } else { ", " });
                summary.push_str(&if secret { format!("{}=(not shown)", avp.name()) } else { avp.to_string() });
            }
            avps.push(avp_json(avp, secret));
        }
        let fields = json!({
            "control": true, "type": message.message_type().map(|t| t.0), "name": message.name(),
            "tunnel": header.tunnel_id, "session": header.session_id, "ns": header.ns, "nr": header.nr, "avps": avps,
        });
        match message.avps.fault {
            // What cannot be told apart is malformed; what this implementation would refuse is still a message.
            Some(sallyport_l2tp::avp::Fault::Malformed(why)) => self.malformed(place, "L2TP", why, summary, fields),
            _ => self.emit(place, "L2TP", summary, fields),
        }
    }

    fn l2tp_data(&mut self, place: &Place, header: &DataHeader, frame: &[u8]) {
        let DataHeader { tunnel_id, session_id, sequence, length, offset, priority } = *header;
        let fields = json!({
            "tunnel": tunnel_id, "session": session_id, "ns": sequence.map(|s| s.0), "nr": sequence.map(|s| s.1),
            "length": length, "offset": offset, "priority": priority,
        });
        let mut text = format!("L2TP {tunnel_id}/{session_id}");
        if let Some((ns, _)) = sequence {
            text.push_str(&format!(" ns {ns}"));
        }
        if frame.is_empty() {
            // Some peers answer sequencing with an empty data message (RFC 2661 §3.1 does not forbid it).
            let summary = format!("data tunnel {tunnel_id} session {session_id}, empty");
            return self.emit(place, "L2TP", summary, fields);
        }
        self.ppp(&place.within("l2tp", Some(text), fields), frame);
    }
}

/// With PAP, the Proxy Authen Response is the password (RFC 2661 §4.4.5).
fn is_password(avp: &Avp) -> bool {
    avp.vendor == 0 && avp.attribute == AvpType::PROXY_AUTHEN_RESPONSE
}

fn avp_json(avp: &Avp, secret: bool) -> Value {
    let value = match &avp.value {
        _ if secret => Value::Null,
        AvpValue::Empty => Value::Bool(true),
        AvpValue::U16(v) => json!(v),
        AvpValue::U32(v) => json!(v),
        AvpValue::U64(v) => json!(v),
        AvpValue::Octets(v) | AvpValue::Unknown(v) | AvpValue::Hidden(v) => json!(hex::lower(v)),
        AvpValue::Text(v) => json!(printable(v)),
        AvpValue::MessageType(v) => json!(v.0),
        AvpValue::Version(version, revision) => json!(format!("{version}.{revision}")),
        AvpValue::ResultCode(code) => json!({ "result": code.result, "error": code.error, "message": code.message }),
        AvpValue::Q931(cause, message, text) => json!({ "cause": cause, "message": message, "text": printable(text) }),
        AvpValue::CallErrors(counts) => json!(counts),
        AvpValue::Accm(send, receive) => json!({ "send": send, "receive": receive }),
    };
    json!({
        "name": avp.name(), "vendor": avp.vendor, "type": avp.attribute.0, "mandatory": avp.mandatory,
        "hidden": avp.hidden, "value": value,
    })
}
