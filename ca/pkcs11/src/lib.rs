//! PKCS #11 tokens: hardware security modules, smart cards, a TPM behind its module, or stand-ins in software.
//!
//! The vendor's module is code in our process. It is loaded, used and let go in one go, under a lock, as a module may be
//! initialized once only. `unsafe` is in the crate that calls it; here is none.

mod key;
mod problem;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;

pub use cryptoki;
pub use key::{Scheme, destroy, generate, sign};
pub use problem::{Problem, Trouble};

/// Where a token is.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The module: a shared object of the token's vendor.
    pub module: &'a Path,
    /// The token's label.
    pub token: &'a str,
}

/// A module may be initialized once in a process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn one() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn load(module: &Path) -> Result<Pkcs11, Problem> {
    let module = Pkcs11::new(module)?;
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
    Ok(module)
}

/// The copy that the token's crate makes of it is wiped, too.
fn text_of(pin: &[u8]) -> Result<AuthPin, Problem> {
    match std::str::from_utf8(pin) {
        Ok(pin) => Ok(AuthPin::from(pin.to_owned())),
        Err(_) => Err(Problem::new(Trouble::Pin, "the PIN is not UTF-8")),
    }
}

/// Loads the module, logs in as the token's user, and calls `work` in the session.
pub fn with<T>(place: Place<'_>, pin: &[u8], work: impl FnOnce(&Session) -> T) -> Result<T, Problem> {
    let _one = one();
    let module = load(place.module)?;
    let worked = (|| {
        let session = module.open_rw_session(find_slot(&module, place.token)?)?;
        session.login(UserType::User, Some(&text_of(pin)?))?;
        Ok(work(&session))
    })();
    // The session has ended above. What the module says to its own end changes nothing for us.
    let _ = module.finalize();
    worked
}

fn find_slot(module: &Pkcs11, token: &str) -> Result<Slot, Problem> {
    let (mut found, mut there) = (Vec::new(), Vec::new());
    for slot in module.get_slots_with_initialized_token()? {
        let label = module.get_token_info(slot)?.label().trim_end().to_owned();
        if label == token { found.push(slot) } else { there.push(label) }
    }
    match found.as_slice() {
        [slot] => Ok(*slot),
        [] => {
            let cause = format!("there is no token {token:?}, only: {}", there.join(", "));
            Err(Problem::new(Trouble::NoToken, cause))
        }
        _ => Err(Problem::new(Trouble::Several, format!("{} tokens are called {token:?}", found.len()))),
    }
}

/// Makes a token of this label, with these PINs of its security officer and its user, in a slot that has none yet. Says whether there was
/// no such token before: one that is there stays as it is.
pub fn make_token(place: Place<'_>, so_pin: &[u8], pin: &[u8]) -> Result<bool, Problem> {
    let _one = one();
    let module = load(place.module)?;
    let made = (|| {
        match find_slot(&module, place.token) {
            Err(problem) if problem.trouble == Trouble::NoToken => {}
            other => return other.map(|_| false),
        }
        let mut empty = None;
        for slot in module.get_slots_with_token()? {
            if !module.get_token_info(slot)?.token_initialized() {
                empty = Some(slot);
                break;
            }
        }
        let slot = empty.ok_or_else(|| Problem::new(Trouble::NoToken, "the module has no slot for a new token"))?;
        let so_pin = text_of(so_pin)?;
        module.init_token(slot, &so_pin, place.token)?;
        // Some modules give it another slot.
        let session = module.open_rw_session(find_slot(&module, place.token)?)?;
        session.login(UserType::So, Some(&so_pin))?;
        session.init_pin(&text_of(pin)?)?;
        Ok(true)
    })();
    let _ = module.finalize();
    made
}
