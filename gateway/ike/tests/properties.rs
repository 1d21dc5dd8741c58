//! What is written reads back the same, and what is read never panics.

use proptest::prelude::*;
use sallyport_base::{Reader, Writer};
use sallyport_ike::header::{Cookie, ExchangeType, Header};
use sallyport_ike::payload::*;
use sallyport_ike::{Message, payload};

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..max)
}

/// An attribute as owned data.
type Attr = (u16, Result<u16, Vec<u8>>);

fn attribute() -> impl Strategy<Value = Attr> {
    (0..0x8000u16, prop_oneof![any::<u16>().prop_map(Ok), bytes(12).prop_map(Err)])
}

type Trans = (u8, u8, Vec<Attr>);

fn transform() -> impl Strategy<Value = Trans> {
    (any::<u8>(), any::<u8>(), proptest::collection::vec(attribute(), 0..8))
}

type Prop = (u8, u8, Vec<u8>, Vec<Trans>);

fn proposal() -> impl Strategy<Value = Prop> {
    (any::<u8>(), any::<u8>(), bytes(17), proptest::collection::vec(transform(), 0..6))
}

fn build(proposals: &[Prop]) -> SecurityAssociation<'_> {
    SecurityAssociation::new(
        proposals
            .iter()
            .map(|(number, protocol, spi, transforms)| Proposal {
                number: *number,
                protocol: ProtocolId(*protocol),
                spi,
                transforms: transforms
                    .iter()
                    .map(|(number, id, attributes)| Transform {
                        number: *number,
                        id: *id,
                        attributes: attributes
                            .iter()
                            .map(|(kind, value)| Attribute {
                                kind: *kind,
                                value: match value {
                                    Ok(v) => AttributeValue::Short(*v),
                                    Err(v) => AttributeValue::Long(v),
                                },
                            })
                            .collect(),
                    })
                    .collect(),
            })
            .collect(),
    )
}

fn emitted(f: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::new();
    f(&mut w);
    w.into_vec()
}

proptest! {
    #[test]
    fn a_header_reads_back(i: [u8; 8], r: [u8; 8], next: u8, exchange: u8, flags: u8, mid: u32, len: u32) {
        let h = Header {
            cky_i: Cookie(i),
            cky_r: Cookie(r),
            next_payload: PayloadType(next),
            major: 1,
            minor: 0,
            exchange: ExchangeType(exchange),
            flags,
            message_id: mid,
            length: len,
        };
        let b = emitted(|w| h.emit(w));
        prop_assert_eq!(Header::parse(&mut Reader::new(&b)).unwrap(), h);
    }

    #[test]
    fn an_sa_reads_back(proposals in proptest::collection::vec(proposal(), 1..5)) {
        let sa = build(&proposals);
        let b = emitted(|w| sa.emit(w));
        prop_assert_eq!(SecurityAssociation::parse(Reader::new(&b)).unwrap(), sa.clone());
        let _ = sa.to_string();
    }

    #[test]
    fn an_identification_reads_back(t in 12..=255u8, protocol: u8, port: u16, data in bytes(64)) {
        let id = Identification { id_type: IdType(t), protocol, port, data };
        prop_assert_eq!(Identification::parse(Reader::new(&id.to_body())).unwrap(), id.clone());
        let _ = id.to_string();
    }

    #[test]
    fn an_address_reads_back(a: std::net::IpAddr, protocol: u8, port: u16) {
        let id = Identification::selector(a, protocol, port);
        let back = Identification::parse(Reader::new(&id.to_body())).unwrap();
        prop_assert_eq!(back.to_address(), Some(a));
        prop_assert_eq!(back, id);
        let oa = NatOa { address: a };
        let b = emitted(|w| oa.emit(w));
        prop_assert_eq!(NatOa::parse(Reader::new(&b)).unwrap(), oa);
    }

    #[test]
    fn small_payloads_read_back(
        encoding: u8, data in bytes(40), protocol: u8, kind: u16, spi in bytes(20), id: u16, number in 1..=255u8, last: bool,
        spis in proptest::collection::vec(any::<[u8; 4]>(), 0..9),
    ) {
        let cert = Certificate { encoding: CertEncoding(encoding), data: &data };
        let b = emitted(|w| cert.emit(w));
        prop_assert_eq!(Certificate::parse(Reader::new(&b)).unwrap(), cert);
        let req = CertificateRequest { encoding: CertEncoding(encoding), authority: &data };
        let b = emitted(|w| req.emit(w));
        prop_assert_eq!(CertificateRequest::parse(Reader::new(&b)).unwrap(), req);
        let n = Notify::new(ProtocolId(protocol), NotifyType(kind), &spi, &data);
        let b = emitted(|w| n.emit(w));
        prop_assert_eq!(Notify::parse(Reader::new(&b)).unwrap(), n);
        let d = Delete::new(ProtocolId(protocol), spis.iter().map(|s| &s[..]).collect());
        let b = emitted(|w| d.emit(w));
        prop_assert_eq!(Delete::parse(Reader::new(&b)).unwrap(), d);
        let f = Fragment { id, number, last, data: &data };
        let b = emitted(|w| f.emit(w));
        prop_assert_eq!(Fragment::parse(Reader::new(&b)).unwrap(), f);
    }

    #[test]
    fn a_chain_reads_back(bodies in proptest::collection::vec((100..=129u8, bytes(50)), 0..20), padding in bytes(3)) {
        let mut chain = ChainWriter::new();
        for (kind, body) in &bodies {
            chain.bytes(PayloadType(*kind), body);
        }
        let first = chain.first();
        let mut b = chain.into_vec();
        b.extend(padding);
        let want: Vec<_> = bodies.iter().map(|(k, b)| Payload::Other(PayloadType(*k), b)).collect();
        prop_assert_eq!(parse_chain(first, &b).unwrap(), want);
    }

    #[test]
    fn any_bytes_parse_or_fail(b in bytes(300)) {
        if let Ok(m) = Message::parse(&b) {
            let _ = (m.to_string(), format!("{m:?}"));
        }
    }

    #[test]
    fn any_chain_parses_or_fails(first: u8, b in bytes(400)) {
        if let Ok(payloads) = parse_chain(PayloadType(first), &b) {
            prop_assert!(payloads.len() <= payload::MAX_PAYLOADS);
            for p in payloads {
                let _ = p.to_string();
            }
        }
    }

    #[test]
    fn a_damaged_message_parses_or_fails(
        proposals in proptest::collection::vec(proposal(), 1..4),
        v2: bool,
        at: prop::sample::Index,
        to: u8,
        cut: prop::sample::Index,
    ) {
        let sa = build(&proposals);
        let mut chain = ChainWriter::new();
        chain.payload(if v2 { PayloadType::SA_V2 } else { PayloadType::SA }, |w| sa.emit(w));
        chain.bytes(PayloadType::VENDOR_ID, b"somebody").bytes(PayloadType::NONCE, &[7; 16]);
        let mut h = Header::v1(Cookie([1; 8]), Cookie([2; 8]), ExchangeType::MAIN_MODE, 0);
        if v2 {
            h.major = 2;
        }
        h.next_payload = chain.first();
        h.length = u32::try_from(28 + chain.as_slice().len()).unwrap();
        let mut b = emitted(|w| h.emit(w));
        b.extend(chain.as_slice());
        if !v2 {
            prop_assert!(Message::parse(&b).is_ok());
        }
        let at = at.index(b.len());
        b[at] = to;
        if let Ok(m) = Message::parse(&b) {
            let _ = m.to_string();
        }
        b.truncate(cut.index(b.len()));
        let _ = Message::parse(&b);
    }
}
