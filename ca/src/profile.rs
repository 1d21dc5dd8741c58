//! What each kind of certificate contains. A profile cannot express a CA certificate or anyExtendedKeyUsage.

use core::time::Duration;

use rcgen::ExtendedKeyUsagePurpose as Eku;

use crate::{AltName, Error};

const DAY: Duration = Duration::from_secs(86_400);

/// iKEIntermediate, 1.3.6.1.5.5.8.2.2: lets old macOS accept, and a Windows server choose, the certificate.
pub(crate) const IKE_INTERMEDIATE: &[u64] = &[1, 3, 6, 1, 5, 5, 8, 2, 2];
/// id-kp-ipsecIKE, 1.3.6.1.5.5.7.3.17 (RFC 4945 §5.1.3.12).
pub(crate) const IPSEC_IKE: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 17];
/// id-kp-cmcRA, 1.3.6.1.5.5.7.3.28 (RFC 6402 §2.10).
pub(crate) const CMC_RA: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 28];

/// A kind of certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// What a gateway shows to VPN clients in IKE: serverAuth, ikeIntermediate, ipsecIKE; its public names as SAN.
    Gateway,
    /// What a gateway shows to controllers (gRPC over mutual TLS): clientAuth. It is a key and a certificate apart from
    /// [`Profile::Gateway`], whose usages are for VPN clients only and do not allow a TLS client.
    GatewayLink,
    /// What a controller shows to gateways, operators and other controllers: serverAuth and clientAuth.
    Controller,
    /// What an operator's command line shows to a controller: clientAuth.
    Operator,
    /// A computer's certificate for IKE: clientAuth, ikeIntermediate, ipsecIKE; its host name as SAN.
    Machine,
    /// A person's certificate: clientAuth. It opens no service of ours: it is for what stands behind the VPN.
    User,
    /// What the HTTPS endpoint shows to machines that enroll: serverAuth; the public names of the service as SAN. And cmcRA, which
    /// no other server has: a gateway has the same names and serverAuth, and must not be taken for who hears tokens.
    Endpoint,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Gateway, Self::GatewayLink, Self::Controller, Self::Operator, Self::Machine, Self::User, Self::Endpoint];

    /// The name in records and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::GatewayLink => "gateway-link",
            Self::Controller => "controller",
            Self::Operator => "operator",
            Self::Machine => "machine",
            Self::User => "user",
            Self::Endpoint => "endpoint",
        }
    }

    /// How long a certificate lives unless the caller says otherwise.
    pub const fn default_validity(self) -> Duration {
        match self {
            Self::Gateway | Self::GatewayLink => DAY.saturating_mul(90),
            // It is made anew at each start, and nobody who enrolls asks whether it was revoked.
            Self::Endpoint => DAY.saturating_mul(7),
            Self::Controller | Self::Operator | Self::Machine | Self::User => DAY.saturating_mul(365),
        }
    }

    /// The longest life that is ever signed: 398 days, what the strictest of the native clients accept.
    pub const fn max_validity(self) -> Duration {
        DAY.saturating_mul(398)
    }

    /// The extended key usages, in the order in which they are encoded.
    pub(crate) fn extended_key_usages(self) -> Vec<Eku> {
        let ike = [Eku::Other(IKE_INTERMEDIATE.to_vec()), Eku::Other(IPSEC_IKE.to_vec())];
        match self {
            Self::Gateway => [Eku::ServerAuth].into_iter().chain(ike).collect(),
            Self::Controller => vec![Eku::ServerAuth, Eku::ClientAuth],
            Self::Endpoint => vec![Eku::ServerAuth, Eku::Other(CMC_RA.to_vec())],
            Self::GatewayLink | Self::Operator | Self::User => vec![Eku::ClientAuth],
            Self::Machine => [Eku::ClientAuth].into_iter().chain(ike).collect(),
        }
    }

    /// The extended key usages as people call them.
    pub const fn usage_names(self) -> &'static [&'static str] {
        match self {
            Self::Gateway => &["serverAuth", "iKEIntermediate", "ipsecIKE"],
            Self::Controller => &["serverAuth", "clientAuth"],
            Self::Endpoint => &["serverAuth", "cmcRA"],
            Self::GatewayLink | Self::Operator | Self::User => &["clientAuth"],
            Self::Machine => &["clientAuth", "iKEIntermediate", "ipsecIKE"],
        }
    }

    /// Whether the profile admits this list of alternative names.
    pub(crate) fn admits(self, names: &[AltName]) -> bool {
        let hosts = names.iter().filter(|n| matches!(n, AltName::Dns(_) | AltName::Ip(_))).count();
        match self {
            // What is dialled or looked up must be there, and nothing else.
            Self::Gateway | Self::Controller | Self::Machine | Self::Endpoint => hosts > 0 && hosts == names.len(),
            // Identified by serial number in the controller's records; names are for people.
            Self::GatewayLink | Self::Operator | Self::User => true,
        }
    }
}

impl core::fmt::Display for Profile {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl core::str::FromStr for Profile {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        let known = Self::ALL.into_iter().find(|p| p.name() == s);
        known.ok_or(Error::Request(
            "unknown profile; gateway, gateway-link, controller, operator, machine, user or endpoint is expected",
        ))
    }
}
