//! Certificates that ended long ago, in a small form: a machine has a new one each month, and years of them. An entry here is 64
//! octets with its number, and the name, which is kept once however many certificates have it; `benches/scale` measures both forms.
//!
//! What is kept is what somebody may still ask: whether the log ever issued this number and which certificate under it, to whom, until
//! when, and whether it was taken back. Alternative names and texts are in the audit log, which forgets nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use sallyport_ca::crl::Reason;
use sallyport_proto::v1;
use subtle::ConstantTimeEq;

use super::{CertificateRow, ENDED, RowError};
use crate::raft::kv::{Op, Table};

/// First byte of every stored row: the format of what follows (prost).
const FORMAT: u8 = 1;
/// Octets of a certificate's SHA-256 that are kept: as many as gateways know it by.
const TAG: usize = 16;
/// Most octets of a serial number, RFC 5280 §4.1.2.2.
const MAX_SERIAL: usize = 20;

/// A serial number: its octets at the end of the first twenty, then how many there are. Also the stored key, in the same order.
type Packed = [u8; MAX_SERIAL + 1];

fn digit(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    }
}

/// A serial number as records have it; `None` for what is none.
fn pack(serial: &str) -> Option<Packed> {
    let (pairs, []) = serial.as_bytes().as_chunks::<2>() else { return None };
    let empty = MAX_SERIAL.checked_sub(pairs.len()).filter(|_| !pairs.is_empty())?;
    let mut packed = [0; MAX_SERIAL + 1];
    for (octet, [high, low]) in packed.iter_mut().skip(empty).zip(pairs) {
        *octet = digit(*high)? << 4 | digit(*low)?;
    }
    if let Some(length) = packed.last_mut() {
        *length = u8::try_from(pairs.len()).ok()?;
    }
    Some(packed)
}

/// What is stored of one.
#[derive(Clone, PartialEq, prost::Message)]
struct EndedRow {
    /// The name.
    #[prost(string, tag = "1")]
    name: String,
    /// What for.
    #[prost(enumeration = "v1::CertificateProfile", tag = "2")]
    profile: i32,
    /// Number of the issuing authority that signed it; 0 for the root.
    #[prost(uint32, tag = "3")]
    issuer: u32,
    /// Valid until; this and the other times are seconds since 1970.
    #[prost(uint32, tag = "4")]
    not_after_s: u32,
    /// When recorded.
    #[prost(uint32, tag = "5")]
    issued_s: u32,
    /// When revoked; 0 for not.
    #[prost(uint32, tag = "6")]
    revoked_s: u32,
    /// Why revoked, as a number of RFC 5280 §5.3.1.
    #[prost(uint32, tag = "7")]
    code: u32,
    /// Kind of key.
    #[prost(enumeration = "v1::KeyAlgorithm", tag = "8")]
    key_algorithm: i32,
    /// The first octets of the certificate's SHA-256.
    #[prost(bytes = "vec", tag = "9")]
    tag: Vec<u8>,
}

/// The same in memory.
#[derive(Clone, Copy, Debug)]
struct Entry {
    tag: [u8; TAG],
    /// Place of the name among the names.
    name: u32,
    issuer: u32,
    not_after_s: u32,
    issued_s: u32,
    revoked_s: u32,
    profile: u8,
    key_algorithm: u8,
    code: u8,
}

/// What is known of a certificate that ended long ago.
#[derive(Clone, Copy, Debug)]
pub struct EndedCertificate<'a> {
    /// The name.
    pub name: &'a str,
    /// What for.
    pub profile: v1::CertificateProfile,
    /// Number of the issuing authority that signed it; 0 for the root.
    pub issuer: u64,
    /// Kind of key.
    pub key_algorithm: v1::KeyAlgorithm,
    /// When recorded, log's time; this and the other times to the second.
    pub issued_ms: u64,
    /// Valid until.
    pub not_after_ms: u64,
    /// When revoked; 0 for not.
    pub revoked_ms: u64,
    /// Why.
    pub reason: Reason,
    /// The first 16 octets of the certificate's SHA-256.
    pub tag: &'a [u8],
}

impl EndedCertificate<'_> {
    /// Whether it is the one with this SHA-256.
    pub fn has(&self, fingerprint: &[u8]) -> bool {
        fingerprint.get(..TAG).is_some_and(|tag| bool::from(self.tag.ct_eq(tag)))
    }
}

/// Each name once, however many certificates have it.
#[derive(Debug, Default)]
struct Names {
    by_place: Vec<Arc<str>>,
    place_of: BTreeMap<Arc<str>, u32>,
}

impl Names {
    fn place(&mut self, name: &str) -> Option<u32> {
        if let Some(place) = self.place_of.get(name) {
            return Some(*place);
        }
        let (place, name): (u32, Arc<str>) = (self.by_place.len().try_into().ok()?, name.into());
        self.by_place.push(name.clone());
        self.place_of.insert(name, place);
        Some(place)
    }

    fn at(&self, place: u32) -> &str {
        self.by_place.get(place as usize).map_or("", |name| name)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Ended {
    entries: BTreeMap<Packed, Entry>,
    names: Names,
    /// Those that are on their way to the store.
    fresh: Vec<Packed>,
}

fn seconds(ms: u64) -> u32 {
    u32::try_from(ms / 1_000).unwrap_or(u32::MAX)
}

impl Ended {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether one of this serial number is here.
    pub fn contains(&self, serial: &str) -> bool {
        pack(serial).is_some_and(|packed| self.entries.contains_key(&packed))
    }

    /// What is known of the one with this serial number.
    pub fn get(&self, serial: &str) -> Option<EndedCertificate<'_>> {
        let entry = self.entries.get(&pack(serial)?)?;
        let ms = |seconds: u32| u64::from(seconds) * 1_000;
        Some(EndedCertificate {
            name: self.names.at(entry.name),
            profile: i32::from(entry.profile).try_into().unwrap_or_default(),
            issuer: entry.issuer.into(),
            key_algorithm: i32::from(entry.key_algorithm).try_into().unwrap_or_default(),
            issued_ms: ms(entry.issued_s),
            not_after_ms: ms(entry.not_after_s),
            revoked_ms: ms(entry.revoked_s),
            reason: Reason::from_code(entry.code).unwrap_or_default(),
            tag: &entry.tag,
        })
    }

    /// Whether a record has a small form.
    pub(super) fn takes(row: &CertificateRow) -> bool {
        pack(&row.serial).is_some()
            && u32::try_from(row.issuer).is_ok()
            && u8::try_from(row.profile).is_ok()
            && u8::try_from(row.key_algorithm).is_ok()
    }

    /// Takes in a record.
    pub(super) fn insert(&mut self, row: &CertificateRow) -> bool {
        let mut tag: Vec<u8> = row.fingerprint.iter().copied().take(TAG).collect();
        tag.resize(TAG, 0);
        let stored = EndedRow {
            name: row.name.clone(),
            profile: row.profile,
            issuer: u32::try_from(row.issuer).unwrap_or_default(),
            not_after_s: seconds(row.not_after_ms),
            issued_s: seconds(row.issued_ms),
            // 0 says "not revoked".
            revoked_s: if row.revoked_ms == 0 { 0 } else { seconds(row.revoked_ms).max(1) },
            code: if row.revoked_ms == 0 { 0 } else { row.told_reason().code().into() },
            key_algorithm: row.key_algorithm,
            tag,
        };
        let Some(packed) = pack(&row.serial).filter(|packed| self.put(*packed, &stored)) else { return false };
        self.fresh.push(packed);
        true
    }

    fn put(&mut self, packed: Packed, row: &EndedRow) -> bool {
        let entry = || {
            Some(Entry {
                tag: row.tag.as_slice().try_into().ok()?,
                name: 0,
                issuer: row.issuer,
                not_after_s: row.not_after_s,
                issued_s: row.issued_s,
                revoked_s: row.revoked_s,
                profile: row.profile.try_into().ok()?,
                key_algorithm: row.key_algorithm.try_into().ok()?,
                code: row.code.try_into().ok()?,
            })
        };
        let Some(entry) = entry() else { return false };
        let Some(name) = self.names.place(&row.name) else { return false };
        self.entries.insert(packed, Entry { name, ..entry });
        true
    }

    fn stored(&self, packed: &Packed, entry: &Entry) -> (Vec<u8>, Vec<u8>) {
        let row = EndedRow {
            name: self.names.at(entry.name).to_owned(),
            profile: entry.profile.into(),
            issuer: entry.issuer,
            not_after_s: entry.not_after_s,
            issued_s: entry.issued_s,
            revoked_s: entry.revoked_s,
            code: entry.code.into(),
            key_algorithm: entry.key_algorithm.into(),
            tag: entry.tag.to_vec(),
        };
        ([&[ENDED][..], packed].concat(), [&[FORMAT][..], &row.encode_to_vec()].concat())
    }

    /// What changed since the last call, as storage operations.
    pub(super) fn take_changes(&mut self, ops: &mut Vec<Op>) {
        for packed in std::mem::take(&mut self.fresh) {
            if let Some(entry) = self.entries.get(&packed) {
                let (key, value) = self.stored(&packed, entry);
                ops.push(Op::Put(Table::State, key, value));
            }
        }
    }

    /// Each row as stored.
    pub(super) fn each_row<E>(&self, each: &mut impl FnMut(Vec<u8>, Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        self.entries.iter().try_for_each(|(packed, entry)| {
            let (key, value) = self.stored(packed, entry);
            each(key, value)
        })
    }

    /// Takes in a stored row, `key` without the table's number.
    pub(super) fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), RowError> {
        let damaged = || RowError::Damaged(ENDED);
        let row = match value.split_first() {
            Some((&FORMAT, rest)) => EndedRow::decode(rest).map_err(|_| damaged())?,
            Some((&other, _)) => return Err(RowError::Format(other)),
            None => return Err(damaged()),
        };
        let packed = key.try_into().map_err(|_| damaged())?;
        if self.put(packed, &row) { Ok(()) } else { Err(damaged()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_is_found_as_it_is_written_and_no_other_is() {
        for serial in ["00", "01", "0001", "a1", &"7f".repeat(20)] {
            let mut ended = Ended::default();
            let row = CertificateRow { serial: serial.into(), name: "a".into(), ..CertificateRow::default() };
            assert!(Ended::takes(&row) && ended.insert(&row));
            for other in ["00", "01", "0001", "a1", &"7f".repeat(20)] {
                assert_eq!(ended.contains(other), other == serial, "{serial} {other}");
            }
        }
        for serial in ["", "1", "A1", "r00t", "a1:b2", "\u{e4}", &"7f".repeat(21)] {
            assert!(pack(serial).is_none(), "{serial}");
        }
    }

    #[test]
    fn rows_come_in_the_order_of_their_keys_and_come_back_as_they_were() {
        let mut ended = Ended::default();
        for serial in ["ff", "0100", "02", "7f00000000000000000000000000000000000000"] {
            let (serial, name, fingerprint) = (serial.into(), "a.example.com".into(), vec![7; 32]);
            let row = CertificateRow { serial, name, fingerprint, revoked_ms: 1, ..CertificateRow::default() };
            assert!(ended.insert(&row));
        }
        let rows = |ended: &Ended| {
            let mut rows = Vec::new();
            let all: Result<(), ()> = ended.each_row(&mut |key, value| {
                rows.push((key, value));
                Ok(())
            });
            all.expect("none fails");
            rows
        };
        let stored = rows(&ended);
        assert!(stored.is_sorted() && stored.len() == 4);
        let mut ops = Vec::new();
        ended.take_changes(&mut ops);
        assert_eq!(ops.len(), 4);
        let mut again = Ended::default();
        for (key, value) in &stored {
            again.load(&key[1..], value).expect("loads");
        }
        assert_eq!(rows(&again), stored);
        assert_eq!(again.names.by_place.len(), 1, "a name once");
        let one = again.get("0100").expect("there");
        assert!(one.has(&[7; 32]) && !one.has(&[8; 32]) && !one.has(&[7; 15]), "by its first octets");
        assert_eq!((one.name, one.revoked_ms), ("a.example.com", 1_000), "revoked, however early");
        for (key, value) in [(&[1; 20][..], &stored[0].1[..]), (&[1; 21], &[][..]), (&[1; 21], &[2]), (&[1; 21], &[1])]
        {
            assert!(again.load(key, value).is_err(), "{key:?} {value:?}");
        }
    }
}
