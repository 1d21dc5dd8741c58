//! NAT Original Address payload, RFC 3947 §5.2 (and, under another number, the drafts before it).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sallyport_base::{DecodeError, Reader, Writer};

use super::numbers::IdType;

/// `| type (8) | RESERVED (24) | address ... |`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatOa {
    /// The address as its owner sees it.
    pub address: IpAddr,
}

impl NatOa {
    /// Reads the payload's body.
    pub fn parse(mut r: Reader<'_>) -> Result<Self, DecodeError> {
        let id_type = IdType(r.u8("NAT-OA type")?);
        r.skip("NAT-OA reserved", 3)?;
        let address = match id_type {
            IdType::IPV4_ADDR => IpAddr::from(Ipv4Addr::from(r.array::<4>("NAT-OA address")?)),
            IdType::IPV6_ADDR => IpAddr::from(Ipv6Addr::from(r.array::<16>("NAT-OA address")?)),
            other => return Err(DecodeError::Value("NAT-OA type", u64::from(other.0))),
        };
        r.finish("NAT-OA")?;
        Ok(Self { address })
    }

    /// Writes the payload's body.
    pub fn emit(&self, w: &mut Writer) {
        match self.address {
            IpAddr::V4(a) => w.u8(IdType::IPV4_ADDR.0).zeros(3).bytes(&a.octets()),
            IpAddr::V6(a) => w.u8(IdType::IPV6_ADDR.0).zeros(3).bytes(&a.octets()),
        };
    }
}
