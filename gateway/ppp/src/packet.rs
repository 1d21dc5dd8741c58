//! Control packets and their options: the shape that LCP, the NCPs and the authentication protocols share.

use sallyport_base::{DecodeError, Reader, Writer};

sallyport_base::wire_enum! {
    /// IANA "PPP LCP and IPCP Codes" (RFC 1661 §5, RFC 1570).
    pub struct Code(u8) {
        CONFIGURE_REQUEST = 1, CONFIGURE_ACK = 2, CONFIGURE_NAK = 3, CONFIGURE_REJECT = 4, TERMINATE_REQUEST = 5,
        TERMINATE_ACK = 6, CODE_REJECT = 7, PROTOCOL_REJECT = 8, ECHO_REQUEST = 9, ECHO_REPLY = 10,
        DISCARD_REQUEST = 11, IDENTIFICATION = 12, TIME_REMAINING = 13, RESET_REQUEST = 14, RESET_ACK = 15,
    }
}

/// More options than this in one packet are an attack; Windows sends 7.
pub const MAX_OPTIONS: usize = 32;
/// Longer control packets are dropped: nothing real comes near an MRU of 1500.
pub const MAX_PACKET_LEN: usize = 1600;

/// `| Code | Identifier | Length (16) | Data ... |` (RFC 1661 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlPacket<'a> {
    /// What kind of packet it is; its meaning depends on the protocol.
    pub code: u8,
    /// Ties replies to requests.
    pub identifier: u8,
    /// What follows, cut to the Length field.
    pub data: &'a [u8],
}

impl<'a> ControlPacket<'a> {
    /// Reads a packet; octets behind its Length are padding (RFC 1661 §5).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_PACKET_LEN {
            return Err(DecodeError::Length("PPP packet", bytes.len()));
        }
        let mut r = Reader::new(bytes);
        let code = r.u8("code")?;
        let identifier = r.u8("identifier")?;
        let length = usize::from(r.u16("length")?);
        let rest = length.checked_sub(4).ok_or(DecodeError::Length("PPP packet", length))?;
        Ok(Self { code, identifier, data: r.bytes("data", rest)? })
    }

    /// The packet's octets.
    pub fn emit(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(4 + self.data.len());
        w.u8(self.code).u8(self.identifier);
        let mark = w.mark_u16();
        w.bytes(self.data);
        w.patch(mark, 4 + self.data.len());
        w.into_vec()
    }
}

/// One option: `| Type | Length | Data ... |` (RFC 1661 §6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigOption {
    /// Its meaning depends on the protocol.
    pub kind: u8,
    /// What follows the length.
    pub data: Vec<u8>,
}

impl ConfigOption {
    /// An option; data beyond 253 octets are cut when it is emitted.
    pub fn new(kind: u8, data: impl Into<Vec<u8>>) -> Self {
        Self { kind, data: data.into() }
    }

    /// Reads all options of a configure packet. One impossible length makes the whole packet invalid.
    pub fn parse_all(data: &[u8]) -> Result<Vec<Self>, DecodeError> {
        let mut r = Reader::new(data);
        let mut options = Vec::new();
        while !r.is_empty() {
            if options.len() == MAX_OPTIONS {
                return Err(DecodeError::TooMany("options", MAX_OPTIONS));
            }
            let kind = r.u8("option type")?;
            let length = usize::from(r.u8("option length")?);
            let rest = length.checked_sub(2).ok_or(DecodeError::Length("option", length))?;
            options.push(Self::new(kind, r.bytes("option", rest)?));
        }
        Ok(options)
    }

    /// The octets of all options, one after the other.
    pub fn emit_all(options: &[Self]) -> Vec<u8> {
        let mut w = Writer::new();
        for option in options {
            let data = option.data.get(..253).unwrap_or(&option.data);
            w.u8(option.kind).u8(u8::try_from(data.len() + 2).unwrap_or(u8::MAX)).bytes(data);
        }
        w.into_vec()
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;
    use proptest::collection::vec as octets;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn padding_behind_the_length_is_cut_off() {
        let packet = ControlPacket::parse(&hex!("09 05 0008 01020304 ffff")).unwrap();
        assert_eq!(packet, ControlPacket { code: 9, identifier: 5, data: &[1, 2, 3, 4] });
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for bytes in [&hex!("01 01 0003")[..], &hex!("01 01 0005"), &hex!("01 01 00"), &[]] {
            assert!(ControlPacket::parse(bytes).is_err());
        }
        for options in [&hex!("01")[..], &hex!("01 01"), &hex!("01 00"), &hex!("01 05 0000"), &hex!("07 02 08")] {
            assert!(ConfigOption::parse_all(options).is_err());
        }
        assert!(ConfigOption::parse_all(&hex!("07 02").repeat(MAX_OPTIONS + 1)).is_err());
    }

    proptest! {
        #[test]
        fn packets_are_read_as_they_were_written(code: u8, identifier: u8, data in octets(any::<u8>(), 0..300)) {
            let packet = ControlPacket { code, identifier, data: &data };
            let bytes = packet.emit();
            prop_assert_eq!(ControlPacket::parse(&bytes), Ok(packet));
        }

        #[test]
        fn options_are_read_as_they_were_written(list in octets((any::<u8>(), octets(any::<u8>(), 0..20)), 0..MAX_OPTIONS)) {
            let options: Vec<_> = list.into_iter().map(|(kind, data)| ConfigOption { kind, data }).collect();
            prop_assert_eq!(ConfigOption::parse_all(&ConfigOption::emit_all(&options)), Ok(options));
        }

        #[test]
        fn nothing_makes_them_panic(bytes in octets(any::<u8>(), 0..300)) {
            let _ = ControlPacket::parse(&bytes);
            let _ = ConfigOption::parse_all(&bytes);
        }
    }
}
