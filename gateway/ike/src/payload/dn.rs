//! Distinguished names as text, for records and lists only: nothing is decided here.

use core::fmt;

use sallyport_base::{DecodeError, Reader};

/// Most attributes that are shown of one name.
const MAX_ATTRIBUTES: usize = 24;

/// Reads one DER element: its tag and its content.
fn element<'a>(r: &mut Reader<'a>) -> Result<(u8, Reader<'a>), DecodeError> {
    let tag = r.u8("DER tag")?;
    let first = r.u8("DER length")?;
    let len = match first {
        0..=0x7f => usize::from(first),
        0x81 => usize::from(r.u8("DER length")?),
        0x82 => usize::from(r.u16("DER length")?),
        _ => return Err(DecodeError::Value("DER length", u64::from(first))),
    };
    Ok((tag, r.sub("DER element", len)?))
}

/// The short names of RFC 4514 §3 and those that machine certificates carry besides.
fn short_name(oid: &[u8]) -> Option<&'static str> {
    Some(match oid {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 4] => "SN",
        [0x55, 4, 5] => "serialNumber",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 9] => "street",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x55, 4, 12] => "title",
        [0x55, 4, 42] => "GN",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => "UID",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => "DC",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1] => "E",
        _ => return None,
    })
}

fn try_name(f: &mut String, der: &[u8]) -> Result<(), DecodeError> {
    let mut r = Reader::new(der);
    let (_, mut rdns) = element(&mut r)?;
    let mut n = 0;
    while !rdns.is_empty() && n < MAX_ATTRIBUTES {
        let (_, mut set) = element(&mut rdns)?;
        let mut first = true;
        while !set.is_empty() && n < MAX_ATTRIBUTES {
            let (_, mut pair) = element(&mut set)?;
            let (_, mut oid) = element(&mut pair)?;
            let (tag, mut value) = element(&mut pair)?;
            if n > 0 {
                f.push_str(if first { ", " } else { "+" });
            }
            first = false;
            n += 1;
            match short_name(oid.peek()) {
                Some(s) => f.push_str(s),
                None => {
                    f.push_str("oid:");
                    for b in oid.rest() {
                        f.push_str(&format!("{b:02x}"));
                    }
                }
            }
            f.push('=');
            let bytes = value.rest();
            if tag == 0x1e {
                // BMPString: two bytes a character
                let units = bytes.chunks_exact(2).map(|c| u16::from_be_bytes([c[0], c[1]]));
                f.extend(char::decode_utf16(units).map(|c| c.unwrap_or('?')).map(printable));
            } else {
                f.extend(String::from_utf8_lossy(bytes).chars().map(printable));
            }
        }
    }
    Ok(())
}

/// Keeps control characters and separators of a peer's choice out of logs.
fn printable(c: char) -> char {
    if c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c) { '?' } else { c }
}

/// Shows the DER name `der`, `CN=laptop, O=Example`; as hexadecimal if it is none.
pub(crate) fn fmt_name(f: &mut fmt::Formatter<'_>, der: &[u8]) -> fmt::Result {
    let mut text = String::new();
    match try_name(&mut text, der) {
        Ok(()) if text.is_empty() => f.write_str("(empty name)"),
        Ok(()) => f.write_str(&text),
        Err(_) => super::hex(f, der),
    }
}

/// A DER name that shows itself as text.
pub struct DerName<'a>(pub &'a [u8]);

impl fmt::Display for DerName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_name(f, self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    #[test]
    fn a_name_is_shown_in_its_order() {
        // SEQUENCE { SET { SEQUENCE { C, PrintableString "CH" } }, SET { SEQUENCE { CN, UTF8String "a b" } } }
        let der = hex!("301b 310b 3009 0603550406 13024348 310c 300a 0603550403 0c03612062");
        assert_eq!(DerName(&der).to_string(), "C=CH, CN=a b");
        assert_eq!(DerName(&[0x30, 0]).to_string(), "(empty name)");
        assert_eq!(DerName(&[0x30, 5, 1]).to_string(), "300501");
    }
}
