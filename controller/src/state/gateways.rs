//! Gateways: slots and incarnations.

use sallyport_proto::v1;

use super::{
    ConflictKind, GATEWAYS_LEVEL, GatewayRow, LoseGateway, MAX_SLOT, Outcome, RegisterGateway, Registered,
    RemoveGateway, Reply, State,
};

/// The level from which on it is known since when a gateway is silent.
const GONE_LEVEL: u32 = 8;
/// Silence after which nobody waits for a gateway: fourteen days.
const GONE_MS: u64 = 14 * 24 * 3_600 * 1_000;

impl State {
    pub(super) fn register_gateway(&mut self, command: &RegisterGateway) -> Reply {
        if command.name.is_empty() || command.boot_id.is_empty() {
            return Reply::conflict(ConflictKind::Invalid, "a gateway needs a name and a boot id");
        }
        let known = self.index.slot_of_gateway.get(&command.name).copied();
        let Some(slot) = known.or_else(|| (1..=MAX_SLOT).find(|slot| !self.gateways.contains(slot))) else {
            return Reply::conflict(
                ConflictKind::Exhausted,
                format!("all {MAX_SLOT} slots are taken; remove gateways that are gone: sallyport gateway remove NAME"),
            );
        };
        let now_ms = self.now_ms();
        let before = self.gateways.get(&slot).cloned().unwrap_or_default();
        let same = before.boot_id == command.boot_id && !before.lost;
        if !same {
            // The process that carried them is gone, or was given up.
            self.end_sessions_of_slot(slot, "the gateway started anew");
        }
        let epoch = if same { before.epoch } else { self.next_epoch() };
        let row = GatewayRow {
            name: command.name.clone(),
            epoch,
            boot_id: command.boot_id.clone(),
            version: command.version.clone(),
            addresses: command.addresses.clone(),
            max_sessions: command.max_sessions,
            registered_ms: if same { before.registered_ms } else { now_ms },
            lost: false,
            lost_ms: 0,
        };
        self.index.slot_of_gateway.insert(command.name.clone(), slot);
        self.gateways.insert(slot, row);
        Outcome::Registered(Registered { slot, epoch }).into()
    }

    pub(super) fn lose_gateway(&mut self, command: &LoseGateway) -> Reply {
        match self.gateways.get(&command.slot) {
            Some(gateway) if gateway.epoch == command.epoch && !gateway.lost => {
                let lost_ms = if self.level() >= GONE_LEVEL { self.now_ms().max(1) } else { 0 };
                if let Some(gateway) = self.gateways.change(&command.slot) {
                    (gateway.lost, gateway.lost_ms) = (true, lost_ms);
                }
                self.notices += 1; // its policy stream, if it still has one, ends
                Reply::ended(self.end_sessions_of_slot(command.slot, "the gateway fell silent"))
            }
            _ => Reply::done(), // it came back or was given up before
        }
    }

    pub(super) fn remove_gateway(&mut self, command: &RemoveGateway) -> Reply {
        let slot = self.index.slot_of_gateway.get(&command.name).copied();
        let retired = self.level() >= GATEWAYS_LEVEL && self.retire_gateway(&command.name);
        let Some(slot) = slot else {
            if retired {
                return Reply::ended(0); // it never came
            }
            return Reply::conflict(ConflictKind::NotFound, format!("there is no gateway {:?}", command.name));
        };
        // While its name is known, for their records.
        let ended = self.end_sessions_of_slot(slot, "the gateway was removed");
        self.index.slot_of_gateway.remove(&command.name);
        self.gateways.remove(&slot);
        self.notices += 1;
        Reply::ended(ended)
    }

    fn next_epoch(&mut self) -> u64 {
        let mut epoch = 0;
        self.change_core(|core| {
            core.last_epoch += 1;
            epoch = core.last_epoch;
        });
        epoch
    }

    fn end_sessions_of_slot(&mut self, slot: u32, text: &str) -> u32 {
        let ids = self.index.sessions_of_slot.get(&slot).cloned().unwrap_or_default();
        let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        for id in ids {
            self.end_session(id, v1::EndReason::GatewayLost, text);
        }
        count
    }

    /// Whether a gateway has been silent for so long that nobody waits for it: its certificates are neither overdue, nor do they hold
    /// up a change of roots. It may come back, by what it has or by a token.
    pub fn is_gone(&self, gateway: &str) -> bool {
        let row = self.slot_of_gateway(gateway).and_then(|slot| self.gateways.get(&slot));
        row.is_some_and(|row| row.lost && row.lost_ms != 0 && self.now_ms().saturating_sub(row.lost_ms) >= GONE_MS)
    }

    /// The slot of a gateway.
    pub fn slot_of_gateway(&self, name: &str) -> Option<u32> {
        self.index.slot_of_gateway.get(name).copied()
    }
}
