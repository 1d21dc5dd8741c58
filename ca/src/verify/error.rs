//! Why a peer's certificate is refused, in words for two readers: the log and whoever must repair it.

use time::OffsetDateTime;

use crate::UnixTime;

/// A refusal. The texts in it are safe to log: see [`crate::text_of_name`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerifyError {
    /// The peer sent no certificate of an encoding that is read.
    NoCertificate,
    /// The peer sent more than is looked at.
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are looked at.
        limit: usize,
    },
    /// A certificate is longer than is looked at.
    TooLong {
        /// The limit in octets.
        limit: usize,
    },
    /// Bytes that are not what they claim to be.
    Malformed(&'static str),
    /// A certificate on the path is past its end.
    Expired {
        /// Whose certificate.
        subject: String,
        /// Last second of its validity.
        not_after: UnixTime,
        /// When it was looked at.
        now: UnixTime,
    },
    /// A certificate on the path is not valid yet.
    NotYetValid {
        /// Whose certificate.
        subject: String,
        /// First second of its validity.
        not_before: UnixTime,
        /// When it was looked at.
        now: UnixTime,
    },
    /// No path leads to a trusted authority.
    UnknownIssuer {
        /// Whose certificate could not be traced further.
        subject: String,
        /// The authority that it names.
        issuer: String,
    },
    /// The named issuer is known, and did not sign this.
    BadSignature {
        /// Whose certificate.
        subject: String,
        /// The authority that it names.
        issuer: String,
    },
    /// The signature on a certificate uses an algorithm that is not accepted (SHA-1, MD5, an unknown one).
    WeakSignature {
        /// Whose certificate.
        subject: String,
        /// The algorithm's object identifier.
        algorithm: String,
    },
    /// The peer's key is of a kind or size that is not accepted.
    UnsupportedKey {
        /// Whose certificate.
        subject: String,
        /// What is wrong with the key.
        what: &'static str,
    },
    /// A certificate is used for what it was not issued for.
    WrongUsage {
        /// Whose certificate.
        subject: String,
        /// What it lacks or has too much.
        what: &'static str,
    },
    /// A certificate has a critical extension, or constraints, that are not understood here.
    UnsupportedExtension {
        /// Whose certificate.
        subject: String,
        /// The extension's object identifier.
        extension: String,
    },
    /// The path is longer than the limit, or longer than an authority on it allows.
    PathTooLong {
        /// Whose certificate stands where the path is too long.
        subject: String,
    },
    /// An authority on the path may not certify a name that a certificate below it has (name constraints).
    NameNotPermitted {
        /// Whose certificate.
        subject: String,
        /// The name.
        name: String,
        /// The authority.
        authority: String,
    },
    /// An authority on the path, or the settings here, ask for a certificate policy that the path does not have.
    Policy {
        /// Whose certificate is where it ends.
        subject: String,
    },
    /// The certificate is good, and not for the identity that the peer claims.
    NameMismatch {
        /// The identity in the ID payload.
        claimed: String,
        /// The names in the certificate.
        certified: String,
    },
}

impl VerifyError {
    /// A short constant name, for metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no-certificate",
            Self::TooMany { .. } => "too-many",
            Self::TooLong { .. } => "too-long",
            Self::Malformed(_) => "malformed",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not-yet-valid",
            Self::UnknownIssuer { .. } => "unknown-issuer",
            Self::BadSignature { .. } => "bad-signature",
            Self::WeakSignature { .. } => "weak-signature",
            Self::UnsupportedKey { .. } => "unsupported-key",
            Self::WrongUsage { .. } => "wrong-usage",
            Self::UnsupportedExtension { .. } => "unsupported-extension",
            Self::PathTooLong { .. } => "path-too-long",
            Self::NameNotPermitted { .. } => "name-not-permitted",
            Self::Policy { .. } => "policy",
            Self::NameMismatch { .. } => "name-mismatch",
        }
    }

    /// What is wrong, in words.
    pub fn cause(&self) -> String {
        match self {
            Self::NoCertificate => "the peer sent no certificate".to_owned(),
            Self::TooMany { what, limit } => format!("more than {limit} {what}"),
            Self::TooLong { limit } => format!("a certificate longer than {limit} octets"),
            Self::Malformed(what) => format!("malformed certificate: {what}"),
            Self::Expired { subject, not_after, now } => {
                format!("the certificate of {subject} expired on {} (it is {})", utc(*not_after), utc(*now))
            }
            Self::NotYetValid { subject, not_before, now } => {
                format!("the certificate of {subject} is valid only from {} (it is {})", utc(*not_before), utc(*now))
            }
            Self::UnknownIssuer { subject, issuer } => {
                format!("the certificate of {subject} was issued by an authority that is not trusted here: {issuer}")
            }
            Self::BadSignature { subject, issuer } => {
                format!("the signature on the certificate of {subject} is not that of {issuer}")
            }
            Self::WeakSignature { subject, algorithm } => {
                format!("the certificate of {subject} is signed with an algorithm that is not accepted ({algorithm})")
            }
            Self::UnsupportedKey { subject, what } => format!("the key of {subject} is not accepted: {what}"),
            Self::WrongUsage { subject, what } => {
                format!("the certificate of {subject} may not be used for this: {what}")
            }
            Self::UnsupportedExtension { subject, extension } => {
                format!("the certificate of {subject} has an extension that must be understood and is not: {extension}")
            }
            Self::PathTooLong { subject } => format!("the certificate chain is too long at {subject}"),
            Self::NameNotPermitted { subject, name, authority } => {
                format!("the certificate of {subject} has the name {name}, which {authority} may not certify")
            }
            Self::Policy { subject } => {
                format!("the certificate chain has no policy that all on it accept, at {subject}")
            }
            Self::NameMismatch { claimed, certified } => {
                format!("the peer says it is {claimed}, but its certificate is for {certified}")
            }
        }
    }

    /// What to change, and where.
    pub fn remedy(&self) -> String {
        match self {
            Self::NoCertificate => {
                "install a machine certificate of this organization on the client, with its private key, and select it \
                 for the connection; or allow pre-shared keys in the gateway's configuration"
            }
            Self::TooMany { .. } | Self::TooLong { .. } => {
                "let the client send its own certificate and the intermediate authorities only"
            }
            Self::Malformed(_) => "install the machine certificate on the client again",
            Self::Expired { .. } => "renew this certificate; if it is still valid by its dates, check the gateway's clock",
            Self::NotYetValid { .. } => "check the clocks of the gateway and of the authority",
            Self::UnknownIssuer { issuer, .. } => {
                return format!(
                    "issue the client a certificate from this organization's authority; or, if {issuer} shall be \
                     trusted, add its root (and let the client send the intermediates) to the gateway's trusted \
                     authorities"
                );
            }
            Self::BadSignature { .. } => {
                "the certificate was altered, or its authority was made anew under the same name: issue the certificate \
                 again"
            }
            Self::WeakSignature { .. } => "issue the certificate again with SHA-256 or stronger",
            Self::UnsupportedKey { .. } => {
                "issue the certificate for an RSA key of at least 2048 bits, or an ECDSA key on P-256 or P-384"
            }
            Self::WrongUsage { .. } => {
                "issue a certificate with the key usage digitalSignature and the extended key usages clientAuth (for a \
                 client) or serverAuth (for a gateway) and ipsecIKE"
            }
            Self::UnsupportedExtension { .. } => "issue the certificate without this extension, or not as critical",
            Self::PathTooLong { .. } => "use fewer intermediate authorities, or raise the path length of the one named",
            Self::NameNotPermitted { .. } => {
                "issue the certificate for names within the name constraints of its authorities, or from another authority"
            }
            Self::Policy { .. } => "issue the certificate under a policy that the policy constraints of its authorities allow",
            Self::NameMismatch { .. } => {
                "set the client's local identity to a name in its certificate (its subject, or an alternative name), or \
                 issue the certificate for the name it uses"
            }
        }
        .to_owned()
    }
}

impl core::fmt::Display for VerifyError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.cause())
    }
}

impl core::error::Error for VerifyError {}

/// A time for people, to the minute.
fn utc(t: UnixTime) -> String {
    match OffsetDateTime::from_unix_timestamp(t.0) {
        Ok(d) => {
            format!("{:04}-{:02}-{:02} {:02}:{:02} UTC", d.year(), u8::from(d.month()), d.day(), d.hour(), d.minute())
        }
        Err(_) => format!("{} seconds after 1970", t.0),
    }
}
