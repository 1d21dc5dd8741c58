//! Times: those of the RFCs first, then ours.

use core::time::Duration;

/// Pause between NAT keepalives, RFC 3948 §4: "default value of 20 seconds".
pub const NAT_KEEPALIVE: Duration = Duration::from_secs(20);

/// Silence before R-U-THERE. RFC 3706 §5.5 leaves it to us; a phone that sleeps is back within two minutes or gone.
pub const DPD_DELAY: Duration = Duration::from_secs(30);

/// Silence after which a peer is dead.
pub const DPD_TIMEOUT: Duration = Duration::from_secs(120);

/// Life of an ISAKMP SA: what Windows proposes.
pub const PHASE1_LIFETIME: Duration = Duration::from_secs(28_800);

/// Life of an ESP SA: what most clients propose.
pub const PHASE2_LIFETIME: Duration = Duration::from_secs(3_600);

/// Longest life of either kind: a day, as Cisco proposes.
pub const LIFETIME_MAX: Duration = Duration::from_secs(86_400);

/// Windows gives up after 60 s in all; a main mode takes less than a second on a good line.
pub const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// First wait before a repetition; Windows waits 1 s.
pub const RETRANSMIT_FIRST: Duration = Duration::from_millis(1_000);

/// Repetitions: 1, 2, 4, 8 s make 15 s.
pub const RETRANSMIT_TRIES: u8 = 4;

/// Life of an authenticated peer without an ESP SA; Windows retries a failed quick mode after 15 s.
pub const IDLE_PEER_TIMEOUT: Duration = Duration::from_secs(120);

/// How long the last reply of an exchange is kept for a repeated request.
pub const REPLY_KEPT: Duration = Duration::from_secs(60);

/// After a message that could not be decrypted: time for a genuine one to arrive, since anybody could have sent the
/// former.
pub const GRACE_AFTER_GARBAGE: Duration = Duration::from_secs(3);

/// After an unauthenticated error notification, as initiator: time for a genuine reply to arrive (RFC 2408 has no way
/// to tell them apart).
pub const GRACE_AFTER_NOTIFY: Duration = Duration::from_secs(5);

/// Fragments of one message arrive within this time, [MS-IKEE] §3.3.2.
pub const REASSEMBLY: Duration = Duration::from_secs(90);

/// An ESP SA that was replaced by one that we asked for is deleted this much later, when its last packets are through.
pub const OLD_CHILD_KEPT: Duration = Duration::from_secs(30);

/// How often the data plane may report, about once a second, that a peer still sends through an ESP SA past its hard limit. Each
/// time he is told to drop it, if it has a successor; at the report after these it ends, with a successor or without.
pub const OVERRUN_TOLD: u8 = 5;

/// As responder we ask for a new ESP SA only this late: clients behind NAT refuse, so theirs comes first.
pub const RESPONDER_REKEY_MARGIN: Duration = Duration::from_secs(40);

/// A rekey of ours that failed is tried again after this time.
pub const REKEY_RETRY: Duration = Duration::from_secs(20);

/// How long a responder keeps an ISAKMP SA beyond its lifetime, for the initiator to renew it.
pub(crate) const EXPIRE_GRACE: Duration = Duration::from_secs(30);
