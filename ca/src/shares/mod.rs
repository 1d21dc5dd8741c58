//! Shamir's secret sharing over GF(2^8): a root key leaves the cluster as `n` shares, any `k` of which give it back, while
//! fewer say nothing about it.
//!
//! What is shared is 32 random octets and then the secret, each octet by a polynomial of its own (as draft-mcgrew-tss-03 §3
//! does it). The digest of both stands in each share: it says whether a combination is right, and because of the random octets
//! it does not help who guesses the secret.
//!
//! ```text
//! | format (1) = 1 | set (8) | k (1) | index (1) | digest (32) | value: 32 + the secret's length | checksum (4) |
//! ```
//!
//! The checksum is the start of a SHA-256: it finds what was damaged, not what was forged. A share that was made up with a good
//! checksum shows in the digest; *which* it is can be told only where more than `k` shares are given.
//!
//! ```
//! use sallyport_ca::{SystemRandom, shares};
//! let all = shares::split(b"the key", 2, 3, &SystemRandom::new()).unwrap();
//! let printed: Vec<String> = all.iter().map(|share| share.to_text().to_string()).collect();
//! let typed = [&printed[2], &printed[0]].map(|text| shares::Share::parse(text).unwrap());
//! assert_eq!(shares::combine(&typed).unwrap().as_slice(), b"the key");
//! ```

mod field;
#[cfg(test)]
mod tests;
mod text;

use core::fmt;

use ring::digest;
use ring::rand::SecureRandom;
use zeroize::Zeroizing;

use self::field::{mul, weight};

/// Longest secret, octets: an RSA-4096 key in PKCS #8 has 2,400.
pub const MAX_SECRET: usize = 8 * 1024;

const FORMAT: u8 = 1;
const SET: usize = 8;
const DIGEST: usize = 32;
const BLIND: usize = 32;
const CHECKSUM: usize = 4;
const HEADER: usize = 1 + SET + 1 + 1 + DIGEST;
/// How many selections of `k` shares are tried at most to find out which share is wrong.
const MAX_TRIES: usize = 2_000;

/// Why a secret is not shared, or not given back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// 2 ≤ k ≤ n ≤ 255 does not hold.
    #[error("{k} of {n} cannot be: at least 2 shares must be needed, and there are at most 255")]
    Numbers {
        /// Shares that would be needed.
        k: u8,
        /// Shares that would be made.
        n: u8,
    },
    /// The secret is empty or longer than [`MAX_SECRET`].
    #[error("a secret of 1 to {MAX_SECRET} octets can be shared")]
    SecretLength,
    /// The random source failed.
    #[error("the random source failed")]
    Random,
    /// The text does not begin as a share does.
    #[error("this is no share: a share begins with `sps1-`")]
    Prefix,
    /// The text is longer than any share.
    #[error("this is no share: it is too long; give one share a line")]
    TooLong,
    /// A character that is in no share.
    #[error("group {group} has {character:?}, which is in no share")]
    Character {
        /// The group, counted from 1 behind the prefix.
        group: usize,
        /// The character.
        character: char,
    },
    /// A group that was mistyped, is incomplete or not in its place.
    #[error("group {0} is mistyped, incomplete or not in its place")]
    Group(usize),
    /// All groups are good, but the share is not whole.
    #[error("the share is not whole: groups are missing at its end, or it was damaged where it was kept")]
    Checksum,
    /// A share of a later version of this software.
    #[error("a share of a format that this version does not know ({0})")]
    Format(u8),
    /// Values that no share has, with a good checksum.
    #[error("a share with values that no share has")]
    Values,
    /// Shares of different secrets, or of two exports of one secret.
    #[error("the shares are not of one set: set {set} is not that of the others ({others})")]
    OtherSet {
        /// The odd one.
        set: SetId,
        /// What most of them have, or the first.
        others: SetId,
    },
    /// Two different shares claim one index.
    #[error("two different shares have the number {0}: one of them is wrong or forged")]
    Twice(u8),
    /// Fewer shares than it takes.
    #[error("{given} of the {needed} shares that are needed")]
    TooFew {
        /// Different shares that were given.
        given: usize,
        /// Shares that are needed.
        needed: u8,
    },
    /// The combination does not give the secret, and which share is wrong cannot be known.
    #[error("at least one of these shares is wrong or forged; give one more to find out which")]
    Wrong,
    /// The combination does not give the secret because of these shares.
    #[error("wrong or forged: share {}; leave out", list(.0))]
    WrongShares(Vec<u8>),
}

fn list(indices: &[u8]) -> String {
    indices.iter().map(u8::to_string).collect::<Vec<_>>().join(", ")
}

/// Names the shares of one export.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub [u8; SET]);

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One share. It is as secret as the secret, divided by `k`.
#[derive(Clone)]
pub struct Share {
    set: SetId,
    k: u8,
    index: u8,
    digest: [u8; DIGEST],
    value: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share(set {}, number {}, {} needed, ..)", self.set, self.index, self.k)
    }
}

impl Share {
    /// Which export it is of.
    pub const fn set(&self) -> SetId {
        self.set
    }

    /// Its number, 1 to 255.
    pub const fn index(&self) -> u8 {
        self.index
    }

    /// How many shares give the secret.
    pub const fn needed(&self) -> u8 {
        self.k
    }

    /// One line for people, which [`Self::parse`] reads.
    pub fn to_text(&self) -> Zeroizing<String> {
        text::encode(&self.to_bytes())
    }

    /// Reads what [`Self::to_text`] made, in any case and with spaces and hyphens anywhere. The error says what is wrong with it;
    /// of what was given it shows at most a character that no share has.
    pub fn parse(text: &str) -> Result<Self, ShareError> {
        let bytes = text::decode(text)?;
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(ShareError::Checksum)?;
        if checksum(body) != *sum {
            return Err(ShareError::Checksum);
        }
        let (&[format], rest) = body.split_first_chunk().ok_or(ShareError::Values)?;
        if format != FORMAT {
            return Err(ShareError::Format(format));
        }
        let (set, rest) = rest.split_first_chunk().ok_or(ShareError::Values)?;
        let (&[k, index], rest) = rest.split_first_chunk().ok_or(ShareError::Values)?;
        let (digest, value) = rest.split_first_chunk().ok_or(ShareError::Values)?;
        if k < 2 || index == 0 || !(BLIND + 1..=BLIND + MAX_SECRET).contains(&value.len()) {
            return Err(ShareError::Values);
        }
        Ok(Self { set: SetId(*set), k, index, digest: *digest, value: Zeroizing::new(value.to_vec()) })
    }

    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(HEADER + self.value.len() + CHECKSUM));
        out.push(FORMAT);
        out.extend_from_slice(&self.set.0);
        out.extend_from_slice(&[self.k, self.index]);
        out.extend_from_slice(&self.digest);
        out.extend_from_slice(&self.value);
        let sum = checksum(&out);
        out.extend_from_slice(&sum);
        out
    }

    /// Whether the two can be of one export.
    fn fits(&self, other: &Self) -> bool {
        let facts = |s: &Self| (s.set, s.k, s.digest, s.value.len());
        facts(self) == facts(other)
    }
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"sallyport share v1 checksum");
    context.update(body);
    context.finish().as_ref().first_chunk().copied().unwrap_or_default()
}

/// What says that a combination is right: the set and how many are needed are in it, so that nobody lowers that number.
fn commitment(set: SetId, k: u8, shared: &[u8]) -> [u8; DIGEST] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"sallyport share v1 secret");
    context.update(&set.0);
    context.update(&[k]);
    context.update(shared);
    context.finish().as_ref().first_chunk().copied().unwrap_or_default()
}

/// Shares a secret: `n` shares, any `k` of which give it back.
pub fn split(secret: &[u8], k: u8, n: u8, rng: &dyn SecureRandom) -> Result<Vec<Share>, ShareError> {
    if k < 2 || k > n {
        return Err(ShareError::Numbers { k, n });
    }
    if secret.is_empty() || secret.len() > MAX_SECRET {
        return Err(ShareError::SecretLength);
    }
    let mut set = SetId([0; SET]);
    rng.fill(&mut set.0).map_err(|_| ShareError::Random)?;
    let mut shared = Zeroizing::new(vec![0; BLIND + secret.len()]);
    let (blind, rest) = shared.split_at_mut(BLIND);
    rng.fill(blind).map_err(|_| ShareError::Random)?;
    rest.copy_from_slice(secret);
    let mut coefficients = Zeroizing::new(vec![0; shared.len() * usize::from(k - 1)]);
    rng.fill(&mut coefficients).map_err(|_| ShareError::Random)?;
    let digest = commitment(set, k, &shared);
    let share = |index| Share { set, k, index, digest, value: evaluate(&shared, &coefficients, index) };
    Ok((1..=n).map(share).collect())
}

/// The polynomials at `x`: the octets of `shared` are their constant terms, then come the coefficients of x, of x^2 and so on,
/// as many each.
fn evaluate(shared: &[u8], coefficients: &[u8], x: u8) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(vec![0; shared.len()]);
    for term in coefficients.chunks(shared.len()).rev().chain([shared]) {
        out.iter_mut().zip(term).for_each(|(sum, c)| *sum = mul(*sum, x) ^ c);
    }
    out
}

/// The secret of at least `k` shares of one export, in any order; the same share twice counts once.
pub fn combine(shares: &[Share]) -> Result<Zeroizing<Vec<u8>>, ShareError> {
    let shares = of_one_set(shares)?;
    let needed = shares.first().map_or(2, |s| s.k);
    let k = usize::from(needed);
    let Some(first) = shares.get(..k) else {
        return Err(ShareError::TooFew { given: shares.len(), needed });
    };
    match interpolate(first) {
        // What was given beyond the k is held against them: a bad share must not lie about until it is needed.
        Some(shared) => {
            let wrong = strangers(first, &shares);
            match (wrong.is_empty(), shared.get(BLIND..)) {
                (true, Some(secret)) => Ok(Zeroizing::new(secret.to_vec())),
                _ => Err(ShareError::WrongShares(wrong)),
            }
        }
        None => Err(match good_selection(&shares, k) {
            Some(good) => ShareError::WrongShares(strangers(&good, &shares)),
            None => ShareError::Wrong,
        }),
    }
}

/// The different shares, if they can be of one export.
fn of_one_set(shares: &[Share]) -> Result<Vec<&Share>, ShareError> {
    let alike = |share: &&Share| shares.iter().filter(|other| other.fits(share)).count();
    // The first of those that most of the others fit.
    let Some(usual) = shares.iter().rev().max_by_key(alike) else {
        return Err(ShareError::TooFew { given: 0, needed: 2 });
    };
    let mut out: Vec<&Share> = Vec::with_capacity(shares.len());
    for share in shares {
        if !share.fits(usual) {
            return Err(match share.set == usual.set {
                true => ShareError::WrongShares(vec![share.index]),
                false => ShareError::OtherSet { set: share.set, others: usual.set },
            });
        }
        match out.iter().find(|known| known.index == share.index) {
            Some(known) if known.value != share.value => return Err(ShareError::Twice(share.index)),
            Some(_) => {}
            None => out.push(share),
        }
    }
    Ok(out)
}

/// The value at `x` of the polynomials through these shares.
fn value_at(shares: &[&Share], x: u8) -> Zeroizing<Vec<u8>> {
    let indices: Vec<u8> = shares.iter().map(|s| s.index).collect();
    let mut out = Zeroizing::new(vec![0; shares.first().map_or(0, |s| s.value.len())]);
    for share in shares {
        let weight = weight(&indices, share.index, x);
        out.iter_mut().zip(share.value.iter()).for_each(|(sum, v)| *sum ^= mul(weight, *v));
    }
    out
}

/// What `k` shares give, if it is what was shared.
fn interpolate(shares: &[&Share]) -> Option<Zeroizing<Vec<u8>>> {
    let first = shares.first()?;
    let shared = value_at(shares, 0);
    (commitment(first.set, first.k, &shared) == first.digest).then_some(shared)
}

/// The numbers of the shares that are not on the polynomials of `good`.
fn strangers(good: &[&Share], shares: &[&Share]) -> Vec<u8> {
    let wrong = shares.iter().filter(|share| value_at(good, share.index) != share.value);
    wrong.map(|share| share.index).collect()
}

/// Some `k` of the shares that give the secret, if there are more than `k` and few enough selections.
fn good_selection<'s>(shares: &[&'s Share], k: usize) -> Option<Vec<&'s Share>> {
    let mut at: Vec<usize> = (0..k).collect();
    for _ in 0..MAX_TRIES {
        let selection: Vec<&Share> = at.iter().filter_map(|i| shares.get(*i).copied()).collect();
        if interpolate(&selection).is_some() {
            return Some(selection);
        }
        // The next selection in lexical order: the last place that can go forward does, those behind it follow closely.
        let place = (0..k).rev().find(|p| at.get(*p).is_some_and(|i| *i < shares.len() - k + p))?;
        let next = at.get(place)? + 1;
        at.iter_mut().skip(place).enumerate().for_each(|(step, i)| *i = next + step);
    }
    None
}
