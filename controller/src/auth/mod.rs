//! Who the user is: PAP, CHAP-MD5 and MS-CHAPv2 against what is sealed in the state.
//!
//! A wrong password and an unknown user take the same way: where there is no user, a decoy's secrets are opened and
//! checked, and fail. The client is told 691 in both cases; only the audit knows which it was.

pub(crate) mod lockout;
pub(crate) mod password;

use sallyport_crypto::mschap::{self, NtHash};
use sallyport_proto::v1;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::seal::{Sealer, UserSecret};
use crate::state::{Credentials, UserRow};
use password::{Busy, SALT, Workers};

/// What a client proved, with its lengths checked.
pub(crate) enum Proof {
    /// PAP.
    Pap { password: Zeroizing<Vec<u8>> },
    /// CHAP with MD5.
    ChapMd5 { identifier: u8, challenge: Vec<u8>, response: [u8; 16] },
    /// MS-CHAPv2.
    MsChapV2 { authenticator_challenge: [u8; 16], peer_challenge: [u8; 16], nt_response: [u8; 24] },
}

impl Proof {
    /// Checks the lengths of a request's fields.
    pub(crate) fn from_proto(method: v1::authenticate_request::Method) -> Result<Self, &'static str> {
        use v1::authenticate_request::Method;
        fn exact<const N: usize>(bytes: &[u8], what: &'static str) -> Result<[u8; N], &'static str> {
            bytes.try_into().map_err(|_| what)
        }
        match method {
            Method::Pap(pap) => {
                let password = pap.password.map(v1::Secret::into_inner).unwrap_or_default();
                Ok(Self::Pap { password })
            }
            Method::ChapMd5(chap) => Ok(Self::ChapMd5 {
                identifier: u8::try_from(chap.identifier).map_err(|_| "identifier is one byte")?,
                response: exact(&chap.response, "a CHAP-MD5 response has 16 bytes")?,
                challenge: match chap.challenge.len() {
                    1..=255 => chap.challenge,
                    _ => return Err("a CHAP challenge has 1 to 255 bytes"),
                },
            }),
            Method::Mschapv2(m) => Ok(Self::MsChapV2 {
                authenticator_challenge: exact(&m.authenticator_challenge, "an authenticator challenge has 16 bytes")?,
                peer_challenge: exact(&m.peer_challenge, "a peer challenge has 16 bytes")?,
                nt_response: exact(&m.nt_response, "an NT-Response has 24 bytes")?,
            }),
        }
    }

    /// Which protocol.
    pub(crate) const fn method(&self) -> v1::AuthMethod {
        match self {
            Self::Pap { .. } => v1::AuthMethod::Pap,
            Self::ChapMd5 { .. } => v1::AuthMethod::ChapMd5,
            Self::MsChapV2 { .. } => v1::AuthMethod::Mschapv2,
        }
    }
}

/// A protocol's name for people.
pub(crate) const fn method_name(method: v1::AuthMethod) -> &'static str {
    match method {
        v1::AuthMethod::Unspecified => "none",
        v1::AuthMethod::Pap => "PAP",
        v1::AuthMethod::ChapMd5 => "CHAP-MD5",
        v1::AuthMethod::Mschapv2 => "MS-CHAPv2",
    }
}

/// What came of a check.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The user knows the password. With MS-CHAPv2, the proof that we know it, too.
    Right { authenticator_response: String },
    /// The password is wrong, or there is no such user.
    Wrong,
    /// The password is not kept in a form that this protocol needs.
    NotKept,
}

/// The user's name without a Windows domain, and the key it is found by.
pub(crate) fn user_key(name: &str) -> (&str, String) {
    let bare = mschap::name_without_domain(name);
    (bare, bare.to_lowercase())
}

/// Checks proofs.
#[derive(Debug)]
pub(crate) struct Authenticator {
    workers: Workers,
    /// Secrets of nobody, sealed like a user's, of a password that nobody knows.
    decoy: Credentials,
}

/// Name of the place where the decoy's secrets are sealed: no user can have it (names are not empty).
const DECOY: &str = "";

impl Authenticator {
    /// Prepares the decoy.
    pub(crate) async fn new(workers: Workers, sealer: &Sealer, cluster: &[u8]) -> Result<Self, Error> {
        let unknown: [u8; 16] = sealer.random()?;
        let password: String = unknown.iter().map(|b| format!("{b:02x}")).collect();
        let decoy = credentials(&workers, sealer, cluster, DECOY, Zeroizing::new(password.into_bytes()), true).await?;
        Ok(Self { workers, decoy })
    }

    /// The workers, for setting passwords.
    pub(crate) const fn workers(&self) -> &Workers {
        &self.workers
    }

    /// Checks a proof. `name` is the name as the client sent it, without the domain; `user` is who was found under `key`.
    pub(crate) async fn check(
        &self,
        sealer: &Sealer,
        cluster: &[u8],
        key: &str,
        name: &str,
        user: Option<&UserRow>,
        proof: Proof,
    ) -> Result<Result<Verdict, Busy>, Error> {
        let own = user.and_then(|u| u.credentials.as_ref());
        let (credentials, place) = own.map_or((&self.decoy, DECOY), |c| (c, key));
        let open = |which, sealed: &[u8]| sealer.open_user(which, cluster, place, sealed);
        let right = match proof {
            Proof::Pap { password } => {
                let verifier = open(UserSecret::Verifier, &credentials.sealed_verifier)?;
                match self.workers.check(password, verifier).await {
                    Ok(fits) => fits.then(String::new),
                    Err(busy) => return Ok(Err(busy)),
                }
            }
            Proof::ChapMd5 { identifier, challenge, response } => {
                let kept = !credentials.sealed_password.is_empty();
                // Where it is not kept, the decoy's takes its place, for the time it takes.
                let (sealed, place) =
                    if kept { (&credentials.sealed_password, place) } else { (&self.decoy.sealed_password, DECOY) };
                let password = sealer.open_user(UserSecret::Password, cluster, place, sealed)?;
                let expected = mschap::chap_md5(identifier, &password, &challenge);
                let fits = bool::from(expected.ct_eq(&response));
                if !kept {
                    return Ok(Ok(Verdict::NotKept));
                }
                fits.then(String::new)
            }
            Proof::MsChapV2 { authenticator_challenge, peer_challenge, nt_response } => {
                let stored = open(UserSecret::NtHash, &credentials.sealed_nt_hash)?;
                let bytes: [u8; 16] = stored
                    .as_slice()
                    .try_into()
                    .map_err(|_| Error::Internal("an NT hash does not have 16 bytes".into()))?;
                let hash = NtHash::from_bytes(bytes);
                let fits =
                    mschap::check_nt_response(&authenticator_challenge, &peer_challenge, name, &hash, &nt_response);
                // Computed in any case, so that right and wrong differ by nothing but the answer.
                let answer = mschap::generate_authenticator_response(
                    &hash,
                    &nt_response,
                    &peer_challenge,
                    &authenticator_challenge,
                    name,
                );
                fits.then_some(answer)
            }
        };
        Ok(Ok(match right {
            // The decoy's password is not known to anybody, but a decoy lets nobody in even so.
            Some(authenticator_response) if own.is_some() => Verdict::Right { authenticator_response },
            _ => Verdict::Wrong,
        }))
    }
}

/// Everything that a password leaves behind, sealed.
pub(crate) async fn credentials(
    workers: &Workers,
    sealer: &Sealer,
    cluster: &[u8],
    key: &str,
    password: Zeroizing<Vec<u8>>,
    keep_password: bool,
) -> Result<Credentials, Error> {
    let text = std::str::from_utf8(&password).map_err(|_| Error::Refused("the password is not UTF-8 text".into()))?;
    let nt_hash = mschap::nt_password_hash(text);
    let salt: [u8; SALT] = sealer.random()?;
    let verifier = workers.make(password.clone(), salt).await?;
    Ok(Credentials {
        sealed_nt_hash: sealer.seal_user(UserSecret::NtHash, cluster, key, nt_hash.as_bytes())?,
        sealed_verifier: sealer.seal_user(UserSecret::Verifier, cluster, key, &verifier)?,
        sealed_password: match keep_password {
            true => sealer.seal_user(UserSecret::Password, cluster, key, &password)?,
            false => Vec::new(),
        },
    })
}

#[cfg(test)]
mod tests;
