//! Identification payload, RFC 2407 §4.6.2 (phase 1 and the client identities of quick mode).

use core::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sallyport_base::{DecodeError, Reader, Writer};

use super::dn;
use super::numbers::IdType;

/// Longest identification data that is read: a distinguished name of a certificate stays far below.
pub const MAX_ID_LEN: usize = 4096;

/// `| type (8) | protocol (8) | port (16) | data ... |`
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identification {
    /// What the data is.
    pub id_type: IdType,
    /// IP protocol; 0 is any, 17 is UDP.
    pub protocol: u8,
    /// Port; 0 is any.
    pub port: u16,
    /// The identity itself.
    pub data: Vec<u8>,
}

impl Identification {
    /// A phase 1 identity: protocol and port zero.
    pub fn phase1(id_type: IdType, data: impl Into<Vec<u8>>) -> Self {
        Self { id_type, protocol: 0, port: 0, data: data.into() }
    }

    /// A name, as ID_FQDN.
    pub fn fqdn(name: &str) -> Self {
        Self::phase1(IdType::FQDN, name.as_bytes())
    }

    /// A distinguished name in DER, as ID_DER_ASN1_DN.
    pub fn der_dn(der: impl Into<Vec<u8>>) -> Self {
        Self::phase1(IdType::DER_ASN1_DN, der)
    }

    /// An address.
    pub fn address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(a) => Self::phase1(IdType::IPV4_ADDR, a.octets()),
            IpAddr::V6(a) => Self::phase1(IdType::IPV6_ADDR, a.octets()),
        }
    }

    /// An address with protocol and port: a client identity of quick mode.
    pub fn selector(address: IpAddr, protocol: u8, port: u16) -> Self {
        Self { protocol, port, ..Self::address(address) }
    }

    /// Reads the payload's body.
    pub fn parse(mut r: Reader<'_>) -> Result<Self, DecodeError> {
        let id_type = IdType(r.u8("ID type")?);
        let protocol = r.u8("ID protocol")?;
        let port = r.u16("ID port")?;
        let data = r.rest();
        let want = match id_type {
            IdType::IPV4_ADDR => Some(4),
            IdType::IPV6_ADDR => Some(16),
            IdType::IPV4_ADDR_SUBNET | IdType::IPV4_ADDR_RANGE => Some(8),
            IdType::IPV6_ADDR_SUBNET | IdType::IPV6_ADDR_RANGE => Some(32),
            _ => None,
        };
        if want.is_some_and(|n| n != data.len()) || data.len() > MAX_ID_LEN {
            return Err(DecodeError::Length("identification", data.len()));
        }
        if matches!(id_type, IdType::FQDN | IdType::USER_FQDN) && !is_name(data) {
            return Err(DecodeError::Text("identification"));
        }
        Ok(Self { id_type, protocol, port, data: data.to_vec() })
    }

    /// Writes the payload's body.
    pub fn emit(&self, w: &mut Writer) {
        w.u8(self.id_type.0).u8(self.protocol).u16(self.port).bytes(&self.data);
    }

    /// The body's bytes: `IDii_b`, `IDir_b` of RFC 2409 §5.
    pub fn to_body(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(4 + self.data.len());
        self.emit(&mut w);
        w.into_vec()
    }

    /// The address, if the identity is a single one.
    pub fn to_address(&self) -> Option<IpAddr> {
        match self.id_type {
            IdType::IPV4_ADDR => <[u8; 4]>::try_from(&self.data[..]).ok().map(|a| Ipv4Addr::from(a).into()),
            IdType::IPV6_ADDR => <[u8; 16]>::try_from(&self.data[..]).ok().map(|a| Ipv6Addr::from(a).into()),
            _ => None,
        }
    }
}

/// Whether the data is a name: not empty, no control characters. Zeros at the end are forgiven to those who think in C.
fn is_name(data: &[u8]) -> bool {
    let end = data.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    end > 0 && data.iter().take(end).all(|b| !b.is_ascii_control())
}

/// What a person calls it: an address, a name, a distinguished name in the order of the certificate.
impl fmt::Display for Identification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v4 = |d: &[u8]| <[u8; 4]>::try_from(d).map(Ipv4Addr::from).unwrap_or(Ipv4Addr::UNSPECIFIED);
        let v6 = |d: &[u8]| <[u8; 16]>::try_from(d).map(Ipv6Addr::from).unwrap_or(Ipv6Addr::UNSPECIFIED);
        let (a, b) = self.data.split_at(self.data.len() / 2);
        match self.id_type {
            IdType::IPV4_ADDR => write!(f, "{}", v4(&self.data))?,
            IdType::IPV6_ADDR => write!(f, "{}", v6(&self.data))?,
            IdType::IPV4_ADDR_SUBNET => write!(f, "{}/{}", v4(a), v4(b))?,
            IdType::IPV6_ADDR_SUBNET => write!(f, "{}/{}", v6(a), v6(b))?,
            IdType::IPV4_ADDR_RANGE => write!(f, "{}-{}", v4(a), v4(b))?,
            IdType::IPV6_ADDR_RANGE => write!(f, "{}-{}", v6(a), v6(b))?,
            IdType::FQDN | IdType::USER_FQDN => write!(f, "{}", self.data.escape_ascii())?,
            IdType::DER_ASN1_DN => dn::fmt_name(f, &self.data)?,
            _ if !self.data.is_empty() && self.data.iter().all(|b| (0x20..0x7f).contains(b)) => {
                write!(f, "{}", self.data.escape_ascii())?;
            }
            _ => super::hex(f, &self.data)?,
        }
        if self.protocol != 0 || self.port != 0 {
            write!(f, "[{}/{}]", self.protocol, self.port)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Identification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{self}", self.id_type)
    }
}
