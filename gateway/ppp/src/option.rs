//! The options of LCP, IPCP, IPV6CP and CCP, typed.

use core::fmt;
use core::net::Ipv4Addr;

use crate::config::AuthMethod;
use crate::frame::Protocol;
use crate::packet::ConfigOption;

sallyport_base::wire_enum! {
    /// IANA "PPP LCP Configuration Options".
    pub struct LcpKind(u8) {
        MRU = 1, ACCM = 2, AUTH = 3, QUALITY = 4, MAGIC = 5, PFC = 7, ACFC = 8, FCS = 9, SDP = 10, NUMBERED = 11,
        CALLBACK = 13, CONNECT_TIME = 14, COMPOUND = 15, MRRU = 17, SHORT_SEQUENCE = 18, ENDPOINT = 19, PROPRIETARY = 20,
        DCE = 21, MULTILINK_PLUS = 22, LINK_DISCRIMINATOR = 23, LCP_AUTH = 24,
    }
}

sallyport_base::wire_enum! {
    /// IANA "PPP IPCP Configuration Option Types"; 129 to 132 are of RFC 1877.
    pub struct IpcpKind(u8) {
        ADDRESSES = 1, COMPRESSION = 2, ADDRESS = 3, MOBILE = 4, DNS1 = 129, NBNS1 = 130, DNS2 = 131, NBNS2 = 132,
    }
}

sallyport_base::wire_enum! {
    /// IANA "IPV6CP Configuration Options".
    pub struct Ipv6cpKind(u8) { INTERFACE_ID = 1, COMPRESSION = 2 }
}

sallyport_base::wire_enum! {
    /// IANA "PPP CCP Configuration Options".
    pub struct CcpKind(u8) { OUI = 0, PREDICTOR1 = 1, PREDICTOR2 = 2, STAC = 17, MPPE = 18, BSD = 21, DEFLATE = 26 }
}

sallyport_base::wire_enum! {
    /// IANA "PPP Authentication Algorithms" behind the CHAP protocol number.
    pub struct ChapAlgorithm(u8) { MD5 = 5, MS_CHAP = 128, MS_CHAP_V2 = 129 }
}

/// An LCP option (RFC 1661 §6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LcpOption {
    /// Maximum-Receive-Unit, in octets.
    Mru(u16),
    /// Async-Control-Character-Map (RFC 1662 §7.1): means nothing here, and is accepted.
    Accm(u32),
    /// Authentication-Protocol: which, and the data behind its number (CHAP's algorithm).
    Auth(Protocol, Vec<u8>),
    /// Magic-Number.
    Magic(u32),
    /// Protocol-Field-Compression.
    Pfc,
    /// Address-and-Control-Field-Compression.
    Acfc,
    /// Callback (RFC 1570 §2.3): operation and message; Microsoft's operation 6 is CBCP.
    Callback(u8, Vec<u8>),
    /// Multilink maximum reconstructed unit (RFC 1990).
    Mrru(u16),
    /// Multilink short sequence numbers.
    ShortSequence,
    /// Multilink endpoint discriminator: class and address.
    Endpoint(u8, Vec<u8>),
    /// BACP link discriminator.
    LinkDiscriminator(u16),
    /// Another option, or one of these with a length it may not have.
    Other(ConfigOption),
}

impl LcpOption {
    /// Reads an option; nothing fails, since what is not known can still be rejected.
    pub fn parse(option: &ConfigOption) -> Self {
        let typed = match (LcpKind(option.kind), option.data.as_slice()) {
            (LcpKind::MRU, [a, b]) => Some(Self::Mru(u16::from_be_bytes([*a, *b]))),
            (LcpKind::ACCM, [a, b, c, d]) => Some(Self::Accm(u32::from_be_bytes([*a, *b, *c, *d]))),
            (LcpKind::AUTH, [a, b, data @ ..]) => {
                Some(Self::Auth(Protocol(u16::from_be_bytes([*a, *b])), data.to_vec()))
            }
            (LcpKind::MAGIC, [a, b, c, d]) => Some(Self::Magic(u32::from_be_bytes([*a, *b, *c, *d]))),
            (LcpKind::PFC, []) => Some(Self::Pfc),
            (LcpKind::ACFC, []) => Some(Self::Acfc),
            (LcpKind::CALLBACK, [operation, message @ ..]) => Some(Self::Callback(*operation, message.to_vec())),
            (LcpKind::MRRU, [a, b]) => Some(Self::Mrru(u16::from_be_bytes([*a, *b]))),
            (LcpKind::SHORT_SEQUENCE, []) => Some(Self::ShortSequence),
            (LcpKind::ENDPOINT, [class, address @ ..]) => Some(Self::Endpoint(*class, address.to_vec())),
            (LcpKind::LINK_DISCRIMINATOR, [a, b]) => Some(Self::LinkDiscriminator(u16::from_be_bytes([*a, *b]))),
            _ => None,
        };
        typed.unwrap_or_else(|| Self::Other(option.clone()))
    }

    /// The option's octets.
    pub fn to_option(&self) -> ConfigOption {
        let (kind, data) = match self {
            Self::Mru(v) => (LcpKind::MRU, v.to_be_bytes().to_vec()),
            Self::Accm(v) => (LcpKind::ACCM, v.to_be_bytes().to_vec()),
            Self::Auth(protocol, data) => (LcpKind::AUTH, [&protocol.0.to_be_bytes()[..], data].concat()),
            Self::Magic(v) => (LcpKind::MAGIC, v.to_be_bytes().to_vec()),
            Self::Pfc => (LcpKind::PFC, Vec::new()),
            Self::Acfc => (LcpKind::ACFC, Vec::new()),
            Self::Callback(operation, message) => (LcpKind::CALLBACK, [&[*operation][..], message].concat()),
            Self::Mrru(v) => (LcpKind::MRRU, v.to_be_bytes().to_vec()),
            Self::ShortSequence => (LcpKind::SHORT_SEQUENCE, Vec::new()),
            Self::Endpoint(class, address) => (LcpKind::ENDPOINT, [&[*class][..], address].concat()),
            Self::LinkDiscriminator(v) => (LcpKind::LINK_DISCRIMINATOR, v.to_be_bytes().to_vec()),
            Self::Other(option) => return option.clone(),
        };
        ConfigOption { kind: kind.0, data }
    }
}

impl AuthMethod {
    /// The Authentication-Protocol option that asks for this method.
    pub fn to_lcp_option(self) -> LcpOption {
        match self {
            Self::Pap => LcpOption::Auth(Protocol::PAP, Vec::new()),
            Self::ChapMd5 => LcpOption::Auth(Protocol::CHAP, vec![ChapAlgorithm::MD5.0]),
            Self::MsChapV2 => LcpOption::Auth(Protocol::CHAP, vec![ChapAlgorithm::MS_CHAP_V2.0]),
        }
    }

    /// The method that an Authentication-Protocol option asks for, if this implementation has it.
    pub fn from_lcp_option(protocol: Protocol, data: &[u8]) -> Option<Self> {
        match (protocol, data) {
            (Protocol::PAP, _) => Some(Self::Pap),
            (Protocol::CHAP, [algorithm, ..]) if *algorithm == ChapAlgorithm::MD5.0 => Some(Self::ChapMd5),
            (Protocol::CHAP, [algorithm, ..]) if *algorithm == ChapAlgorithm::MS_CHAP_V2.0 => Some(Self::MsChapV2),
            _ => None,
        }
    }
}

/// How people call an Authentication-Protocol option, known here or not: `PAP`, `MS-CHAPv1`, `EAP`.
pub fn auth_name(protocol: Protocol, data: &[u8]) -> String {
    match (AuthMethod::from_lcp_option(protocol, data), protocol, data) {
        (Some(method), ..) => method.name().into(),
        (None, Protocol::CHAP, [algorithm, ..]) if *algorithm == ChapAlgorithm::MS_CHAP.0 => "MS-CHAPv1".into(),
        (None, Protocol::CHAP, [algorithm, ..]) => format!("CHAP algorithm {algorithm}"),
        _ => match protocol.name() {
            Some(name) => name.into(),
            None => format!("protocol {:#06x}", protocol.0),
        },
    }
}

/// An IPCP option (RFC 1332, RFC 1877).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IpcpOption {
    /// IP-Address.
    Address(Ipv4Addr),
    /// A name server: which of the four options, and its address.
    Server(IpcpKind, Ipv4Addr),
    /// Another option, or one of these with a length it may not have.
    Other(ConfigOption),
}

impl IpcpOption {
    /// Reads an option; nothing fails, since what is not known can still be rejected.
    pub fn parse(option: &ConfigOption) -> Self {
        let kind = IpcpKind(option.kind);
        match (kind, option.data.as_slice()) {
            (IpcpKind::ADDRESS, [a, b, c, d]) => Self::Address(Ipv4Addr::new(*a, *b, *c, *d)),
            (IpcpKind::DNS1 | IpcpKind::DNS2 | IpcpKind::NBNS1 | IpcpKind::NBNS2, [a, b, c, d]) => {
                Self::Server(kind, Ipv4Addr::new(*a, *b, *c, *d))
            }
            _ => Self::Other(option.clone()),
        }
    }

    /// The option's octets.
    pub fn to_option(&self) -> ConfigOption {
        match self {
            Self::Address(address) => ConfigOption::new(IpcpKind::ADDRESS.0, address.octets()),
            Self::Server(kind, address) => ConfigOption::new(kind.0, address.octets()),
            Self::Other(option) => option.clone(),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl fmt::Display for LcpOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mru(v) => write!(f, "MRU={v}"),
            Self::Accm(v) => write!(f, "ACCM={v:08x}"),
            Self::Auth(protocol, data) => write!(f, "AUTH={}", auth_name(*protocol, data)),
            Self::Magic(v) => write!(f, "MAGIC={v:08x}"),
            Self::Pfc => f.write_str("PFC"),
            Self::Acfc => f.write_str("ACFC"),
            Self::Callback(operation, message) => write!(f, "CALLBACK={operation}{}", hex(message)),
            Self::Mrru(v) => write!(f, "MRRU={v}"),
            Self::ShortSequence => f.write_str("SHORT_SEQUENCE"),
            Self::Endpoint(class, address) => write!(f, "ENDPOINT={class}:{}", hex(address)),
            Self::LinkDiscriminator(v) => write!(f, "LINK_DISCRIMINATOR={v}"),
            Self::Other(option) => write!(f, "{}={}", LcpKind(option.kind), hex(&option.data)),
        }
    }
}

impl fmt::Display for IpcpOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "ADDRESS={address}"),
            Self::Server(kind, address) => write!(f, "{kind}={address}"),
            Self::Other(option) => write!(f, "{}={}", IpcpKind(option.kind), hex(&option.data)),
        }
    }
}

/// The CCP option MPPE (RFC 3078 §2) in words: `MPPE 128 stateless`.
pub fn mppe_words(bits: u32) -> String {
    let names =
        [(0x0100_0000, "stateless"), (0x40, "128"), (0x20, "40"), (0x80, "56"), (0x01, "MPPC"), (0x10, "obsolete")];
    names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect::<Vec<_>>().join(" ")
}

/// An option of another protocol, as `NAME=value`.
pub(crate) fn describe(protocol: Protocol, option: &ConfigOption) -> (String, String) {
    let bytes = option.data.as_slice();
    match protocol {
        Protocol::LCP => split(&LcpOption::parse(option).to_string()),
        Protocol::IPCP => split(&IpcpOption::parse(option).to_string()),
        Protocol::IPV6CP => (Ipv6cpKind(option.kind).to_string(), hex(bytes)),
        Protocol::CCP => match (CcpKind(option.kind), bytes) {
            (CcpKind::MPPE, [a, b, c, d]) => ("MPPE".into(), mppe_words(u32::from_be_bytes([*a, *b, *c, *d]))),
            (kind, _) => (kind.to_string(), hex(bytes)),
        },
        _ => (option.kind.to_string(), hex(bytes)),
    }
}

fn split(shown: &str) -> (String, String) {
    let (name, value) = shown.split_once('=').unwrap_or((shown, "yes"));
    (name.into(), value.into())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec as octets;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn windows_7s_options_are_named() {
        let data = hex_literal::hex!("01 04 0578 05 06 1a2b3c4d 07 02 08 02 0d 03 06 11 04 064e 13 05 010203");
        let shown: Vec<String> =
            ConfigOption::parse_all(&data).unwrap().iter().map(|o| LcpOption::parse(o).to_string()).collect();
        let expected = "MRU=1400 MAGIC=1a2b3c4d PFC ACFC CALLBACK=6 MRRU=1614 ENDPOINT=1:0203";
        assert_eq!(shown.join(" "), expected);
        assert_eq!(mppe_words(0x0100_0040), "stateless 128");
    }

    #[test]
    fn authentication_methods_are_their_options() {
        for method in [AuthMethod::Pap, AuthMethod::ChapMd5, AuthMethod::MsChapV2] {
            let LcpOption::Auth(protocol, data) = method.to_lcp_option() else { panic!("not Auth") };
            assert_eq!(AuthMethod::from_lcp_option(protocol, &data), Some(method));
        }
        assert_eq!(auth_name(Protocol::EAP, &[]), "EAP");
        assert_eq!(auth_name(Protocol::CHAP, &[128]), "MS-CHAPv1");
        assert_eq!(auth_name(Protocol::CHAP, &[]), "CHAP");
    }

    proptest! {
        #[test]
        fn an_option_is_read_as_it_was_written(kind in 0u8..30, data in octets(any::<u8>(), 0..10)) {
            let option = ConfigOption { kind, data };
            prop_assert_eq!(LcpOption::parse(&option).to_option(), option.clone());
            prop_assert_eq!(IpcpOption::parse(&option).to_option(), option.clone());
            for protocol in [Protocol::LCP, Protocol::IPCP, Protocol::IPV6CP, Protocol::CCP, Protocol(1)] {
                describe(protocol, &option);
            }
        }
    }
}
