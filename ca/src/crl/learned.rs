//! What a reader knows to be revoked. It only adds up, in memory and where it is kept.
//!
//! A list that comes later need not say more: whoever was removed may carry one of the time before, with a good signature. So a
//! list takes the place of others only where each of their certificates is on one that stays; otherwise they are kept beside
//! each other, and what is known is all that is on any of them.
//!
//! An authority below a root is refused only by what a root itself has signed: else whoever has stolen the key of one could have the others
//! refused, and with them all whom they have certified. Once a root has said so, the lists that this authority has signed are forgotten.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use super::signers::{self, MAX_SIGNERS};
use super::{CONTROLLERS, RevocationList};
use crate::der::{Der, SEQUENCE};
use crate::{Certificate, Error, Serial, UnixTime, pem};

/// Serial numbers that one reader keeps.
const MAX_SERIALS: usize = 65_536;
/// Lists that one reader keeps beside each other. Lists of one authority differ by what was revoked between them and by what has
/// expired, so there is one more at most each time that a certificate is revoked after another has expired.
pub const MAX_LISTS: usize = 16;
/// Lists that are looked at in what one controller says: what another reader has kept, and the newest.
const MAX_TAKEN: usize = 2 * MAX_LISTS;

/// What a reader has learned from lists.
#[derive(Debug, Default)]
pub struct Revocations {
    authorities: RwLock<Vec<Vec<u8>>>,
    learned: RwLock<Learned>,
}

#[derive(Debug, Default)]
struct Learned {
    serials: BTreeSet<Serial>,
    /// Those of them that a root has named itself.
    by_root: BTreeSet<Serial>,
    /// Lists that name all of them: on each is at least one that is on no other.
    lists: Vec<Kept>,
}

#[derive(Debug)]
struct Kept {
    der: Vec<u8>,
    /// What is between its signer and a root, the signer first; empty where a root has signed it.
    signers: Vec<Vec<u8>>,
    list: RevocationList,
}

impl Revocations {
    /// Of one that trusts the authorities in a PEM text.
    pub fn trusting(authorities: &[u8]) -> Result<Self, Error> {
        Ok(Self { authorities: RwLock::new(pem::certificates(authorities)?), learned: RwLock::default() })
    }

    /// Trusts these roots (DER) from now on. What was learned stays.
    pub fn trust(&self, roots: Vec<Vec<u8>>) {
        *self.authorities.write().unwrap_or_else(PoisonError::into_inner) = roots;
    }

    fn roots(&self) -> Vec<Vec<u8>> {
        self.authorities.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes up a list in DER; gives the certificates that were not known to be revoked.
    pub fn take(&self, der: &[u8]) -> Result<Vec<Serial>, Error> {
        self.take_signed(der, &[])
    }

    /// The same of a list that a root has signed, or one of these authorities below a root.
    fn take_signed(&self, der: &[u8], given: &[Vec<u8>]) -> Result<Vec<Serial>, Error> {
        let (list, signers) = match RevocationList::verify(der, &self.roots()) {
            Ok(list) => (list, Vec::new()),
            Err(error) => self.signed_below(der, given).ok_or(error)?,
        };
        // The authorities' public lists may be long, and say nothing about controllers: they would only fill this one up.
        if list.scope != CONTROLLERS {
            return Err(Error::RevocationList("it is not about controllers"));
        }
        let mut learned = self.learned.write().unwrap_or_else(PoisonError::into_inner);
        let (mut news, mut of_root) = (Vec::new(), false);
        for serial in list.revoked.keys() {
            if learned.serials.len() < MAX_SERIALS && learned.serials.insert(serial.clone()) {
                news.push(serial.clone());
            }
            if signers.is_empty() && learned.by_root.len() < MAX_SERIALS {
                of_root |= learned.by_root.insert(serial.clone());
            }
        }
        learned.keep(Kept { der: der.to_vec(), signers, list });
        if of_root {
            learned.forget_lists_of_the_refused();
        }
        Ok(news)
    }

    /// A list that one of these authorities has signed, and the path from it to a root.
    fn signed_below(&self, der: &[u8], given: &[Vec<u8>]) -> Option<(RevocationList, Vec<Vec<u8>>)> {
        RevocationList::verify(der, given).ok()?;
        given.iter().find_map(|signer| {
            let list = RevocationList::verify(der, std::slice::from_ref(signer)).ok()?;
            let path = signers::path(signer, given, &self.roots())?;
            // Who is taken back says nothing any more.
            path.iter().all(|above| self.refuses_authority(above).is_none()).then_some(())?;
            Some((list, path.into_iter().map(<[u8]>::to_vec).collect()))
        })
    }

    /// Takes up what [`Self::lists`] gave, or a controller: lists, and certificates of authorities below the roots that have signed
    /// some of them, in DER, one behind the other. Of what is damaged, or of another authority, the rest is taken; the error is that
    /// of the first list that was not.
    pub fn take_all(&self, lists: &[u8]) -> Result<Vec<Serial>, Error> {
        let (mut der, mut news, mut broken) = (Der::new(lists), Vec::new(), None);
        let (mut given, mut all) = (Vec::new(), Vec::new());
        while !der.is_empty() {
            let Some(element) = der.expect(SEQUENCE) else {
                broken = Some(Error::RevocationList("it is none in DER"));
                break;
            };
            match signers::is_certificate(element.whole) {
                true if given.len() < MAX_SIGNERS => given.push(element.whole.to_vec()),
                false if all.len() < MAX_TAKEN => all.push(element.whole),
                _ => {
                    broken = Some(Error::RevocationList("there are too many lists or certificates at a time"));
                    break;
                }
            }
        }
        for list in all {
            match self.take_signed(list, &given) {
                Ok(more) => news.extend(more),
                Err(error) => drop(broken.get_or_insert(error)),
            }
        }
        broken.map_or(Ok(news), Err)
    }

    /// The lists that together name all that is known to be revoked, and before them the certificates between the signers and the
    /// roots, in DER, one behind the other; empty where nothing is. At most
    /// [`MAX_LISTS`]: beyond that the one goes whose certificates were revoked longest ago, as they expire first.
    pub fn lists(&self) -> Vec<u8> {
        let learned = self.learned.read().unwrap_or_else(PoisonError::into_inner);
        let mut signers: Vec<&Vec<u8>> = Vec::new();
        for signer in learned.lists.iter().flat_map(|kept| &kept.signers) {
            if !signers.contains(&signer) {
                signers.push(signer);
            }
        }
        let lists = learned.lists.iter().map(|kept| &kept.der);
        signers.into_iter().chain(lists).flat_map(|der| der.iter().copied()).collect()
    }

    /// The serial number of a certificate in DER, if it is revoked. What is no certificate counts as one without a number.
    pub fn refuses(&self, certificate: &[u8]) -> Option<Serial> {
        let learned = self.learned.read().unwrap_or_else(PoisonError::into_inner);
        if learned.serials.is_empty() {
            return None;
        }
        let serial = Certificate::from_der(certificate).map_or_else(|_| Serial::from_be_bytes(&[]), |c| c.serial);
        let listed = learned.serials.contains(&serial) || learned.by_root.contains(&serial);
        (serial.as_be_bytes().is_empty() || listed).then_some(serial)
    }

    /// The same of an authority's: only what a root has signed itself counts.
    pub fn refuses_authority(&self, certificate: &[u8]) -> Option<Serial> {
        let learned = self.learned.read().unwrap_or_else(PoisonError::into_inner);
        learned.refuses_authority(certificate)
    }

    /// What judges the authorities (certificates in DER) between such servers and a root.
    pub fn judge_authority(&self, certificate: &[u8]) -> Result<(), String> {
        match self.refuses_authority(certificate) {
            None => Ok(()),
            Some(serial) => Err(format!(
                "who answers there is below an authority that is revoked (serial number {serial}): its key may be in other hands"
            )),
        }
    }

    /// What judges the certificates (DER) of servers that should be controllers; `remedy` ends the sentence that refuses one.
    pub fn judge(
        self: &Arc<Self>,
        remedy: &'static str,
    ) -> impl Fn(&[u8]) -> Result<(), String> + Send + Sync + 'static {
        let known = self.clone();
        move |certificate| match known.refuses(certificate) {
            None => Ok(()),
            Some(serial) => Err(format!(
                "who answers there was a controller and is none any more: its certificate (serial number {serial}) is revoked{remedy}"
            )),
        }
    }
}

impl Kept {
    fn is_of_root(&self) -> bool {
        self.signers.is_empty()
    }
}

impl Learned {
    fn refuses_authority(&self, certificate: &[u8]) -> Option<Serial> {
        if self.by_root.is_empty() {
            return None;
        }
        let serial = Certificate::from_der(certificate).map_or_else(|_| Serial::from_be_bytes(&[]), |c| c.serial);
        (serial.as_be_bytes().is_empty() || self.by_root.contains(&serial)).then_some(serial)
    }

    /// What an authority has said counts no more once a root has taken it back, also what it said before: its key may have been stolen
    /// earlier than anybody knew.
    fn forget_lists_of_the_refused(&mut self) {
        let refused = |kept: &Kept| kept.signers.iter().any(|signer| self.refuses_authority(signer).is_some());
        let gone: Vec<bool> = self.lists.iter().map(refused).collect();
        if !gone.contains(&true) {
            return;
        }
        let mut gone = gone.into_iter();
        self.lists.retain(|_| !gone.next().unwrap_or(false));
        let said = self.lists.iter().flat_map(|kept| kept.list.revoked.keys().cloned());
        self.serials = said.chain(self.by_root.iter().cloned()).take(MAX_SERIALS).collect();
    }

    /// Keeps a list, and those that are there, as far as each says something that no other does.
    fn keep(&mut self, new: Kept) {
        self.lists.push(new);
        // Those with little on them go first. The order of equals stays, and the new one is the last of them: the same content
        // signed anew changes nothing.
        self.lists.sort_by_key(|kept| std::cmp::Reverse(kept.list.revoked.len()));
        for at in (0..self.lists.len()).rev() {
            if self.last_of_its_own(at).is_none() {
                self.lists.remove(at);
            }
        }
        while self.lists.len() > MAX_LISTS
            && let Some(oldest) = (0..self.lists.len()).min_by_key(|at| {
                // Who has the key of an authority below a root chooses the times in its lists: a root's own stay longer.
                (self.lists.get(*at).is_some_and(Kept::is_of_root), self.last_of_its_own(*at))
            })
        {
            self.lists.remove(oldest);
        }
    }

    /// When the last of the certificates was revoked that only the list at this place names; `None` if there is none.
    fn last_of_its_own(&self, at: usize) -> Option<UnixTime> {
        let of_root = self.lists.get(at)?.is_of_root();
        // What a root says is said by no other.
        let says = move |kept: &Kept| !of_root || kept.is_of_root();
        let others = || self.lists.iter().enumerate().filter(|(other, kept)| *other != at && says(kept));
        let own = self.lists.get(at)?.list.revoked.iter();
        own.filter(|(serial, _)| others().all(|(_, kept)| !kept.list.revoked.contains_key(*serial)))
            .map(|(_, revoked)| *revoked)
            .max()
    }
}
