//! Every metric of the gateway, its name and its labels. Labels are closed sets: a peer cannot invent one.

use prometheus::{
    Encoder, Gauge as FloatGauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use sallyport_proto::v1;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::control::controller::{LogSight, Vitals};
use crate::control::held::{Lost, Report};
use crate::control::machine::{Judgement, Machine};
use crate::data::{Count, DataStats, DropReason, Gauge};
use crate::link::LinkStats;

/// The gateway's metrics.
pub struct Metrics {
    registry: Registry,
    /// Whether the data plane works.
    pub working: AtomicBool,
    data: Arc<DataStats>,
    link: Arc<LinkStats>,
    sessions: IntGauge,
    peers: IntGauge,
    half_open: IntGauge,
    embryonic: IntGauge,
    attempts_refused: IntCounterVec,
    sessions_up: IntCounter,
    sessions_down: IntCounterVec,
    controllers_away: IntGauge,
    audit_log_entries: IntGauge,
    audit_log_alarm: IntGauge,
    reports_held: IntGauge,
    reports_lost: IntCounterVec,
    packets: IntCounterVec,
    drops: IntCounterVec,
    data_gauges: IntGaugeVec,
    ike: IntCounterVec,
    l2tp: IntCounterVec,
    link_drops: IntCounterVec,
    carriages: IntCounterVec,
    machines: IntCounterVec,
    live_certificates: IntGauge,
    revocation_lag: FloatGauge,
    certificates: IntGaugeVec,
}

/// What became of a connection to the enrollment ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carriage {
    /// A controller served it.
    Carried,
    /// It ended in the middle.
    BrokenOff,
    /// It said nothing.
    Silent,
    /// No controller took it.
    Away,
    /// Too many at once.
    TooMany,
    /// Too many of its source at once.
    TooManyOfSource,
}

impl Carriage {
    const fn label(self) -> &'static str {
        match self {
            Self::Carried => "carried",
            Self::BrokenOff => "broken_off",
            Self::Silent => "silent",
            Self::Away => "away",
            Self::TooMany => "too_many",
            Self::TooManyOfSource => "too_many_of_source",
        }
    }
}

/// Brings a counter up to what was counted elsewhere. One task does that.
fn catch_up(counters: &IntCounterVec, what: &str, counted: u64) {
    let counter = counters.with_label_values(&[what]);
    counter.inc_by(counted.saturating_sub(counter.get()));
}

impl Metrics {
    /// Registers everything. Fails only if two metrics here have one name.
    pub fn new(data: Arc<DataStats>, link: Arc<LinkStats>) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let g = IntGauge::new(name, help)?;
            registry.register(Box::new(g.clone()))?;
            Ok(g)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let c = IntCounter::new(name, help)?;
            registry.register(Box::new(c.clone()))?;
            Ok(c)
        };
        let counters = |name: &str, help: &str, label: &str| -> Result<IntCounterVec, prometheus::Error> {
            let c = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(c.clone()))?;
            Ok(c)
        };
        let gauges = |name: &str, help: &str, label: &str| -> Result<IntGaugeVec, prometheus::Error> {
            let g = IntGaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(g.clone()))?;
            Ok(g)
        };
        Ok(Self {
            sessions: gauge("sallyport_gateway_sessions", "PPP sessions that are up")?,
            peers: gauge("sallyport_gateway_ipsec_peers", "IPsec peers that have authenticated")?,
            half_open: gauge("sallyport_gateway_ike_half_open", "IKE handshakes under way")?,
            embryonic: gauge(
                "sallyport_gateway_ike_embryonic",
                "First IKE messages whose senders have not shown that they hear us; a flood fills this table and no other",
            )?,
            attempts_refused: counters(
                "sallyport_gateway_attempts_refused_total",
                "Attempts to connect that were refused, by the phase in which they ended",
                "phase",
            )?,
            sessions_up: counter("sallyport_gateway_sessions_up_total", "Sessions that came up")?,
            sessions_down: counters(
                "sallyport_gateway_sessions_down_total",
                "Sessions that ended, by the reason",
                "reason",
            )?,
            audit_log_entries: gauge(
                "sallyport_gateway_audit_log_entries",
                "Entries of the controllers' audit log in the newest head that this gateway holds as its witness",
            )?,
            audit_log_alarm: gauge(
                "sallyport_gateway_audit_log_alarm",
                "1 while the controllers show another audit log than they did before",
            )?,
            controllers_away: gauge(
                "sallyport_gateway_controllers_away",
                "1 while no controller takes a life sign; tunnels that are up stay up, new ones are refused",
            )?,
            reports_held: gauge("sallyport_gateway_reports_held", "Reports that wait for a controller")?,
            reports_lost: counters(
                "sallyport_gateway_reports_lost_total",
                "Reports to the controllers that were dropped because too many were waiting",
                "what",
            )?,
            packets: counters("sallyport_gateway_data_total", "What the data plane has counted", "what")?,
            drops: counters("sallyport_gateway_data_dropped_total", "Packets that the data plane dropped", "reason")?,
            data_gauges: gauges("sallyport_gateway_data", "What the data plane holds", "what")?,
            ike: counters("sallyport_gateway_ike_total", "What IKE has counted", "what")?,
            l2tp: counters("sallyport_gateway_l2tp_total", "What L2TP has counted", "what")?,
            link_drops: counters(
                "sallyport_gateway_link_dropped_total",
                "Control packets dropped between the planes",
                "direction",
            )?,
            carriages: counters(
                "sallyport_gateway_enrollment_connections_total",
                "Connections to the enrollment ports that have ended, by what became of them",
                "outcome",
            )?,
            machines: counters(
                "sallyport_gateway_machines_total",
                "Machines with a good chain, by what was decided here: let in as known, refused as revoked, or the controllers asked",
                "decision",
            )?,
            live_certificates: gauge(
                "sallyport_gateway_live_certificates",
                "Certificates of machines that this gateway knows to be live",
            )?,
            revocation_lag: {
                let help = "Time since this gateway last knew all revocations, seconds; -1 while it never did";
                let lag = FloatGauge::new("sallyport_gateway_revocation_lag_seconds", help)?;
                registry.register(Box::new(lag.clone()))?;
                lag
            },
            certificates: gauges(
                "sallyport_gateway_certificate_not_after_seconds",
                "When each of the gateway's certificates ends, seconds since 1970; it renews them from two thirds of their life on",
                "certificate",
            )?,
            registry,
            working: AtomicBool::new(true),
            data,
            link,
        })
    }

    /// Counts what goes up to the controllers.
    pub fn note_report(&self, report: &Report) {
        match report {
            Report::Attempt(a) => {
                self.attempts_refused.with_label_values(&[phase_label(a.phase())]).inc();
            }
            Report::Session(s) => match s.state() {
                v1::SessionState::Down => {
                    self.sessions_down.with_label_values(&[end_label(s.end_reason())]).inc();
                }
                v1::SessionState::Up if s.counters.is_none_or(|c| c.rx_packets == 0 && c.tx_packets == 0) => {
                    self.sessions_up.inc();
                }
                v1::SessionState::Up | v1::SessionState::Authorized | v1::SessionState::Unspecified => {}
            },
        }
    }

    /// Counts a connection to the enrollment ports.
    pub fn note_carriage(&self, carriage: Carriage) {
        self.carriages.with_label_values(&[carriage.label()]).inc();
    }

    /// Counts a decision on a machine.
    pub fn note_judgement(&self, judgement: &Judgement) {
        let label = match judgement {
            Judgement::Admit => "known",
            Judgement::Refuse(_) => "revoked",
            Judgement::Ask(_) => "asked",
        };
        self.machines.with_label_values(&[label]).inc();
    }

    /// Brings up to date what is known of live certificates.
    pub fn publish_live(&self, certificates: usize, lag: Option<Duration>) {
        self.live_certificates.set(i64::try_from(certificates).unwrap_or(i64::MAX));
        self.revocation_lag.set(lag.map_or(-1.0, |lag| lag.as_secs_f64()));
    }

    /// Notes when one of the gateway's certificates ends, seconds since 1970.
    pub fn certificate_ends(&self, which: &'static str, at_s: i64) {
        self.certificates.with_label_values(&[which]).set(at_s);
    }

    /// Brings the gauges up to date with the machines.
    pub fn publish(&self, vitals: Vitals, machine: &Machine) {
        self.sessions.set(vitals.live_sessions.into());
        self.half_open.set(vitals.half_open.into());
        self.embryonic.set(i64::try_from(machine.embryonic()).unwrap_or(i64::MAX));
        self.peers.set(i64::try_from(machine.peers()).unwrap_or(i64::MAX));
        let (ike, l2tp) = machine.stats();
        for (name, n) in ike_counters(ike) {
            catch_up(&self.ike, name, n);
        }
        for (name, n) in l2tp_counters(l2tp) {
            catch_up(&self.l2tp, name, n);
        }
        for count in Count::ALL {
            catch_up(&self.packets, count.as_str(), self.data.count(*count));
        }
        for drop in DropReason::ALL {
            catch_up(&self.drops, drop.as_str(), self.data.dropped(*drop));
        }
        for gauge in Gauge::ALL {
            let n = i64::try_from(self.data.gauge(*gauge)).unwrap_or(i64::MAX);
            self.data_gauges.with_label_values(&[gauge.as_str()]).set(n);
        }
        catch_up(&self.link_drops, "to_data", self.link.to_data_dropped.load(Ordering::Relaxed));
        catch_up(&self.link_drops, "from_data", self.link.from_data_dropped.load(Ordering::Relaxed));
    }
}

impl Metrics {
    /// Brings up to date what concerns the controllers.
    pub fn publish_reports(&self, away: bool, held: usize, lost: Lost) {
        self.controllers_away.set(away.into());
        self.reports_held.set(i64::try_from(held).unwrap_or(i64::MAX));
        for (what, n) in [("updates", lost.updates), ("ends", lost.ends), ("attempts", lost.attempts)] {
            catch_up(&self.reports_lost, what, n);
        }
    }
}

impl Metrics {
    /// Brings up to date what concerns the audit log.
    pub fn publish_log(&self, sight: LogSight) {
        self.audit_log_entries.set(i64::try_from(sight.entries).unwrap_or(i64::MAX));
        self.audit_log_alarm.set(sight.alarm.into());
    }
}

impl sallyport_monitor::Monitored for Metrics {
    fn metrics(&self) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out).map_err(|e| e.to_string())?;
        Ok(out)
    }

    fn health(&self) -> Result<(), String> {
        // A gateway whose data worker is gone serves nobody.
        if self.working.load(Ordering::Relaxed) { Ok(()) } else { Err("the data plane has stopped".into()) }
    }
}

const fn phase_label(phase: v1::Phase) -> &'static str {
    match phase {
        v1::Phase::Unspecified => "unspecified",
        v1::Phase::IkeMainMode => "ike_main_mode",
        v1::Phase::IkeQuickMode => "ike_quick_mode",
        v1::Phase::L2tpTunnel => "l2tp_tunnel",
        v1::Phase::L2tpSession => "l2tp_session",
        v1::Phase::Lcp => "lcp",
        v1::Phase::Authentication => "authentication",
        v1::Phase::Authorization => "authorization",
        v1::Phase::Ipcp => "ipcp",
        v1::Phase::Up => "up",
        v1::Phase::Enrollment => "enrollment",
        v1::Phase::AuditLog => "audit_log",
    }
}

const fn end_label(reason: v1::EndReason) -> &'static str {
    match reason {
        v1::EndReason::Unspecified => "unspecified",
        v1::EndReason::Client => "client",
        v1::EndReason::PeerSilent => "peer_silent",
        v1::EndReason::IdleTimeout => "idle_timeout",
        v1::EndReason::SessionTimeout => "session_timeout",
        v1::EndReason::Killed => "killed",
        v1::EndReason::Revoked => "revoked",
        v1::EndReason::GatewayShutdown => "gateway_shutdown",
        v1::EndReason::GatewayLost => "gateway_lost",
        v1::EndReason::ProtocolError => "protocol_error",
        v1::EndReason::NeverUp => "never_up",
    }
}

fn ike_counters(s: &sallyport_ike::Stats) -> [(&'static str, u64); 23] {
    [
        ("received", s.received),
        ("sent", s.sent),
        ("malformed", s.malformed),
        ("unknown_cookies", s.unknown_cookies),
        ("authip", s.authip),
        ("ikev2", s.ikev2),
        ("not_spoken", s.not_spoken),
        ("repeated", s.repeated),
        ("retransmitted", s.retransmitted),
        ("unauthentic", s.unauthentic),
        ("unprotected_informational", s.unprotected_informational),
        ("main_mode_1", s.main_mode_1),
        ("embryonic_evicted", s.embryonic_evicted),
        ("half_open_evicted", s.half_open_evicted),
        ("jobs_refused", s.jobs_refused),
        ("phase1_up", s.phase1_up),
        ("phase2_up", s.phase2_up),
        ("refusals", s.refusals),
        ("refusals_suppressed", s.refusals_suppressed),
        ("fragments", s.fragments),
        ("fragments_dropped", s.fragments_dropped),
        ("dpd_sent", s.dpd_sent),
        ("dpd_dead", s.dpd_dead),
    ]
}

fn l2tp_counters(s: &sallyport_l2tp::Stats) -> [(&'static str, u64); 11] {
    [
        ("messages_in", s.messages_in),
        ("messages_out", s.messages_out),
        ("malformed", s.malformed),
        ("unknown_tunnel", s.unknown_tunnel),
        ("duplicates", s.duplicates),
        ("out_of_order", s.out_of_order),
        ("outside_window", s.outside_window),
        ("retransmissions", s.retransmissions),
        ("tunnels_up", s.tunnels_up),
        ("sessions_up", s.sessions_up),
        ("refused", s.refused),
    ]
}
