//! Payloads of IKEv2 that travel in the clear, RFC 7296 §3: enough to list what an IKE_SA_INIT says.

use core::fmt;

use sallyport_base::{DecodeError, Reader};

use super::numbers::*;
use super::sa::{MAX_PROPOSALS, MAX_TRANSFORMS};

/// One transform of a proposal, RFC 7296 §3.3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransformV2 {
    /// What kind of algorithm.
    pub kind: TransformTypeV2,
    /// Which one.
    pub id: u16,
    /// Key length in bits, where the algorithm leaves it open.
    pub key_length: Option<u16>,
}

/// One proposal, RFC 7296 §3.3.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProposalV2<'a> {
    /// From 1.
    pub number: u8,
    /// IKE (1), AH or ESP.
    pub protocol: ProtocolId,
    /// The sender's SPI; empty in an initial IKE SA.
    pub spi: &'a [u8],
    /// All transforms; those of one type are alternatives.
    pub transforms: Vec<TransformV2>,
}

/// Security Association payload of IKEv2, RFC 7296 §3.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityAssociationV2<'a> {
    /// The proposals in their order.
    pub proposals: Vec<ProposalV2<'a>>,
}

impl<'a> SecurityAssociationV2<'a> {
    /// Reads the payload's body.
    pub fn parse(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let mut proposals = Vec::new();
        let mut budget = MAX_TRANSFORMS;
        loop {
            let more = r.u8("last proposal")?;
            r.skip("proposal reserved", 1)?;
            let length = usize::from(r.u16("proposal length")?);
            let body = length.checked_sub(4).ok_or(DecodeError::Length("proposal", length))?;
            if proposals.len() == MAX_PROPOSALS {
                return Err(DecodeError::TooMany("proposals", MAX_PROPOSALS));
            }
            proposals.push(Self::proposal(r.sub("proposal", body)?, &mut budget)?);
            if more == 0 {
                break;
            }
        }
        r.finish("SA payload")?;
        Ok(Self { proposals })
    }

    fn proposal(mut r: Reader<'a>, budget: &mut usize) -> Result<ProposalV2<'a>, DecodeError> {
        let number = r.u8("proposal number")?;
        let protocol = ProtocolId(r.u8("proposal protocol")?);
        let spi_size = r.u8("SPI size")?;
        let count = r.u8("number of transforms")?;
        let spi = r.bytes("SPI", usize::from(spi_size))?;
        let mut transforms = Vec::new();
        for _ in 0..count {
            *budget = budget.checked_sub(1).ok_or(DecodeError::TooMany("transforms", MAX_TRANSFORMS))?;
            r.skip("last transform", 2)?;
            let length = usize::from(r.u16("transform length")?);
            let body = length.checked_sub(4).ok_or(DecodeError::Length("transform", length))?;
            let mut t = r.sub("transform", body)?;
            let kind = TransformTypeV2(t.u8("transform type")?);
            t.skip("transform reserved", 1)?;
            let id = t.u16("transform id")?;
            let mut key_length = None;
            while !t.is_empty() {
                let attribute = t.u16("attribute type")?;
                let value = t.u16("attribute value")?;
                if attribute & 0x8000 == 0 {
                    t.skip("attribute value", usize::from(value))?;
                } else if attribute & 0x7fff == 14 {
                    key_length = Some(value);
                }
            }
            transforms.push(TransformV2 { kind, id, key_length });
        }
        r.finish("proposal")?;
        Ok(ProposalV2 { number, protocol, spi, transforms })
    }
}

impl fmt::Display for TransformV2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TransformTypeV2::ENCR => write!(f, "{}", EncrV2(self.id))?,
            TransformTypeV2::PRF => write!(f, "PRF_{}", PrfV2(self.id))?,
            TransformTypeV2::INTEG => write!(f, "{}", IntegV2(self.id))?,
            TransformTypeV2::DH => write!(f, "{}", GroupId(self.id))?,
            TransformTypeV2::ESN if self.id == 0 => f.write_str("NO_ESN")?,
            TransformTypeV2::ESN => f.write_str("ESN")?,
            other => write!(f, "{other}:{}", self.id)?,
        }
        match self.key_length {
            Some(bits) => write!(f, "-{bits}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for SecurityAssociationV2<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, p) in self.proposals.iter().enumerate() {
            write!(f, "{}#{} {}", if i > 0 { "; " } else { "" }, p.number, p.protocol)?;
            if !p.spi.is_empty() {
                f.write_str(" spi ")?;
                super::hex(f, p.spi)?;
            }
            for (j, t) in p.transforms.iter().enumerate() {
                write!(f, "{}{t}", if j == 0 { ": " } else { "/" })?;
            }
        }
        Ok(())
    }
}

/// Key Exchange payload of IKEv2, RFC 7296 §3.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyExchangeV2<'a> {
    /// The group.
    pub group: GroupId,
    /// The public value.
    pub data: &'a [u8],
}

impl<'a> KeyExchangeV2<'a> {
    /// Reads the payload's body.
    pub fn parse(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let group = GroupId(r.u16("group")?);
        r.skip("key exchange reserved", 2)?;
        Ok(Self { group, data: r.rest() })
    }
}

/// Notify payload of IKEv2, RFC 7296 §3.10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotifyV2<'a> {
    /// The protocol that the SPI belongs to; 0 without one.
    pub protocol: ProtocolId,
    /// What is said.
    pub notify_type: NotifyTypeV2,
    /// The SPI that is meant.
    pub spi: &'a [u8],
    /// Depends on the type.
    pub data: &'a [u8],
}

impl<'a> NotifyV2<'a> {
    /// Reads the payload's body.
    pub fn parse(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let protocol = ProtocolId(r.u8("notification protocol")?);
        let spi_size = r.u8("SPI size")?;
        let notify_type = NotifyTypeV2(r.u16("notify type")?);
        let spi = r.bytes("SPI", usize::from(spi_size))?;
        Ok(Self { protocol, notify_type, spi, data: r.rest() })
    }
}
