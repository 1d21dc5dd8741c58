//! All controllers restarted, one after the other, in order and with the lead handed over, as an operator would for a new version;
//! and with one: the group is begun by an older software.
//!
//! Without more that is this software, which takes itself for an older one. `SALLYPORT_OTHER_BINARY` names a `sallyport` binary
//! that was built of an older commit: that one founds the group and joins it, then it is changed for this software on one machine
//! after the other. Until the last one has followed a machine can go back, and what is new is refused; afterwards what is new is
//! allowed, and the older binary does not start any more.

use std::path::PathBuf;

use sallyport_controller::LEVEL;
use sallyport_proto::v1;
use tonic::{Code, Status};

use super::history::Event;
use super::lab::{Lab, slow_set, wait_for};
use super::member::Program;
use super::workload::{passes, with_id};

/// A `sallyport` binary of an older version, to begin with.
const OTHER: &str = "SALLYPORT_OTHER_BINARY";

fn other() -> Option<Program> {
    std::env::var_os(OTHER).map(PathBuf::from).map(Program::Other)
}

/// What the group is begun with.
fn older() -> Program {
    other().unwrap_or(Program::Old)
}

pub(crate) fn prepare(lab: &mut Lab) {
    let old = older();
    lab.members.iter_mut().for_each(|member| member.program = old.clone());
}

impl Lab {
    /// The member hands the lead over if it has it.
    async fn hand_over(&mut self, number: u32) {
        if self.whole(3).await == number {
            let to = wait_for("the lead to be handed over", || async {
                let request = v1::TransferLeaderRequest { id: 0 };
                self.world().reader(number).transfer_leader(request).await.ok().map(|a| a.into_inner().leader_id)
            });
            let to = to.await;
            self.fault(format!("member {number} has handed the lead over to {to}"));
        }
    }

    /// Restarts one, after it has handed the lead over.
    async fn renew_member(&mut self, number: u32, program: &Program) {
        self.hand_over(number).await;
        self.fault(format!("member {number} is terminated, and started as {program:?}"));
        self.member(number).terminate().await;
        self.goes_on("sessions while it is away").await;
        self.member(number).program = program.clone();
        self.start_again(number).await;
    }

    /// Asks one member for what the older software does not know.
    async fn asks_for_what_is_new(&self, at: u32) -> Result<(), Status> {
        if other().is_some() {
            return self.asks_for_delta_lists(at).await;
        }
        self.world().reader(at).revoke_cluster_tokens(v1::RevokeClusterTokensRequest {}).await.map(drop)
    }

    /// Asks for delta lists, which are of level 8: a change of the register that all clients change.
    async fn asks_for_delta_lists(&self, at: u32) -> Result<(), Status> {
        let world = self.world();
        loop {
            let mut settings = wait_for("the settings", || async { world.read(at, world.reader(at)).await.ok() }).await;
            let write = world.number();
            settings.delta_crl = true;
            settings.audit_keep = u32::try_from(1_000 + write % 900_000).expect("fits");
            world.history.note(Event::Writing { write, version: settings.version + 1, value: settings.audit_keep });
            let answer = wait_for("an answer about the settings", || async {
                let request = v1::UpdateSettingsRequest { settings: Some(settings.clone()) };
                let answer = world.reader(at).update_settings(with_id(request, write)).await;
                (!answer.as_ref().is_err_and(passes)).then_some(answer)
            });
            match answer.await {
                Ok(_) => {
                    world.history.note(Event::Written { write });
                    return Ok(());
                }
                Err(status) => {
                    world.history.note(Event::Refused { write });
                    if status.code() != Code::Aborted {
                        return Err(status);
                    }
                }
            }
        }
    }

    /// The older software does not start where the group has gone on.
    async fn refuses_to_go_back(&mut self, number: u32, old: &Program) {
        let own = self.member(number).program.clone();
        self.hand_over(number).await;
        self.fault(format!("member {number} is terminated, and started as {old:?}, which is too old now"));
        self.member(number).terminate().await;
        self.member(number).program = old.clone();
        self.restart(number);
        let status = self.member(number).ended().await;
        let said = self.member(number).log();
        assert!(!status.success() && said.contains("knows levels up to"), "{status}: {said}");
        self.member(number).program = own;
        self.start_again(number).await;
    }

    /// The level in force.
    async fn level(&self) -> u32 {
        wait_for("the level", || async { self.cluster(self.world().readers()[0].0).await.map(|c| c.level) }).await
    }
}

/// Restarts all and lets no call of the gateway fail.
pub(crate) async fn act(lab: &mut Lab) -> String {
    let failed = lab.world().failed();
    let rounds = if slow_set() { 3 } else { 1 };
    let (old, own, begun) = (older(), Program::Own, lab.level().await);
    for _ in 0..rounds {
        let leader = lab.whole(3).await;
        for number in [leader % 3 + 1, (leader + 1) % 3 + 1, leader] {
            if number == leader && lab.level().await < LEVEL {
                assert_eq!(lab.level().await, begun, "one of three does not know more");
                // What an older leader does not know of, it cannot refuse.
                lab.hand_over(leader).await;
                let new = lab.whole(3).await;
                let refused = lab.asks_for_what_is_new(new).await.expect_err("one of three does not know it");
                assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
                // What was begun can be taken back until the last one has followed.
                if slow_set() || other().is_some() {
                    lab.renew_member(leader % 3 + 1, &old).await;
                    lab.renew_member(leader % 3 + 1, &own).await;
                }
            }
            lab.renew_member(number, &own).await;
        }
        lab.whole(3).await;
        lab.goes_on("sessions with all restarted").await;
    }
    wait_for("the new level", || async { (lab.level().await == LEVEL).then_some(()) }).await;
    let leader = lab.whole(3).await;
    lab.asks_for_what_is_new(leader).await.expect("all know it");
    lab.world().ask_again_for_certificates();
    if other().is_some() && begun < LEVEL {
        lab.goes_on("sessions at the new level").await;
        lab.refuses_to_go_back(leader % 3 + 1, &old).await;
        lab.whole(3).await;
    }
    assert_eq!(lab.world().failed(), failed, "calls of the gateway failed though each was tried at every controller");
    let from = if begun < LEVEL { format!("from level {begun} to {LEVEL}, ") } else { String::new() };
    let by = if other().is_some() { "of an older binary, " } else { "" };
    format!("{rounds} rolling restarts, {by}{from}no call failed")
}
