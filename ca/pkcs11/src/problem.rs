//! What is wrong with a token, by what is to be done about it.

use std::fmt;

use cryptoki::error::{Error as P11, RvError};

/// The sort of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The module cannot be loaded.
    Module,
    /// The PIN is wrong.
    Pin,
    /// The token has locked itself.
    Locked,
    /// No token has that label.
    NoToken,
    /// Several tokens or keys have the same name.
    Several,
    /// The token has no such key.
    NoKey,
    /// The token cannot do what it is asked for.
    CannotDo,
    /// Anything else.
    Other,
}

/// What a module or a token said, or what it lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which sort.
    pub trouble: Trouble,
    /// In words.
    pub cause: String,
}

impl Problem {
    pub(crate) fn new(trouble: Trouble, cause: impl Into<String>) -> Self {
        Self { trouble, cause: cause.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl std::error::Error for Problem {}

impl From<P11> for Problem {
    fn from(error: P11) -> Self {
        let trouble = match &error {
            P11::LibraryLoading(_) | P11::MissingSymbol(_) => Trouble::Module,
            P11::Pkcs11(RvError::PinIncorrect | RvError::PinLenRange | RvError::PinInvalid, _) => Trouble::Pin,
            P11::Pkcs11(RvError::PinLocked, _) => Trouble::Locked,
            P11::Pkcs11(
                RvError::MechanismInvalid
                | RvError::MechanismParamInvalid
                | RvError::KeySizeRange
                | RvError::CurveNotSupported
                | RvError::DomainParamsInvalid
                | RvError::AttributeValueInvalid,
                _,
            ) => Trouble::CannotDo,
            _ => Trouble::Other,
        };
        Self::new(trouble, error.to_string())
    }
}

impl From<sallyport_ca::Error> for Problem {
    fn from(error: sallyport_ca::Error) -> Self {
        Self::new(Trouble::CannotDo, error.to_string())
    }
}
