//! NAT detection and the numbers of the NAT-T variants: RFC 3947 and the drafts 02 and 03 before it.

use std::net::{IpAddr, SocketAddr};

use sallyport_crypto::ct_eq;
use sallyport_crypto::hash::{Digest, HashAlg};

use crate::header::Cookie;
use crate::payload::{EncapsulationMode, NAT_T_02, NAT_T_02_N, NAT_T_03, PayloadType, RFC_3947};

/// The variant of NAT-T that a peer and we have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NatVariant {
    /// draft-ietf-ipsec-nat-t-ike-02, the vendor ID with a newline.
    Draft02N,
    /// The same draft, the vendor ID without.
    Draft02,
    /// draft-ietf-ipsec-nat-t-ike-03.
    Draft03,
    /// RFC 3947.
    Rfc3947,
}

impl NatVariant {
    /// All, the best first.
    pub(crate) const ALL: [Self; 4] = [Self::Rfc3947, Self::Draft03, Self::Draft02, Self::Draft02N];

    /// Its vendor ID.
    pub(crate) const fn vendor_id(self) -> &'static [u8; 16] {
        match self {
            Self::Rfc3947 => &RFC_3947,
            Self::Draft03 => &NAT_T_03,
            Self::Draft02 => &NAT_T_02,
            Self::Draft02N => &NAT_T_02_N,
        }
    }

    /// The variant that a vendor ID announces. Drafts 00 and 01 keep ESP on port 500 and are not spoken; who sends the
    /// drafts 04 to 08 sends RFC 3947 too.
    pub(crate) fn of_vendor_id(vid: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.vendor_id() == vid)
    }

    /// Payload type of NAT-D.
    pub(crate) const fn nat_d(self) -> PayloadType {
        match self {
            Self::Rfc3947 => PayloadType::NAT_D,
            _ => PayloadType::NAT_D_DRAFT,
        }
    }

    /// Payload type of NAT-OA.
    pub(crate) const fn nat_oa(self) -> PayloadType {
        match self {
            Self::Rfc3947 => PayloadType::NAT_OA,
            _ => PayloadType::NAT_OA_DRAFT,
        }
    }

    /// Encapsulation mode of UDP-encapsulated transport.
    pub(crate) const fn udp_transport(self) -> EncapsulationMode {
        match self {
            Self::Rfc3947 => EncapsulationMode::UDP_TRANSPORT,
            _ => EncapsulationMode::UDP_TRANSPORT_DRAFT,
        }
    }
}

/// Where NATs are, as far as NAT-D payloads told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NatStatus {
    /// Our address is rewritten on the way (and is none of the public addresses that we know of).
    pub(crate) local: bool,
    /// The peer's address is rewritten on the way.
    pub(crate) peer: bool,
    /// The address of ours that the peer meant.
    pub(crate) dialled: Option<IpAddr>,
}

impl NatStatus {
    /// Whether ESP has to travel in UDP.
    pub(crate) const fn any(&self) -> bool {
        self.local || self.peer
    }
}

/// `HASH(CKY-I | CKY-R | IP | port)`, RFC 3947 §3.2.
pub(crate) fn nat_d(hash: HashAlg, cky_i: Cookie, cky_r: Cookie, at: SocketAddr) -> Digest {
    let port = at.port().to_be_bytes();
    match at.ip() {
        IpAddr::V4(a) => hash.digest(&[&cky_i.0, &cky_r.0, &a.octets(), &port]),
        IpAddr::V6(a) => hash.digest(&[&cky_i.0, &cky_r.0, &a.octets(), &port]),
    }
}

/// Compares the NAT-D payloads of a peer with the addresses of its packet.
///
/// The first payload is our address as the peer sees it, the others are the peer's own addresses. `public` are
/// addresses that stand for ours.
pub(crate) fn detect(
    received: &[&[u8]],
    digest: impl Fn(SocketAddr) -> Digest,
    local: SocketAddr,
    remote: SocketAddr,
    public: &[IpAddr],
) -> NatStatus {
    let Some((ours, theirs)) = received.split_first() else { return NatStatus::default() };
    let candidates = core::iter::once(local.ip()).chain(public.iter().copied());
    let dialled = candidates.into_iter().find(|ip| ct_eq(&digest(SocketAddr::new(*ip, local.port())), ours));
    let seen = digest(remote);
    NatStatus { local: dialled.is_none(), peer: !theirs.iter().any(|d| ct_eq(&seen, d)), dialled }
}
