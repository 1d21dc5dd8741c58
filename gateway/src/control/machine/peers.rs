//! IKE's side: peers and their ESP SAs.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use sallyport_base::{Instant, PeerId, Source};
use sallyport_crypto::suite::EspKeys;
use sallyport_esp::{InboundSa, OutboundSa, SaConfig};
use sallyport_ike as ike;
use sallyport_ppp as ppp;
use sallyport_proto::v1;
use tracing::{info, warn};

use super::{Machine, MachineKey, Output, Peer};
use crate::control::audit::Who;
use crate::link::{InstallSa, OuterPath, ToData};

impl Machine {
    pub(super) fn handle_ike(&mut self, now: Instant, output: ike::Output) {
        match output {
            ike::Output::Transmit { local, remote, bytes } => self.data(ToData::SendIke { local, remote, bytes }),
            ike::Output::Job { id, job } => self.out.push_back(Output::Job(id, job)),
            // A gateway behind a NAT is reached through a fixed mapping: there is nothing to keep alive.
            ike::Output::Keepalive { .. } => {}
            ike::Output::Event(event) => self.handle_ike_event(now, event),
        }
    }

    pub(super) fn handle_ike_event(&mut self, now: Instant, event: ike::Event) {
        match event {
            ike::Event::PeerUp(up) => self.peer_up(now, up),
            ike::Event::PeerRekeyed { peer, token } => {
                info!(%peer, "ISAKMP SA rekeyed");
                // The machine may have a newer certificate by now: its revocation must find the peer.
                if let (Some(admitted), Some(p)) = (self.certificates.remove(&token), self.peers.get_mut(&peer)) {
                    let proven = &admitted.machine;
                    if let Some(machine) = &mut p.who.machine {
                        machine.certificate_serial.clone_from(&proven.serial);
                    }
                    (p.certificate_serial, p.fingerprint) = (proven.serial.clone(), Some(proven.fingerprint));
                    self.check_admitted(now, peer, &admitted);
                }
            }
            ike::Event::PeerMoved { peer, local, remote } => {
                self.peer_moved(peer, local, remote);
                // Where the peer is changes; how its ESP travels was negotiated.
                let encap = self.peers.get(&peer).is_none_or(|p| p.encap);
                self.data(ToData::MovePeer { peer, path: OuterPath { local, remote, encap } });
            }
            ike::Event::ChildPrepared(child) => self.install(&child, false),
            ike::Event::ChildUp(child) => {
                let known = self.peers.get(&child.peer).is_some_and(|p| p.spis.contains(&child.spi_in));
                if known {
                    self.data(ToData::SwitchOutbound { spi_in: child.spi_in });
                } else {
                    self.install(&child, true);
                }
                if let Some(peer) = self.peers.get_mut(&child.peer) {
                    peer.suite = child.suite.to_string();
                }
                info!(
                    peer = %child.peer, spi_in = format_args!("{:08x}", child.spi_in), suite = %child.suite,
                    encap = child.udp_encap, replaces = child.replaces.is_some(), "ESP SA up"
                );
            }
            ike::Event::ChildDown { peer, spi_in, reason } => {
                let installed = self.peers.get_mut(&peer).is_some_and(|p| p.spis.remove(&spi_in));
                if installed {
                    info!(%peer, spi_in = format_args!("{spi_in:08x}"), %reason, "ESP SA down");
                    self.data(ToData::RemoveSa { spi_in });
                }
            }
            ike::Event::PeerDown { peer, reason } => {
                info!(%peer, %reason, "peer gone");
                self.down_reasons.insert(peer, reason);
                self.l2tp.peer_gone(now, peer);
                while let Some(output) = self.l2tp.poll_output() {
                    self.handle_l2tp(now, output);
                }
                self.down_reasons.remove(&peer);
                if let Some(gone) = self.peers.remove(&peer) {
                    self.remove_peer_of(&gone.key);
                }
                self.data(ToData::RemovePeer { peer });
            }
            ike::Event::Refused(r) => {
                let mut who = r.peer.and_then(|p| self.peers.get(&p)).map(|p| p.who.clone()).unwrap_or_default();
                who.remote = r.remote.to_string();
                if let Some(identity) = r.identity {
                    who.claimed_identity = identity;
                }
                let phase = match r.phase {
                    ike::Phase::QuickMode => v1::Phase::IkeQuickMode,
                    ike::Phase::MainMode | ike::Phase::Other => v1::Phase::IkeMainMode,
                };
                let cause = match r.suppressed {
                    0 => r.cause,
                    n => format!("{} ({n} more refusals of strangers before this one are not listed)", r.cause),
                };
                let recorded = self.recorded.take();
                self.refused(recorded, &who, phase, cause, r.remedy);
            }
        }
    }

    pub(super) fn peer_up(&mut self, now: Instant, up: ike::PeerUp) {
        // What it proved counts, not what is left of it here: without its serial a machine is let in by no controller.
        let auth = match up.method {
            ike::AuthMethod::PreSharedKey => v1::MachineAuth::Psk,
            ike::AuthMethod::Signature(_) => v1::MachineAuth::Certificate,
        };
        let admitted = self.certificates.remove(&up.token);
        let fingerprint = admitted.as_ref().map(|a| a.machine.fingerprint);
        let certificate_serial = admitted.as_ref().map(|a| a.machine.serial.clone()).unwrap_or_default();
        info!(
            peer = %up.peer, remote = %up.remote, name = up.name, transform = up.transform, behind_nat = up.behind_nat,
            "ISAKMP SA up"
        );
        let who = Who {
            remote: up.remote.to_string(),
            machine: Some(v1::MachineIdentity {
                auth: auth.into(),
                name: up.name,
                certificate_serial: certificate_serial.clone(),
            }),
            claimed_identity: up.id.to_string(),
            user: String::new(),
        };
        let key = match certificate_serial.as_str() {
            "" => MachineKey::Source(Source::of(up.remote.ip())),
            serial => MachineKey::Certificate(serial.to_owned()),
        };
        let (suite, spis) = (String::new(), BTreeSet::new());
        let (local, key_of) = (up.local, key.clone());
        let peer = Peer { who, local, suite, certificate_serial, fingerprint, spis, encap: true, key: key_of };
        let id = up.peer;
        if let Some(replaced) = self.peers.insert(id, peer) {
            self.remove_peer_of(&replaced.key);
        }
        if !self.add_peer_of(now, &key) {
            warn!(peer = %id, "too many peers with the same certificate: the newest goes");
            self.ike.disconnect(now, id, "too many connections with this certificate");
        }
        if let Some(admitted) = admitted {
            self.check_admitted(now, id, &admitted);
        }
    }

    pub(super) fn install(&mut self, child: &ike::ChildSa, activate: bool) {
        let Some(peer) = self.peers.get_mut(&child.peer) else {
            warn!(peer = %child.peer, "an ESP SA for a peer that is not up");
            return;
        };
        let kilobytes = child.lifetime_kilobytes.unwrap_or(0);
        let inbound = InboundSa::new(&sa_config(child.spi_in, &child.keys_in, kilobytes));
        let outbound = OutboundSa::new(&sa_config(child.spi_out, &child.keys_out, kilobytes), &mut self.rng);
        peer.spis.insert(child.spi_in);
        peer.encap = child.udp_encap;
        self.data(ToData::InstallSa(Box::new(InstallSa {
            peer: child.peer,
            spi_in: child.spi_in,
            spi_out: child.spi_out,
            inbound,
            outbound,
            path: OuterPath { local: child.local, remote: child.remote, encap: child.udp_encap },
            activate,
        })));
    }

    pub(super) fn peer_moved(&mut self, peer: PeerId, local: SocketAddr, remote: SocketAddr) {
        if let Some(p) = self.peers.get_mut(&peer) {
            info!(%peer, from = p.who.remote, to = %remote, "a peer moved");
            p.local = local;
            p.who.remote = remote.to_string();
            for session in self.sessions.values_mut().filter(|s| s.info.peer == peer) {
                session.who.remote = remote.to_string();
            }
        }
    }

    /// Ends everything of a peer: its links say goodbye, then IKE deletes its SAs.
    pub(super) fn drop_peer(&mut self, now: Instant, peer: PeerId, reason: ppp::CloseReason) {
        self.end_peer(now, peer, reason, "the certificate was revoked");
    }

    /// The same, with what is said to the log and the peer.
    pub(super) fn end_peer(&mut self, now: Instant, peer: PeerId, reason: ppp::CloseReason, why: &'static str) {
        let ids: Vec<u16> = self.sessions.iter().filter(|(_, s)| s.info.peer == peer).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.link.close(now, reason.clone());
            }
            self.pump_link(now, id);
        }
        self.ike.disconnect(now, peer, why);
    }
}

fn sa_config(spi: u32, keys: &EspKeys, kilobytes: u64) -> SaConfig {
    let mut config = SaConfig::new(spi, keys.clone());
    config.limits = config.limits.within_kilobytes(kilobytes);
    config
}
