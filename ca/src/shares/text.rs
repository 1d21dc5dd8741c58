//! A share as a line that people print, read out and type.
//!
//! `sps1-` and then groups of seven characters of Crockford's Base32 and a check character each. The check character makes
//! the error say *which* group is wrong: a root key makes some fifty groups. It is a weighted sum in GF(2^5), so that one
//! wrong character, and two that changed places, are always found; the group's number goes into it, so that two
//! groups that changed places are, too. Upper and lower case are the same, `O` is zero, `I` and `L` are one, spaces and
//! hyphens stand anywhere.

use zeroize::Zeroizing;

use super::ShareError;

const PREFIX: &str = "sps1";
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters of one group, without its check character.
const GROUP: usize = 7;
/// Longest text that is looked at, in characters: hyphens and spaces after each included.
const MAX_TEXT: usize = 64 * 1024;

/// The line.
pub(super) fn encode(bytes: &[u8]) -> Zeroizing<String> {
    let symbols = Zeroizing::new(symbols(bytes));
    let groups = symbols.len().div_ceil(GROUP);
    let mut out = Zeroizing::new(String::with_capacity(PREFIX.len() + groups * (GROUP + 2)));
    out.push_str(PREFIX);
    for (number, group) in symbols.chunks(GROUP).enumerate() {
        out.push('-');
        group.iter().chain([&check(number, group)]).for_each(|symbol| out.push(character(*symbol)));
    }
    out
}

/// The bytes of the line.
pub(super) fn decode(text: &str) -> Result<Zeroizing<Vec<u8>>, ShareError> {
    if text.len() > MAX_TEXT {
        return Err(ShareError::TooLong);
    }
    let mut given = text.chars().filter(|c| !c.is_whitespace() && *c != '-');
    // The prefix's own letters are no Base32: nothing is read as another character there.
    if !PREFIX.chars().all(|wanted| given.next().is_some_and(|c| c.to_ascii_lowercase() == wanted)) {
        return Err(ShareError::Prefix);
    }
    let mut symbols = Zeroizing::new(Vec::with_capacity(text.len()));
    for (at, c) in given.enumerate() {
        symbols.push(symbol(c).ok_or(ShareError::Character { group: at / (GROUP + 1) + 1, character: c })?);
    }
    let mut bits = Bits { bytes: Zeroizing::new(Vec::with_capacity(symbols.len())), value: 0, len: 0 };
    for (number, group) in symbols.chunks(GROUP + 1).enumerate() {
        match group.split_last() {
            Some((last, data)) if !data.is_empty() && check(number, data) == *last => {
                data.iter().for_each(|s| bits.push(*s))
            }
            _ => return Err(ShareError::Group(number + 1)),
        }
    }
    // What is left is padding: less than a character, and zero. Otherwise the end is missing, as each group is good.
    if bits.len >= 5 || bits.value != 0 {
        return Err(ShareError::Checksum);
    }
    Ok(bits.bytes)
}

/// Bits that come in fives and go in eights.
struct Bits {
    bytes: Zeroizing<Vec<u8>>,
    value: u16,
    len: u32,
}

impl Bits {
    fn push(&mut self, symbol: u8) {
        self.value = self.value << 5 | u16::from(symbol);
        self.len += 5;
        if self.len >= 8 {
            self.len -= 8;
            self.bytes.push((self.value >> self.len) as u8);
            self.value &= (1 << self.len) - 1;
        }
    }
}

/// Bytes in fives of bits, the last filled with zeros.
fn symbols(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut value, mut len) = (0_u16, 0_u32);
    for byte in bytes {
        value = value << 8 | u16::from(*byte);
        len += 8;
        while len >= 5 {
            len -= 5;
            out.push((value >> len) as u8 & 31);
        }
        value &= (1 << len) - 1;
    }
    if len > 0 {
        out.push((value << (5 - len)) as u8 & 31);
    }
    out
}

/// The check character of a group: its number, and each character times its own power of the generator of GF(2^5).
fn check(number: usize, group: &[u8]) -> u8 {
    // Horner's rule: the last character counts times x, the one before it times x^2, and so on.
    let sum = group.iter().fold(0, |sum, symbol| times_x(sum ^ symbol));
    sum ^ (number % 32) as u8
}

/// `a * x` modulo x^5 + x^2 + 1, of which x is a generator.
const fn times_x(a: u8) -> u8 {
    (a << 1 & 31) ^ (5 & (a >> 4).wrapping_neg())
}

/// The character of a symbol. All of the alphabet is read for each, as symbols are secret.
fn character(symbol: u8) -> char {
    let pick = |(at, c): (usize, &u8)| c & equal(at as u8, symbol);
    char::from(ALPHABET.iter().enumerate().map(pick).fold(0, |a, b| a | b))
}

/// The symbol of a character.
fn symbol(c: char) -> Option<u8> {
    let c = match u8::try_from(c).ok()?.to_ascii_uppercase() {
        b'O' => b'0',
        b'I' | b'L' => b'1',
        c => c,
    };
    let pick = |(at, known): (usize, &u8)| (at as u8 | 0x80) & equal(*known, c);
    let found = ALPHABET.iter().enumerate().map(pick).fold(0, |a, b| a | b);
    (found != 0).then_some(found & 31)
}

/// All ones where the two are equal.
fn equal(a: u8, b: u8) -> u8 {
    let differ = u16::from(core::hint::black_box(a ^ b));
    (differ.wrapping_sub(1) >> 8) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn characters_are_those_of_crockfords_alphabet() {
        for (at, c) in ALPHABET.iter().enumerate() {
            assert_eq!(character(at as u8), char::from(*c));
            assert_eq!(symbol(char::from(*c)), Some(at as u8));
            assert_eq!(symbol(char::from(c.to_ascii_lowercase())), Some(at as u8));
        }
        assert_eq!(['o', 'i', 'l', 'O', 'I', 'L'].map(symbol), [0, 1, 1, 0, 1, 1].map(Some));
        assert_eq!(['u', 'U', '=', '\u{131}', '\0'].map(symbol), [None; 5]);
    }

    #[test]
    fn bytes_are_cut_into_fives_from_the_left() {
        // 0xff 0x00: 11111 11100 00000 0(0000).
        assert_eq!(symbols(&[0xff, 0x00]), [31, 28, 0, 0]);
        assert_eq!(symbols(b"hello"), [13, 1, 18, 22, 24, 27, 3, 15]);
        let text = encode(b"hello");
        assert!(text.starts_with("sps1-D1JPRV3") && text.len() == "sps1-D1JPRV3c-Fc".len(), "{}", *text);
    }

    #[test]
    fn each_wrong_character_and_each_swap_is_found_with_its_group() {
        let bytes: Vec<u8> = (0..40_u8).map(|i| i.wrapping_mul(37)).collect();
        let text = encode(&bytes);
        let at_group = |at: usize| (at - 5) / 9 + 1;
        for at in 5..text.len() {
            let old = text.as_bytes()[at];
            if old == b'-' {
                continue;
            }
            for new in ALPHABET.iter().filter(|c| **c != old) {
                let mut wrong = text.as_bytes().to_vec();
                wrong[at] = *new;
                let error = decode(core::str::from_utf8(&wrong).unwrap()).unwrap_err();
                assert_eq!(error, ShareError::Group(at_group(at)));
            }
            let mut wrong = text.as_bytes().to_vec();
            wrong[at] = b'u';
            let error = decode(core::str::from_utf8(&wrong).unwrap()).unwrap_err();
            assert_eq!(error, ShareError::Character { group: at_group(at), character: 'u' });
            for other in at + 1..text.len() {
                if at_group(at) == at_group(other) && text.as_bytes()[other] != b'-' && text.as_bytes()[other] != old {
                    let mut wrong = text.as_bytes().to_vec();
                    wrong.swap(at, other);
                    assert!(decode(core::str::from_utf8(&wrong).unwrap()).is_err());
                }
            }
        }
        let mut groups: Vec<&str> = text.split('-').collect();
        groups.swap(2, 5);
        assert_eq!(decode(&groups.join("-")).unwrap_err(), ShareError::Group(2));
        for missing in 1..groups.len() {
            let mut fewer: Vec<&str> = text.split('-').collect();
            fewer.remove(missing);
            // The last is told by what is in it: padding that is not zero, or the share's checksum.
            assert!(missing == groups.len() - 1 || decode(&fewer.join("-")).is_err());
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back_however_it_is_typed(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = encode(&bytes);
            prop_assert_eq!(&*decode(&text).unwrap(), &bytes);
            let typed = text.to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l");
            let typed = typed.replacen("spsl", "SPS1", 1);
            prop_assert_eq!(&*decode(&typed).unwrap(), &bytes);
            prop_assert_eq!(&*decode(&text.replace('-', "")).unwrap(), &bytes);
        }

        #[test]
        fn nothing_that_is_typed_makes_it_panic(text in "(sps1)?[ -~]{0,80}") {
            let _ = decode(&text);
        }
    }
}
