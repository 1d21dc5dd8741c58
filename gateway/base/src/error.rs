//! The decode error that all codecs share.

/// Why bytes from the wire are not the message that they claim to be.
///
/// It carries no peer-supplied bytes, so that it can be logged as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The input ends before the named field does.
    #[error("truncated: {0} needs {1} more bytes")]
    Truncated(&'static str, usize),
    /// A length field contradicts the bytes around it.
    #[error("bad length of {0}: {1}")]
    Length(&'static str, usize),
    /// A field holds a value that its standard does not allow there.
    #[error("bad value in {0}: {1}")]
    Value(&'static str, u64),
    /// Bytes are left over where the message had to end.
    #[error("{1} bytes left over after {0}")]
    Trailing(&'static str, usize),
    /// More elements than this implementation takes from a peer (the bound is the second field).
    #[error("more than {1} of {0}")]
    TooMany(&'static str, usize),
    /// Text that is not what its standard asks for (UTF-8, printable ASCII).
    #[error("{0} is not valid text")]
    Text(&'static str),
}
