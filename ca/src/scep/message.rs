//! The attributes of a PKI message (RFC 8894 §3.2.1).

use super::FailInfo;
use crate::cms::{Attribute, Signed};
use crate::der::{self, OCTET_STRING, PRINTABLE_STRING, UTF8_STRING};

/// 2.16.840.1.113733.1.9.N.
pub(super) const MESSAGE_TYPE: u8 = 2;
pub(super) const PKI_STATUS: u8 = 3;
pub(super) const FAIL_INFO: u8 = 4;
pub(super) const SENDER_NONCE: u8 = 5;
pub(super) const RECIPIENT_NONCE: u8 = 6;
pub(super) const TRANSACTION_ID: u8 = 7;
/// id-scep-failInfoText, 1.3.6.1.5.5.7.24.1.
const FAIL_INFO_TEXT: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 24, 1];

pub(super) const CERT_REP: &str = "3";
pub(super) const RENEWAL_REQ: &str = "17";
pub(super) const PKCS_REQ: &str = "19";
pub(super) const CERT_POLL: &str = "20";

pub(super) const SUCCESS: &str = "0";
pub(super) const FAILURE: &str = "2";
pub(super) const PENDING: &str = "3";

/// Octets of a nonce of ours.
pub(super) const NONCE: usize = 16;
/// Octets of a nonce that are read at most.
const MAX_NONCE: usize = 64;
/// Characters of a transaction id, or of a number in text, that are read at most.
const MAX_TEXT: usize = 128;

const fn oid(number: u8) -> [u8; 10] {
    [0x60, 0x86, 0x48, 1, 0x86, 0xf8, 0x45, 1, 9, number]
}

pub(super) fn text(number: u8, value: &str) -> Attribute {
    Attribute { oid: oid(number).to_vec(), value: der::encode(PRINTABLE_STRING, &[value.as_bytes()]) }
}

pub(super) fn octets(number: u8, value: &[u8]) -> Attribute {
    Attribute { oid: oid(number).to_vec(), value: der::encode(OCTET_STRING, &[value]) }
}

pub(super) fn fail_info_text(text: &str) -> Attribute {
    Attribute { oid: FAIL_INFO_TEXT.to_vec(), value: der::encode(UTF8_STRING, &[text.as_bytes()]) }
}

/// A short text of printable ASCII.
pub(super) fn read_text(message: &Signed, number: u8) -> Option<String> {
    let mut value = der::Der::new(message.attribute(&oid(number))?);
    let element =
        value.next().filter(|e| matches!(e.tag, PRINTABLE_STRING | UTF8_STRING | 0x16) && value.is_empty())?;
    let good = (1..=MAX_TEXT).contains(&element.content.len());
    let good = good && element.content.iter().all(|b| b.is_ascii_graphic() || *b == b' ');
    good.then(|| String::from_utf8(element.content.to_vec()).ok())?
}

pub(super) fn read_nonce(message: &Signed, number: u8) -> Option<Vec<u8>> {
    let value = der::only(message.attribute(&oid(number))?, OCTET_STRING)?.content;
    (1..=MAX_NONCE).contains(&value.len()).then(|| value.to_vec())
}

pub(super) fn read_fail_info_text(message: &Signed) -> Option<String> {
    let value = der::only(message.attribute(FAIL_INFO_TEXT)?, UTF8_STRING)?.content;
    Some(crate::name::safe_text(core::str::from_utf8(value).ok()?))
}

impl FailInfo {
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::BadAlg => "0",
            Self::BadMessageCheck => "1",
            Self::BadRequest => "2",
            Self::BadTime => "3",
            Self::BadCertId => "4",
        }
    }

    pub(super) fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|i| i.code() == code)
    }
}
