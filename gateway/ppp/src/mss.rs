//! Clamping the TCP maximum segment size of packets that pass, so that what comes back fits the tunnel.

const TCP: u8 = 6;
const SYN: u8 = 0x02;
const MSS_OPTION: u8 = 2;

/// IPv6 extension headers that may stand before TCP and are walked over.
const MAX_EXTENSIONS: usize = 8;

/// Lowers the MSS option of a TCP SYN (with or without ACK) to what fits `mtu`, in place; says whether it did.
///
/// `packet` is a whole IPv4 or IPv6 packet. The TCP checksum is corrected by the difference (RFC 1624). Fragments but
/// the first, other protocols, and packets that are cut short or make no sense are left as they are.
pub fn clamp_mss(packet: &mut [u8], mtu: u16) -> bool {
    let (tcp_at, headers) = match packet.first().map(|b| b >> 4) {
        Some(4) => (ipv4_tcp(packet), 40),
        Some(6) => (ipv6_tcp(packet), 60),
        _ => return false,
    };
    let Some(tcp) = tcp_at.and_then(|at| packet.get_mut(at..)) else { return false };
    clamp_tcp(tcp, mtu.saturating_sub(headers))
}

/// Where TCP starts in an IPv4 packet.
fn ipv4_tcp(packet: &[u8]) -> Option<usize> {
    let header_len = usize::from(packet.first()? & 0x0f) * 4;
    let is_later_fragment = *packet.get(6)? & 0x1f != 0 || *packet.get(7)? != 0;
    (header_len >= 20 && *packet.get(9)? == TCP && !is_later_fragment).then_some(header_len)
}

/// Where TCP starts in an IPv6 packet, behind hop-by-hop, routing, destination and first-fragment headers.
fn ipv6_tcp(packet: &[u8]) -> Option<usize> {
    let mut next = *packet.get(6)?;
    let mut at = 40;
    for _ in 0..MAX_EXTENSIONS {
        match next {
            TCP => return Some(at),
            0 | 43 | 60 => {
                next = *packet.get(at)?;
                at += (usize::from(*packet.get(at + 1)?) + 1) * 8;
            }
            44 => {
                let is_later_fragment = *packet.get(at + 2)? != 0 || *packet.get(at + 3)? & 0xf8 != 0;
                if is_later_fragment {
                    return None;
                }
                next = *packet.get(at)?;
                at += 8;
            }
            _ => return None,
        }
    }
    None
}

fn clamp_tcp(tcp: &mut [u8], max: u16) -> bool {
    let (Some(&offset), Some(&flags)) = (tcp.get(12), tcp.get(13)) else { return false };
    let header_len = usize::from(offset >> 4) * 4;
    if flags & SYN == 0 || header_len < 20 || tcp.len() < header_len {
        return false;
    }
    let mut at = 20;
    // Each turn moves on by at least one octet of at most 40.
    while at < header_len {
        match (tcp.get(at).copied(), tcp.get(at + 1).copied()) {
            (Some(0), _) => return false,
            (Some(1), _) => at += 1,
            (Some(MSS_OPTION), Some(4)) if at + 4 <= header_len => return lower(tcp, at + 2, max),
            (Some(_), Some(len)) if len >= 2 => at += usize::from(len),
            _ => return false,
        }
    }
    false
}

/// Writes `max` at `at` if it is lower than what stands there, and corrects the checksum.
fn lower(tcp: &mut [u8], at: usize, max: u16) -> bool {
    let Some(&[a, b]) = tcp.get(at..at + 2).and_then(|s| s.first_chunk::<2>()) else { return false };
    let old = u16::from_be_bytes([a, b]);
    if old <= max {
        return false;
    }
    if let Some(value) = tcp.get_mut(at..at + 2) {
        value.copy_from_slice(&max.to_be_bytes());
    }
    // An option may start at an odd place (behind a NOP): then the value's octets lie in two words of the sum, which
    // is the same as both values being swapped.
    let (old, new) = if at.is_multiple_of(2) { (old, max) } else { (old.swap_bytes(), max.swap_bytes()) };
    if let Some(field) = tcp.get_mut(16..18) {
        let checksum = field.first_chunk::<2>().map_or(0, |f| u16::from_be_bytes(*f));
        field.copy_from_slice(&update_checksum(checksum, old, new).to_be_bytes());
    }
    true
}

/// RFC 1624 §3, equation 3: HC' = ~(~HC + ~m + m').
fn update_checksum(checksum: u16, old: u16, new: u16) -> u16 {
    let mut sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Folded, it fits.
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
