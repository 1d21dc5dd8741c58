//! Security Association, Proposal and Transform payloads of IKEv1, RFC 2408 §3.4 to §3.6 and RFC 2407 §4.6.1.

use core::fmt;

use sallyport_base::{DecodeError, Reader, Writer};

use super::numbers::*;

/// IPsec DOI, RFC 2407 §2.1.
pub const DOI_IPSEC: u32 = 1;

/// SIT_IDENTITY_ONLY, RFC 2407 §4.2.1: the only situation that anybody uses.
pub const SIT_IDENTITY_ONLY: u32 = 1;

/// Most proposals in one SA payload. Windows sends about 12 in quick mode, libreswan's full list has fewer than 40.
pub const MAX_PROPOSALS: usize = 64;

/// Most transforms in one SA payload over all its proposals; a proposal counts its own in one byte.
pub const MAX_TRANSFORMS: usize = 512;

/// Most attributes in one transform; 16 are defined.
pub const MAX_ATTRIBUTES: usize = 32;

/// A data attribute, RFC 2408 §3.3: 2 bytes in place (TV) or with a length (TLV).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// The type, without the AF bit.
    pub kind: u16,
    /// The value.
    pub value: AttributeValue<'a>,
}

/// The two forms of an attribute's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeValue<'a> {
    /// AF = 1: two bytes in place.
    Short(u16),
    /// AF = 0: any length.
    Long(&'a [u8]),
}

impl<'a> Attribute<'a> {
    /// An attribute in its 2-byte form.
    pub const fn short(kind: u16, value: u16) -> Self {
        Self { kind, value: AttributeValue::Short(value) }
    }

    fn parse(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let kind = r.u16("attribute type")?;
        let value = if kind & 0x8000 != 0 {
            AttributeValue::Short(r.u16("attribute value")?)
        } else {
            let n = r.u16("attribute length")?;
            AttributeValue::Long(r.bytes("attribute value", usize::from(n))?)
        };
        Ok(Self { kind: kind & 0x7fff, value })
    }

    /// Writes the attribute in the form that it has.
    pub fn emit(&self, w: &mut Writer) {
        match self.value {
            AttributeValue::Short(v) => w.u16(self.kind | 0x8000).u16(v),
            AttributeValue::Long(v) => {
                w.u16(self.kind & 0x7fff).u16(u16::try_from(v.len()).unwrap_or(u16::MAX)).bytes(v)
            }
        };
    }

    /// The value as a number, whichever form it has; `None` if it is longer than 8 bytes or empty.
    pub fn number(&self) -> Option<u64> {
        match self.value {
            AttributeValue::Short(v) => Some(u64::from(v)),
            AttributeValue::Long([]) => None,
            AttributeValue::Long(v) => {
                let zeros = v.len().saturating_sub(8);
                if v.iter().take(zeros).any(|b| *b != 0) {
                    return None;
                }
                Some(v.iter().skip(zeros).fold(0, |n, b| n << 8 | u64::from(*b)))
            }
        }
    }
}

/// `| next (8) | RESERVED (8) | length (16) | number (8) | id (8) | RESERVED2 (16) | attributes ... |`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transform<'a> {
    /// The number that the sender gave it.
    pub number: u8,
    /// What it is, in the numbering of the proposal's protocol.
    pub id: u8,
    /// The attributes in their order.
    pub attributes: Vec<Attribute<'a>>,
}

impl<'a> Transform<'a> {
    fn parse(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let number = r.u8("transform number")?;
        let id = r.u8("transform id")?;
        r.skip("transform reserved", 2)?;
        let mut attributes = Vec::new();
        while !r.is_empty() {
            if attributes.len() == MAX_ATTRIBUTES {
                return Err(DecodeError::TooMany("attributes of a transform", MAX_ATTRIBUTES));
            }
            attributes.push(Attribute::parse(&mut r)?);
        }
        Ok(Self { number, id, attributes })
    }

    fn emit(&self, w: &mut Writer, last: bool) {
        let start = w.len();
        w.u8(if last { 0 } else { PayloadType::TRANSFORM.0 }).u8(0);
        let length = w.mark_u16();
        w.u8(self.number).u8(self.id).u16(0);
        for a in &self.attributes {
            a.emit(w);
        }
        w.patch_len_since(length, start);
    }

    /// The first attribute of type `kind`, as a number.
    pub fn number_of(&self, kind: u16) -> Option<u64> {
        self.attributes.iter().find(|a| a.kind == kind).and_then(Attribute::number)
    }

    /// The lifetimes that the transform names: each life type governs the duration behind it (RFC 2407 §4.5).
    pub fn lifetimes(&self, life_type: u16, life_duration: u16) -> Lifetimes {
        let mut out = Lifetimes::default();
        let mut unit = None;
        for a in &self.attributes {
            if a.kind == life_type {
                unit = a.number();
            } else if a.kind == life_duration {
                match unit.take() {
                    Some(1) => out.seconds = a.number(),
                    Some(2) => out.kilobytes = a.number(),
                    _ => {}
                }
            }
        }
        out
    }
}

/// The lifetimes of one transform, as far as it names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetimes {
    /// Seconds.
    pub seconds: Option<u64>,
    /// Kilobytes (1024 bytes).
    pub kilobytes: Option<u64>,
}

/// `| next (8) | RESERVED (8) | length (16) | number (8) | protocol (8) | SPI size (8) | # transforms (8) | SPI ... | transforms ... |`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal<'a> {
    /// The number; proposals with the same number belong together (RFC 2408 §4.2).
    pub number: u8,
    /// The protocol that it proposes.
    pub protocol: ProtocolId,
    /// The sender's inbound SPI; empty, or ignored, for ISAKMP.
    pub spi: &'a [u8],
    /// The alternatives, best first.
    pub transforms: Vec<Transform<'a>>,
}

impl<'a> Proposal<'a> {
    fn parse(mut r: Reader<'a>, budget: &mut usize) -> Result<Self, DecodeError> {
        let number = r.u8("proposal number")?;
        let protocol = ProtocolId(r.u8("proposal protocol")?);
        let spi_size = r.u8("SPI size")?;
        let count = r.u8("number of transforms")?;
        let spi = r.bytes("SPI", usize::from(spi_size))?;
        let mut transforms = Vec::new();
        let mut more = count > 0;
        while more {
            let next = r.u8("next transform")?;
            r.skip("transform reserved", 1)?;
            let length = usize::from(r.u16("transform length")?);
            let body = length.checked_sub(4).ok_or(DecodeError::Length("transform", length))?;
            *budget = budget.checked_sub(1).ok_or(DecodeError::TooMany("transforms", MAX_TRANSFORMS))?;
            transforms.push(Transform::parse(r.sub("transform", body)?)?);
            more = match PayloadType(next) {
                PayloadType::NONE => false,
                PayloadType::TRANSFORM => true,
                other => return Err(DecodeError::Value("next payload of a transform", u64::from(other.0))),
            };
        }
        if transforms.len() != usize::from(count) {
            return Err(DecodeError::Value("number of transforms", u64::from(count)));
        }
        r.finish("proposal")?;
        Ok(Self { number, protocol, spi, transforms })
    }

    fn emit(&self, w: &mut Writer, last: bool) {
        let start = w.len();
        w.u8(if last { 0 } else { PayloadType::PROPOSAL.0 }).u8(0);
        let length = w.mark_u16();
        w.u8(self.number).u8(self.protocol.0);
        w.u8(u8::try_from(self.spi.len()).unwrap_or(0)).u8(u8::try_from(self.transforms.len()).unwrap_or(u8::MAX));
        w.bytes(self.spi);
        for (i, t) in self.transforms.iter().enumerate() {
            t.emit(w, i + 1 == self.transforms.len());
        }
        w.patch_len_since(length, start);
    }
}

/// `| DOI (32) | situation (32) | proposals ... |`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityAssociation<'a> {
    /// Domain of interpretation; [`DOI_IPSEC`] or nothing that we know.
    pub doi: u32,
    /// Situation; [`SIT_IDENTITY_ONLY`].
    pub situation: u32,
    /// The proposals in the sender's order.
    pub proposals: Vec<Proposal<'a>>,
}

impl<'a> SecurityAssociation<'a> {
    /// An SA of the IPsec DOI.
    pub const fn new(proposals: Vec<Proposal<'a>>) -> Self {
        Self { doi: DOI_IPSEC, situation: SIT_IDENTITY_ONLY, proposals }
    }

    /// Reads the payload's body.
    pub fn parse(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let doi = r.u32("DOI")?;
        if doi != DOI_IPSEC {
            return Err(DecodeError::Value("DOI", u64::from(doi)));
        }
        let situation = r.u32("situation")?;
        if situation != SIT_IDENTITY_ONLY {
            return Err(DecodeError::Value("situation", u64::from(situation)));
        }
        let mut proposals = Vec::new();
        let mut budget = MAX_TRANSFORMS;
        loop {
            let next = r.u8("next proposal")?;
            r.skip("proposal reserved", 1)?;
            let length = usize::from(r.u16("proposal length")?);
            let body = length.checked_sub(4).ok_or(DecodeError::Length("proposal", length))?;
            if proposals.len() == MAX_PROPOSALS {
                return Err(DecodeError::TooMany("proposals", MAX_PROPOSALS));
            }
            proposals.push(Proposal::parse(r.sub("proposal", body)?, &mut budget)?);
            match PayloadType(next) {
                PayloadType::NONE => break,
                PayloadType::PROPOSAL => {}
                other => return Err(DecodeError::Value("next payload of a proposal", u64::from(other.0))),
            }
        }
        r.finish("SA payload")?;
        Ok(Self { doi, situation, proposals })
    }

    /// Writes the payload's body.
    pub fn emit(&self, w: &mut Writer) {
        w.u32(self.doi).u32(self.situation);
        for (i, p) in self.proposals.iter().enumerate() {
            p.emit(w, i + 1 == self.proposals.len());
        }
    }
}

impl fmt::Display for SecurityAssociation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, p) in self.proposals.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{p}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Proposal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {}", self.number, self.protocol)?;
        if !self.spi.is_empty() {
            f.write_str(" spi ")?;
            super::hex(f, self.spi)?;
        }
        for (i, t) in self.transforms.iter().enumerate() {
            f.write_str(if i == 0 { ": " } else { ", " })?;
            TransformNames { protocol: self.protocol, transform: t }.fmt(f)?;
        }
        Ok(())
    }
}

/// Shows a transform in the terms of its protocol: `AES_CBC-256/SHA1/MODP_2048/PRE_SHARED_KEY/28800s`.
pub struct TransformNames<'t, 'a> {
    /// The protocol of its proposal.
    pub protocol: ProtocolId,
    /// The transform.
    pub transform: &'t Transform<'a>,
}

impl fmt::Display for TransformNames<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = self.transform;
        let n16 = |kind: u16| t.number_of(kind).map(|v| u16::try_from(v).unwrap_or(u16::MAX));
        let lives = if self.protocol == ProtocolId::ISAKMP {
            use Phase1Attribute as A;
            match n16(A::ENCRYPTION.0) {
                Some(v) => write!(f, "{}", EncryptionId(v))?,
                None => f.write_str("no encryption")?,
            }
            if let Some(v) = n16(A::KEY_LENGTH.0) {
                write!(f, "-{v}")?;
            }
            if let Some(v) = n16(A::HASH.0) {
                write!(f, "/{}", HashId(v))?;
            }
            if let Some(v) = n16(A::GROUP.0) {
                write!(f, "/{}", GroupId(v))?;
            }
            if let Some(v) = n16(A::AUTHENTICATION.0) {
                write!(f, "/{}", AuthenticationId(v))?;
            }
            t.lifetimes(A::LIFE_TYPE.0, A::LIFE_DURATION.0)
        } else {
            use Phase2Attribute as A;
            match self.protocol {
                ProtocolId::ESP => write!(f, "{}", EspTransformId(t.id))?,
                ProtocolId::AH => write!(f, "{}", AhTransformId(t.id))?,
                ProtocolId::IPCOMP => write!(f, "{}", IpcompTransformId(t.id))?,
                _ => write!(f, "{}", t.id)?,
            }
            if let Some(v) = n16(A::KEY_LENGTH.0) {
                write!(f, "-{v}")?;
            }
            if let Some(v) = n16(A::AUTHENTICATION.0) {
                write!(f, "/{}", EspAuthenticationId(v))?;
            }
            if let Some(v) = n16(A::GROUP.0) {
                write!(f, "/{}", GroupId(v))?;
            }
            if let Some(v) = n16(A::ENCAPSULATION.0) {
                write!(f, "/{}", EncapsulationMode(v))?;
            }
            t.lifetimes(A::LIFE_TYPE.0, A::LIFE_DURATION.0)
        };
        if let Some(s) = lives.seconds {
            write!(f, "/{s}s")?;
        }
        if let Some(k) = lives.kilobytes {
            write!(f, "/{k}KB")?;
        }
        Ok(())
    }
}
