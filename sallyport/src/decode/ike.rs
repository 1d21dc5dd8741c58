//! IKE messages of both versions as lines and as JSON.

use sallyport_base::{DecodeError, Reader};
use sallyport_ike::header::flags;
use sallyport_ike::payload::{
    AttributeValue, DerName, EncrV2, GroupId, IntegV2, Payload, Phase1Attribute, Phase2Attribute, PrfV2, ProtocolId,
    SecurityAssociation, SecurityAssociationV2, TransformNames, TransformTypeV2, TransformV2, VendorId,
};
use sallyport_ike::{ExchangeType, Header, Message};
use serde_json::{Map, Value, json};

use super::layers::Decoder;
use super::record::Place;
use crate::hex;

impl Decoder {
    /// An IKE message without the non-ESP marker; `marker` says that there was one.
    pub(super) fn ike(&mut self, place: &Place, bytes: &[u8], marker: bool) {
        match Message::parse(bytes) {
            Ok(message) => {
                self.note_conversation(place, message.header.cky_i);
                let mut fields = header_json(&message.header, bytes.len(), marker);
                let payloads: Vec<Value> = message.payloads.iter().map(payload_json).collect();
                fields.insert("payloads".into(), Value::Array(payloads));
                if let Some(body) = message.encrypted {
                    fields.insert("encrypted".into(), json!({ "length": body.len() }));
                }
                self.emit(place, version(&message.header), line(&message), Value::Object(fields));
            }
            Err(error) => self.malformed_ike(place, bytes, marker, error),
        }
    }

    fn malformed_ike(&mut self, place: &Place, bytes: &[u8], marker: bool, error: DecodeError) {
        match Header::parse(&mut Reader::new(bytes)) {
            Ok(header) => {
                let fields = Value::Object(header_json(&header, bytes.len(), marker));
                self.malformed(place, version(&header), error, header_line(&header), fields);
            }
            Err(_) => self.malformed(place, "IKE", error, String::new(), json!({ "length": bytes.len() })),
        }
    }
}

const fn version(header: &Header) -> &'static str {
    match header.major {
        1 => "IKEv1",
        2 => "IKEv2",
        _ => "IKE",
    }
}

/// The exchange's name. `INFORMATIONAL` of IKEv1 has another number than that of IKEv2, and the same name.
fn exchange(exchange: ExchangeType) -> String {
    match exchange {
        ExchangeType::INFORMATIONAL_V1 => ExchangeType::INFORMATIONAL.to_string(),
        other => other.to_string(),
    }
}

fn header_line(h: &Header) -> String {
    let mut line = format!("{} {} {} id {:08x}", exchange(h.exchange), h.cky_i, h.cky_r, h.message_id);
    if h.major == 2 {
        line.push_str(if h.flags & flags::RESPONSE != 0 { " response" } else { " request" });
    }
    if h.major == 1 && h.flags & flags::COMMIT != 0 {
        line.push_str(" commit");
    }
    line
}

fn line(message: &Message<'_>) -> String {
    let mut line = header_line(&message.header);
    match message.encrypted {
        Some(body) => line.push_str(&format!(": encrypted, {} bytes", body.len())),
        None => {
            for (i, payload) in message.payloads.iter().enumerate() {
                line.push_str(if i == 0 { ": " } else { ", " });
                line.push_str(&payload.to_string());
            }
        }
    }
    line
}

fn header_json(h: &Header, length: usize, marker: bool) -> Map<String, Value> {
    let names = match h.major {
        1 => [
            (flags::ENCRYPTION, "encryption"),
            (flags::COMMIT, "commit"),
            (flags::AUTHENTICATION_ONLY, "authentication only"),
        ],
        _ => [(flags::INITIATOR, "initiator"), (flags::VERSION, "version"), (flags::RESPONSE, "response")],
    };
    let set: Vec<&str> = names.iter().filter(|(bit, _)| h.flags & bit != 0).map(|(_, name)| *name).collect();
    let fields = json!({
        "initiator_spi": h.cky_i.to_string(),
        "responder_spi": h.cky_r.to_string(),
        "version": format!("{}.{}", h.major, h.minor),
        "exchange": exchange(h.exchange),
        "exchange_number": h.exchange.0,
        "flags": set,
        "flags_octet": h.flags,
        "message_id": h.message_id,
        "next_payload": h.next_payload.to_string(),
        "length": h.length,
        "datagram_length": length,
        "non_esp_marker": marker,
    });
    match fields {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn payload_json(payload: &Payload<'_>) -> Value {
    match payload {
        Payload::Sa(sa, _) => sa_json(sa),
        Payload::KeyExchange(data) => json!({ "type": "KE", "data": hex::lower(data) }),
        Payload::Id(id) => json!({
            "type": "ID", "id_type": id.id_type.to_string(), "protocol": id.protocol, "port": id.port,
            "identity": id.to_string(), "data": hex::lower(&id.data),
        }),
        Payload::Cert(cert) => json!({
            "type": "CERT", "encoding": cert.encoding.to_string(), "length": cert.data.len(), "data": hex::lower(cert.data),
        }),
        Payload::CertRequest(request) => json!({
            "type": "CERTREQ", "encoding": request.encoding.to_string(), "data": hex::lower(request.authority),
            "authority": if request.authority.is_empty() { None } else { Some(DerName(request.authority).to_string()) },
        }),
        Payload::Hash(data) => json!({ "type": "HASH", "data": hex::lower(data) }),
        Payload::Signature(data) => json!({ "type": "SIG", "data": hex::lower(data) }),
        Payload::Nonce(data) | Payload::NonceV2(data) => json!({ "type": "NONCE", "data": hex::lower(data) }),
        Payload::Notify(n) => json!({
            "type": "N", "doi": n.doi, "protocol": n.protocol.to_string(), "notify": n.notify_type.to_string(),
            "notify_number": n.notify_type.0, "spi": hex::lower(n.spi), "data": hex::lower(n.data),
        }),
        Payload::Delete(d) => json!({
            "type": "D", "doi": d.doi, "protocol": d.protocol.to_string(),
            "spis": d.spis.iter().map(|spi| hex::lower(spi)).collect::<Vec<_>>(),
        }),
        Payload::VendorId(vid) | Payload::VendorIdV2(vid) => vendor_id_json(*vid),
        Payload::NatD(data) => json!({ "type": "NAT-D", "data": hex::lower(data) }),
        Payload::NatOa(oa) => json!({ "type": "NAT-OA", "address": oa.map(|oa| oa.address.to_string()) }),
        Payload::Fragment(f) => json!({
            "type": "FRAGMENT", "id": f.id, "number": f.number, "last": f.last, "length": f.data.len(),
        }),
        Payload::SaV2(sa) => sa_v2_json(sa),
        Payload::KeyExchangeV2(ke) => {
            json!({ "type": "KE", "group": ke.group.to_string(), "group_number": ke.group.0, "data": hex::lower(ke.data) })
        }
        Payload::NotifyV2(n) => json!({
            "type": "N", "protocol": n.protocol.to_string(), "notify": n.notify_type.to_string(),
            "notify_number": n.notify_type.0, "spi": hex::lower(n.spi), "data": hex::lower(n.data),
        }),
        Payload::EncryptedV2 { kind, body, first } => {
            json!({ "type": kind.to_string(), "length": body.len(), "first_inside": first.to_string() })
        }
        Payload::Other(kind, data) => {
            json!({ "type": kind.to_string(), "type_number": kind.0, "length": data.len(), "data": hex::lower(data) })
        }
    }
}

fn vendor_id_json(vid: VendorId<'_>) -> Value {
    json!({ "type": "VID", "name": vid.name(), "data": hex::lower(vid.0) })
}

fn sa_json(sa: &SecurityAssociation<'_>) -> Value {
    let attribute_name = |protocol: ProtocolId, kind: u16| {
        if protocol == ProtocolId::ISAKMP {
            Phase1Attribute(kind).to_string()
        } else {
            Phase2Attribute(kind).to_string()
        }
    };
    let mut proposals = Vec::with_capacity(sa.proposals.len());
    for proposal in &sa.proposals {
        let mut transforms = Vec::with_capacity(proposal.transforms.len());
        for transform in &proposal.transforms {
            let attributes: Vec<Value> = transform
                .attributes
                .iter()
                .map(|a| {
                    let data = match a.value {
                        AttributeValue::Short(_) => None,
                        AttributeValue::Long(data) => Some(hex::lower(data)),
                    };
                    let name = attribute_name(proposal.protocol, a.kind);
                    json!({ "name": name, "number": a.kind, "value": a.number(), "data": data })
                })
                .collect();
            let text = TransformNames { protocol: proposal.protocol, transform }.to_string();
            transforms.push(json!({
                "number": transform.number, "id": transform.id, "text": text, "attributes": attributes,
            }));
        }
        proposals.push(json!({
            "number": proposal.number, "protocol": proposal.protocol.to_string(), "spi": hex::lower(proposal.spi),
            "transforms": transforms,
        }));
    }
    json!({ "type": "SA", "doi": sa.doi, "situation": sa.situation, "proposals": proposals })
}

fn sa_v2_json(sa: &SecurityAssociationV2<'_>) -> Value {
    let name = |t: &TransformV2| match t.kind {
        TransformTypeV2::ENCR => EncrV2(t.id).to_string(),
        TransformTypeV2::PRF => PrfV2(t.id).to_string(),
        TransformTypeV2::INTEG => IntegV2(t.id).to_string(),
        TransformTypeV2::DH => GroupId(t.id).to_string(),
        _ => t.id.to_string(),
    };
    let mut proposals = Vec::with_capacity(sa.proposals.len());
    for proposal in &sa.proposals {
        let transforms: Vec<Value> = proposal
            .transforms
            .iter()
            .map(|t| json!({ "type": t.kind.to_string(), "id": t.id, "name": name(t), "key_length": t.key_length }))
            .collect();
        proposals.push(json!({
            "number": proposal.number, "protocol": proposal.protocol.to_string(), "spi": hex::lower(proposal.spi),
            "transforms": transforms,
        }));
    }
    json!({ "type": "SA", "proposals": proposals })
}
