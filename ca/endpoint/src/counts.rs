//! What was asked and what came of it, for monitoring. Labels are closed sets: a stranger cannot invent one.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$of])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The label.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }
    };
}

labels! {
    /// What was asked for.
    Service {
        /// CA certificates over EST.
        EstCaCerts = "est_cacerts",
        /// What a request should contain.
        EstAttributes = "est_csrattrs",
        /// A first certificate.
        EstEnroll = "est_simpleenroll",
        /// A renewal.
        EstRenew = "est_simplereenroll",
        /// A certificate with a key made here.
        EstServerKey = "est_serverkeygen",
        /// Anything of SCEP.
        Scep = "scep",
        /// A revocation list.
        Crl = "crl",
        /// A CA's certificate.
        Ca = "ca",
        /// Whether a certificate is good.
        Ocsp = "ocsp",
        /// The page.
        Page = "page",
        /// Something that is not here.
        Unknown = "unknown",
    }
}

labels! {
    /// What came of it.
    Outcome {
        /// Answered.
        Ok = "ok",
        /// Waits for an approval.
        Pending = "pending",
        /// Refused by the office.
        Denied = "denied",
        /// Not understood, or too large, or too slow.
        Invalid = "invalid",
        /// Not here.
        NotFound = "not_found",
        /// Over a limit.
        Limited = "limited",
        /// Not now.
        Unavailable = "unavailable",
    }
}

labels! {
    /// Which limit refused somebody.
    Limit {
        /// Connections in total.
        Connections = "connections",
        /// Connections of one source.
        SourceConnections = "source_connections",
        /// Requests of one source.
        Requests = "requests",
        /// A pause after wrong tokens.
        WrongTokens = "wrong_tokens",
        /// The time for a TLS handshake.
        Handshake = "handshake",
        /// TLS failed: no limit, but refused the same.
        Tls = "tls",
    }
}

const SERVICES: usize = Service::ALL.len();
const OUTCOMES: usize = Outcome::ALL.len();
const LIMITS: usize = Limit::ALL.len();

/// Counters of one endpoint.
#[derive(Debug)]
pub struct Counts {
    requests: [[AtomicU64; OUTCOMES]; SERVICES],
    refused: [AtomicU64; LIMITS],
}

impl Counts {
    pub(crate) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            requests: core::array::from_fn(|_| core::array::from_fn(|_| zero())),
            refused: core::array::from_fn(|_| zero()),
        }
    }

    pub(crate) fn request(&self, service: Service, outcome: Outcome) {
        if let Some(counter) = self.requests.get(service as usize).and_then(|r| r.get(outcome as usize)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn refuse(&self, limit: Limit) {
        if let Some(counter) = self.refused.get(limit as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests so far.
    pub fn requests(&self, service: Service, outcome: Outcome) -> u64 {
        let counter = self.requests.get(service as usize).and_then(|r| r.get(outcome as usize));
        counter.map_or(0, |c| c.load(Ordering::Relaxed))
    }

    /// Connections and requests that a limit refused so far.
    pub fn refused(&self, limit: Limit) -> u64 {
        self.refused.get(limit as usize).map_or(0, |c| c.load(Ordering::Relaxed))
    }
}
