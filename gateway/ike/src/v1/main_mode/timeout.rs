//! A main mode that does not come to its end, in words.

use core::time::Duration;

use sallyport_base::Instant;

use crate::endpoint::{Endpoint, Fate, TimerKey};
use crate::error::RefusalKind;
use crate::output::Role;
use crate::payload::NotifyType;
use crate::timer;
use crate::v1::isakmp_sa::{IsakmpSa, SaId, Step};

/// Undecryptable messages in one handshake before it is given up.
const MAX_GARBAGE: u8 = 3;

impl Endpoint {
    /// A handshake took too long.
    pub(crate) fn handshake_timeout(&mut self, now: Instant, id: SaId) {
        self.with_sa(id, |ep, sa| {
            let Some(h) = sa.handshake.as_deref() else { return Fate::Keep };
            let signed = sa.with_signatures();
            let (kind, cause, remedy) = if h.garbage > 0 && sa.role == Role::Initiator {
                (
                    RefusalKind::Malformed,
                    "message 6 of the gateway cannot be decrypted",
                    "a fault of the gateway, or somebody disturbs the exchange: try again",
                )
            } else if h.garbage > 0 {
                ep.notify_stranger(now, sa.local, sa.remote, (sa.cky_i, sa.cky_r), NotifyType::PAYLOAD_MALFORMED);
                if signed {
                    (RefusalKind::Malformed, "message 5 of the client cannot be decrypted", "a fault of the client, or somebody disturbs the exchange: try again")
                } else {
                    (
                        RefusalKind::WrongPreSharedKey,
                        "message 5 of the client cannot be decrypted: its pre-shared key is not ours",
                        "compare the pre-shared key on the client with the one set here (capital letters, spaces at the end, a different site's key)",
                    )
                }
            } else {
                match h.step {
                    Step::Expect5 if signed => (
                        RefusalKind::Silence,
                        "the client sent no message 5: it stopped when it had to show its certificate",
                        "the client has no machine certificate of a root that we ask for (Windows shows 786 or 766), or its message is too large for the path: install a certificate of this CA in the machine store, enable IKE fragmentation, or look for a firewall that drops IP fragments",
                    ),
                    Step::Expect5 => (
                        RefusalKind::Silence,
                        "the client sent no message 5",
                        "our message 4 or its message 5 was lost: message 5 of a client behind NAT comes on UDP 4500, which a firewall may drop (Windows shows 809)",
                    ),
                    Step::MakeKeys | Step::Verify5 | Step::Sign6 | Step::MakeKeyPair | Step::Agree | Step::Sign5 | Step::Verify6 => (
                        RefusalKind::Limit,
                        "our own computation took too long",
                        "this machine is overloaded: look at its processor time",
                    ),
                    Step::Expect2 => (
                        RefusalKind::Silence,
                        "the gateway does not answer message 1",
                        "check its address and that UDP 500 reaches it",
                    ),
                    Step::Expect4 => (RefusalKind::Silence, "the gateway does not answer message 3", "the gateway's own record says why"),
                    Step::Expect6 if signed => (
                        RefusalKind::Silence,
                        "the gateway does not answer message 5: it did not accept our certificate, or large packets are lost",
                        "the gateway's own record says why; check that UDP 4500 reaches it",
                    ),
                    Step::Expect6 => (
                        RefusalKind::Silence,
                        "the gateway does not answer message 5: most likely its pre-shared key is not ours",
                        "compare the pre-shared keys; check that UDP 4500 reaches the gateway",
                    ),
                }
            };
            ep.fail(now, sa, kind, cause.into(), remedy)
        });
    }

    /// An encrypted message did not decrypt. Anybody can send one, so the genuine one gets its chance.
    pub(super) fn garbage(&mut self, now: Instant, sa: &mut IsakmpSa) -> Fate {
        self.stats.unauthentic += 1;
        if let Some(h) = sa.handshake.as_deref_mut() {
            h.garbage = h.garbage.saturating_add(1);
            let grace = if h.garbage >= MAX_GARBAGE { Duration::ZERO } else { timer::GRACE_AFTER_GARBAGE };
            let at = now + grace;
            let key = TimerKey::Handshake(sa.id);
            if self.timers.deadline(key).is_none_or(|d| d > at) {
                self.timers.set(key, at);
            }
        }
        Fate::Keep
    }
}
