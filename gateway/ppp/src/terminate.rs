//! Why a client hangs up, as far as its Terminate-Request says.

use crate::auth::printable;

/// What Windows puts behind its magic number in a Terminate-Request, in front of the error number.
const WINDOWS_MARK: [u8; 4] = [0x00, 0x3c, 0xcd, 0x74];

/// The data of a Terminate-Request in words: Windows sends its magic number, a mark and an error number, others text.
/// `None` says nothing.
pub fn terminate_reason(data: &[u8]) -> Option<String> {
    if let [_, _, _, _, mark @ .., a, b, c, d] = data
        && *mark == WINDOWS_MARK
    {
        let error = u32::from_be_bytes([*a, *b, *c, *d]);
        return Some(match error {
            0 => "the user disconnected (Windows)".into(),
            _ => format!("Windows error {error}: {}", windows_error(error)),
        });
    }
    let text = printable(data);
    let readable = !text.trim().is_empty() && !text.contains('\u{fffd}');
    readable.then(|| text.trim().to_owned())
}

/// What the error numbers of Windows' remote access mean, as far as a PPP peer makes them happen.
pub const fn windows_error(error: u32) -> &'static str {
    match error {
        619 => "the port was disconnected",
        628 => "the connection was closed before it was complete",
        629 => "the link was disconnected by the remote computer",
        631 => "the user disconnected",
        691 => "wrong user name or password, or the method is not allowed",
        718 => "no timely PPP response from the server",
        720 => "no network protocol could be agreed on",
        721 => "the server does not respond",
        732 => "the negotiation of a protocol does not converge",
        733 => "a network protocol is not available at the server",
        734 => "the link control protocol was terminated",
        735 => "the requested address was rejected by the server",
        736 => "the remote computer terminated the network protocol",
        738 => "the server did not assign an address",
        741 => "the client requires encryption, which the server does not offer",
        742 => "the server requires encryption, which the client does not offer",
        778 => "the server could not prove its identity",
        812 => "refused by the server's policy",
        828 => "the connection was idle for too long",
        _ => "see Microsoft's list of RAS error codes",
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    #[test]
    fn windows_error_numbers_are_put_into_words() {
        let words = terminate_reason(&hex!("1a2b3c4d 003ccd74 000002dc"));
        assert_eq!(words.as_deref(), Some("Windows error 732: the negotiation of a protocol does not converge"));
        let words = terminate_reason(&hex!("1a2b3c4d 003ccd74 00000000"));
        assert_eq!(words.as_deref(), Some("the user disconnected (Windows)"));
        assert!(terminate_reason(&hex!("1a2b3c4d 003ccd74 0000ffff")).unwrap().contains("65535"));
    }

    #[test]
    fn text_is_taken_and_octets_are_not() {
        assert_eq!(terminate_reason(b"User request").as_deref(), Some("User request"));
        assert_eq!(
            terminate_reason(b"No network protocols running\0").as_deref(),
            Some("No network protocols running")
        );
        assert_eq!(terminate_reason(&hex!("01020304ff")), None);
        assert_eq!(terminate_reason(b""), None);
    }
}
