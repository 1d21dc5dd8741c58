//! What the data plane counts: a closed set of names, so that no peer can invent a metric.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $label:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(usize)]
        $vis enum $name { $($(#[$vmeta])* $variant),* }

        impl $name {
            /// All of them, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name as a metric label.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

counters! {
    /// Why the data plane dropped a packet.
    pub enum DropReason {
        /// Shorter than what it claims to be.
        Truncated = "truncated",
        /// An IKE message longer than any that makes sense.
        IkeTooLong = "ike_too_long",
        /// ESP with an SPI that is not installed.
        UnknownSpi = "unknown_spi",
        /// ESP: the sequence number was seen before or is left of the window (RFC 4303 §3.4.3).
        Replayed = "replayed",
        /// ESP: the ICV does not verify.
        Integrity = "integrity",
        /// ESP: bad padding or next header, or a length that the cipher cannot have made.
        EspMalformed = "esp_malformed",
        /// The SA is at its hard limit of bytes, packets or sequence numbers.
        SaExpired = "sa_expired",
        /// Inside ESP was something other than UDP to port 1701.
        NotL2tp = "not_l2tp",
        /// A bad L2TP header, or version 3.
        L2tpMalformed = "l2tp_malformed",
        /// L2TP data for a session of another peer's SA.
        WrongPeer = "wrong_peer",
        /// L2TP data for a session that is not installed, beyond what is passed to the control plane.
        UnknownSession = "unknown_session",
        /// A PPP frame whose header does not parse.
        PppMalformed = "ppp_malformed",
        /// IPv4 in a session whose IPCP is not open.
        NotOpened = "not_opened",
        /// An inner packet that is not a whole IPv4 packet.
        InnerMalformed = "inner_malformed",
        /// The client sent from another address than the one leased to it.
        SpoofedSource = "spoofed_source",
        /// From one client to another where that is not allowed.
        ClientToClient = "client_to_client",
        /// The inside device did not take the packet.
        InsideRefused = "inside_refused",
        /// L2TP in the clear on UDP 1701: nothing is spoken there outside ESP.
        L2tpInClear = "l2tp_in_clear",
        /// From inside: an address that no session has.
        NoSession = "no_session",
        /// From inside: not IPv4.
        NotIpv4 = "not_ipv4",
        /// From inside: larger than the session's MTU with DF set; answered with ICMP.
        TooBig = "too_big",
        /// There is no SA to send through.
        NoSa = "no_sa",
        /// A table of the data plane is full.
        TableFull = "table_full",
        /// A socket did not take the packet.
        OutsideRefused = "outside_refused",
        /// No socket has the local address that the packet is to leave from.
        NoSocket = "no_socket",
    }
}

counters! {
    /// What else the data plane counts.
    pub enum Count {
        /// Datagrams and ESP packets received.
        OuterPacketsIn = "outer_packets_in",
        /// Their octets, from the UDP payload or the ESP header on.
        OuterBytesIn = "outer_bytes_in",
        /// Datagrams and ESP packets sent.
        OuterPacketsOut = "outer_packets_out",
        /// Their octets.
        OuterBytesOut = "outer_bytes_out",
        /// IPv4 packets from clients to the inside.
        InnerPacketsIn = "inner_packets_in",
        /// Their octets.
        InnerBytesIn = "inner_bytes_in",
        /// IPv4 packets from the inside to clients.
        InnerPacketsOut = "inner_packets_out",
        /// Their octets.
        InnerBytesOut = "inner_bytes_out",
        /// IKE messages received.
        IkeIn = "ike_in",
        /// L2TP control messages received.
        L2tpControlIn = "l2tp_control_in",
        /// PPP frames handed to the control plane.
        PppIn = "ppp_in",
        /// NAT keepalives received (RFC 3948 §2.3).
        Keepalives = "keepalives",
        /// Peers whose outer address changed.
        PeersMoved = "peers_moved",
        /// Packets from inside that were fragmented.
        Fragmented = "fragmented",
        /// ICMP errors sent to the inside.
        IcmpSent = "icmp_sent",
        /// Receive calls that gave something; packets over calls is the batching reached.
        ReceiveCalls = "receive_calls",
        /// Send calls.
        SendCalls = "send_calls",
        /// Reads of the inside device that gave something.
        InsideReads = "inside_reads",
        /// Writes to the inside device.
        InsideWrites = "inside_writes",
        /// Turns of the worker's loop that waited in `epoll_wait`.
        Waits = "waits",
    }
}

counters! {
    /// Sizes of the tables.
    pub enum Gauge {
        /// Peers known.
        Peers = "peers",
        /// Pairs of SAs installed.
        Sas = "sas",
        /// Sessions installed.
        Sessions = "sessions",
    }
}

/// A worker's own counters: plain numbers, published now and then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    drops: [u64; DropReason::COUNT],
    counts: [u64; Count::COUNT],
}

impl Default for Counters {
    fn default() -> Self {
        Self { drops: [0; DropReason::COUNT], counts: [0; Count::COUNT] }
    }
}

impl Counters {
    /// One packet was dropped.
    #[inline]
    pub fn drop(&mut self, why: DropReason) {
        self.drop_n(why, 1);
    }

    /// `n` packets were dropped.
    #[inline]
    pub fn drop_n(&mut self, why: DropReason, n: u64) {
        if let Some(c) = self.drops.get_mut(why as usize) {
            *c = c.wrapping_add(n);
        }
    }

    /// `n` more of `what`.
    #[inline]
    pub fn add(&mut self, what: Count, n: u64) {
        if let Some(c) = self.counts.get_mut(what as usize) {
            *c = c.wrapping_add(n);
        }
    }

    /// How many packets were dropped for this reason.
    pub fn dropped(&self, why: DropReason) -> u64 {
        self.drops.get(why as usize).copied().unwrap_or(0)
    }

    /// How many packets were dropped for any reason.
    pub fn dropped_total(&self) -> u64 {
        self.drops.iter().fold(0, |a, b| a.wrapping_add(*b))
    }

    /// How many of `what` there were.
    pub fn count(&self, what: Count) -> u64 {
        self.counts.get(what as usize).copied().unwrap_or(0)
    }
}

/// The counters of one worker as others may read them at any time; each is exact, together they are a moment apart.
#[derive(Debug)]
pub struct DataStats {
    drops: [AtomicU64; DropReason::COUNT],
    counts: [AtomicU64; Count::COUNT],
    gauges: [AtomicU64; Gauge::COUNT],
}

impl Default for DataStats {
    fn default() -> Self {
        Self {
            drops: std::array::from_fn(|_| AtomicU64::new(0)),
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            gauges: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl DataStats {
    /// Makes `counters` what readers see.
    pub fn publish(&self, counters: &Counters) {
        for (to, from) in self.drops.iter().zip(&counters.drops) {
            to.store(*from, Ordering::Relaxed);
        }
        for (to, from) in self.counts.iter().zip(&counters.counts) {
            to.store(*from, Ordering::Relaxed);
        }
    }

    /// Sets the size of a table.
    pub fn set(&self, gauge: Gauge, value: usize) {
        if let Some(g) = self.gauges.get(gauge as usize) {
            g.store(value as u64, Ordering::Relaxed);
        }
    }

    /// How many packets were dropped for this reason.
    pub fn dropped(&self, why: DropReason) -> u64 {
        self.drops.get(why as usize).map_or(0, |c| c.load(Ordering::Relaxed))
    }

    /// How many of `what` there were.
    pub fn count(&self, what: Count) -> u64 {
        self.counts.get(what as usize).map_or(0, |c| c.load(Ordering::Relaxed))
    }

    /// The size of a table.
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.gauges.get(gauge as usize).map_or(0, |c| c.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_has_its_own_place_and_label() {
        let mut c = Counters::default();
        for (n, d) in DropReason::ALL.iter().enumerate() {
            c.drop_n(*d, n as u64 + 1);
        }
        let stats = DataStats::default();
        stats.publish(&c);
        for (n, d) in DropReason::ALL.iter().enumerate() {
            assert_eq!(stats.dropped(*d), n as u64 + 1);
        }
        let mut labels: Vec<_> = DropReason::ALL.iter().map(|d| d.as_str()).collect();
        labels.extend(Count::ALL.iter().map(|d| d.as_str()));
        let n = labels.len();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), n);
    }
}
