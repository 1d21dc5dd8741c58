//! ICMP echo (RFC 792), just enough to ask a host whether it is there.

use std::io::{self, ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::clock;

const ECHO_REPLY: u8 = 0;
const DESTINATION_UNREACHABLE: u8 = 3;
const ECHO_REQUEST: u8 = 8;
/// Bytes of data in our requests: what ping(8) sends.
const DATA: usize = 56;
/// Longest answer that is looked at: the largest IPv4 header, the ICMP header and our data, and then some.
const BUFFER: usize = 512;

/// Sends one echo request and waits for its reply; gives the round-trip time.
///
/// Needs CAP_NET_RAW in the current network namespace.
pub(crate) fn ping(target: Ipv4Addr, identifier: u16, sequence: u16, timeout: Duration) -> io::Result<Duration> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    let start = clock::now();
    socket.send_to(&request(identifier, sequence), &SocketAddrV4::new(target, 0).into())?;
    let mut buffer = [0; BUFFER];
    loop {
        let left = timeout.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let len = match (&socket).read(&mut buffer) {
            Ok(len) => len,
            // How a read timeout shows on Linux.
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        match classify(buffer.get(..len).unwrap_or_default(), target, identifier, sequence) {
            Some(Answer::Reply) => return Ok(start.elapsed()),
            Some(Answer::Unreachable) => return Err(ErrorKind::HostUnreachable.into()),
            None => {} // a raw socket sees everybody's ICMP
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Reply,
    Unreachable,
}

/// `| type (8) | code (8) | checksum (16) | identifier (16) | sequence (16) | data ... |`
fn request(identifier: u16, sequence: u16) -> Vec<u8> {
    let mut packet = vec![ECHO_REQUEST, 0, 0, 0];
    packet.extend(identifier.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend((0..DATA).map(|i| (i & 0xff) as u8));
    let sum = checksum(&packet).to_be_bytes();
    packet[2..4].copy_from_slice(&sum);
    packet
}

/// What an IPv4 packet that a raw socket received says about our request.
fn classify(packet: &[u8], target: Ipv4Addr, identifier: u16, sequence: u16) -> Option<Answer> {
    let (source, icmp) = icmp_of(packet)?;
    let [kind, _code, _, _, rest @ ..] = icmp else { return None };
    let ours = |echo: &[u8]| {
        echo.get(..2) == Some(&identifier.to_be_bytes()) && echo.get(2..4) == Some(&sequence.to_be_bytes())
    };
    match *kind {
        ECHO_REPLY if source == target && checksum(icmp) == 0 && ours(rest) => Some(Answer::Reply),
        DESTINATION_UNREACHABLE => {
            // After 4 unused bytes: the header and the first 8 bytes of the packet that did not arrive.
            let original = rest.get(4..)?;
            let header = usize::from(original.first()? & 15) * 4;
            ours(original.get(header + 4..)?).then_some(Answer::Unreachable)
        }
        _ => None,
    }
}

/// The source and the ICMP message of an IPv4 packet.
fn icmp_of(packet: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let header = usize::from(packet.first()? & 15) * 4;
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    Some((source.into(), packet.get(header..)?))
}

/// RFC 1071: the one's complement of the one's complement sum; 0 over a message that carries its own.
fn checksum(data: &[u8]) -> u16 {
    let sum: u32 = data.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c.get(1).copied().unwrap_or(0)]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);

    fn packet(icmp: &[u8]) -> Vec<u8> {
        let mut p = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0];
        p.extend(HOST.octets());
        p.extend([10, 88, 0, 2]);
        p.extend(icmp);
        p
    }

    fn reply(identifier: u16, sequence: u16) -> Vec<u8> {
        let mut icmp = request(identifier, sequence);
        icmp[0] = ECHO_REPLY;
        icmp[2..4].fill(0);
        let sum = checksum(&icmp).to_be_bytes();
        icmp[2..4].copy_from_slice(&sum);
        icmp
    }

    #[test]
    fn the_checksum_is_that_of_rfc_1071_section_3() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&request(1, 2)), 0);
    }

    #[test]
    fn only_the_reply_to_our_request_counts() {
        assert_eq!(classify(&packet(&reply(7, 1)), HOST, 7, 1), Some(Answer::Reply));
        assert_eq!(classify(&packet(&reply(7, 2)), HOST, 7, 1), None);
        assert_eq!(classify(&packet(&reply(8, 1)), HOST, 7, 1), None);
        assert_eq!(classify(&packet(&request(7, 1)), HOST, 7, 1), None);
        assert_eq!(classify(&packet(&reply(7, 1)), Ipv4Addr::LOCALHOST, 7, 1), None);
    }

    #[test]
    fn an_unreachable_message_that_quotes_our_request_counts() {
        let mut icmp = vec![DESTINATION_UNREACHABLE, 1, 0, 0, 0, 0, 0, 0];
        icmp.extend(packet(&request(7, 1)));
        assert_eq!(classify(&packet(&icmp), HOST, 7, 1), Some(Answer::Unreachable));
        assert_eq!(classify(&packet(&icmp), HOST, 7, 9), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = classify(&bytes, HOST, 1, 1);
        }
    }
}
