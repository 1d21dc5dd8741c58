//! Revocation lists, for whoever is not a gateway: gateways know what is live from the controllers themselves.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use sallyport_ca::UnixTime;
use sallyport_ca::crl::{Contents, Reason, Revoked};
use sallyport_endpoint::Crl;

use crate::app::Core;
use crate::error::Error;
use crate::state::State;

/// A list is made anew when it is this old, and says that the next comes a day after that: whoever fetches it has a day to fetch the
/// next one. Milliseconds.
const FRESH_MS: u64 = 24 * 3_600 * 1_000;
/// How long a list is good.
const GOOD_MS: u64 = 2 * FRESH_MS;

/// A list and what it was made from.
#[derive(Clone, Debug)]
struct Made {
    last_revocation: u64,
    at_ms: u64,
    crl: Crl,
}

/// Lists that were made: one for each authority, however many ask.
#[derive(Debug, Default)]
pub(super) struct Lists {
    made: Mutex<BTreeMap<u64, Made>>,
}

/// What an authority (0 for the root) has issued, that is revoked and would still be valid.
fn revoked(state: &State, issuer: u64, now_ms: u64) -> Vec<Revoked> {
    let rows = state.revoked_of(issuer, now_ms);
    let entry = |serial: &str, at_ms| {
        Some(Revoked { serial: serial.parse().ok()?, at: time(at_ms), reason: Reason::Unspecified })
    };
    rows.filter_map(|c| entry(&c.serial, c.revoked_ms)).collect()
}

fn time(ms: u64) -> UnixTime {
    UnixTime(i64::try_from(ms / 1_000).unwrap_or(i64::MAX))
}

impl Lists {
    /// The list of an authority: of all that it has issued.
    pub(super) fn list(&self, core: &Core, issuer: u64) -> Result<Crl, Error> {
        if issuer == 0
            && let Some(kept) = crate::authority::root::kept_list(core)
        {
            return Ok(kept);
        }
        let now_ms = core.now_ms();
        let (last_revocation, revoked) = {
            let state = core.node.shared().read();
            let last = state.last_revocation();
            if let Some(made) = self.made.lock().unwrap_or_else(PoisonError::into_inner).get(&issuer)
                && made.last_revocation == last
                && now_ms.saturating_sub(made.at_ms) < FRESH_MS
            {
                return Ok(made.crl.clone());
            }
            (last, revoked(&state, issuer, now_ms))
        };
        let authority = core.issuing_by(issuer)?.authority;
        let (this_update, next_update) = (time(now_ms), time(now_ms.saturating_add(GOOD_MS)));
        let contents = Contents {
            distribution_point: "",
            // Grows from list to list, over a restored backup, too (RFC 5280 §5.2.3).
            number: now_ms / 1_000,
            revoked: &revoked,
            this_update,
            next_update,
        };
        let der = authority
            .prepare_revocation_list(&contents)
            .and_then(|tbs| authority.sign_revocation_list(&tbs, core.sealer.rng()));
        let der = der.map_err(|e| Error::Authority(format!("the revocation list: {e}")))?;
        let crl = Crl { der, next_update };
        let made = Made { last_revocation, at_ms: now_ms, crl: crl.clone() };
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(issuer, made);
        Ok(crl)
    }
}
