//! Why the authority does not do what it was asked, by who must act.

use crate::{Lint, name::NameError, seal::SealError};

/// A refusal of the authority. None of them carries key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The requester asked for a name that no certificate may carry.
    #[error("bad name: {0}")]
    Name(#[from] NameError),
    /// The requester's key is of a kind or size that is not certified here.
    #[error("bad public key: {0}")]
    PublicKey(&'static str),
    /// The requester's PKCS #10 request cannot be read, or is not signed by the key in it.
    #[error("bad certification request: {0}")]
    Request(&'static str),
    /// What was given as a token is none.
    #[error("{0}")]
    Token(&'static str),
    /// A private key that cannot be read or used.
    #[error("bad private key: {0}")]
    PrivateKey(&'static str),
    /// The certificate given as an authority's is not one, or does not belong to the key given with it.
    #[error("bad authority certificate: {0}")]
    Authority(&'static str),
    /// The authority's own certificate is not valid at the time of the request.
    #[error("the authority's certificate is not valid at this time")]
    AuthorityExpired,
    /// The caller asked for a lifetime outside what the profile allows.
    #[error("bad lifetime: {0}")]
    Validity(&'static str),
    /// What would have been signed breaks a rule; nothing was signed. It is a defect of this software or of a profile.
    #[error("refused before signing: {0}")]
    Lint(#[from] Lint),
    /// What was given as name constraints is none, or would permit nothing.
    #[error("bad name constraint: {0}")]
    NameConstraints(String),
    /// The authority may not certify a name of the request; nothing was signed.
    #[error("refused before signing: {0}")]
    Outside(#[from] crate::constraints::Outside),
    /// A sealed secret that cannot be opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Text that holds no PEM block of the kind asked for.
    #[error("no PEM block of type {0}")]
    Pem(&'static str),
    /// What was given as a revocation list is none of a trusted authority.
    #[error("bad revocation list: {0}")]
    RevocationList(&'static str),
    /// A secret that is not shared, or shares that do not give it back.
    #[error(transparent)]
    Share(#[from] crate::shares::ShareError),
    /// A CMS message, or the body of an EST message, that cannot be read or is not what it should be.
    #[error("bad message: {0}")]
    Message(&'static str),
    /// A message that is encrypted with a cipher that is not accepted.
    #[error("it is encrypted with {0}")]
    Cipher(&'static str),
    /// The random source or a cryptographic operation failed.
    #[error("cryptographic failure: {0}")]
    Crypto(&'static str),
}
