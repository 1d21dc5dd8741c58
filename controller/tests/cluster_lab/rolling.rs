//! All controllers restarted, one after the other, in order and with the lead handed over, as an operator would for a new version;
//! and with one: the group is begun by an older software.

use std::path::PathBuf;

use sallyport_controller::LEVEL;
use sallyport_proto::v1;
use tonic::Code;

use super::lab::{Lab, slow_set, wait_for};
use super::member::{OLD_LEVEL, Program};

/// A `sallyport` binary of another version, to go to and come back from.
const OTHER: &str = "SALLYPORT_OTHER_BINARY";

fn other() -> Option<Program> {
    std::env::var_os(OTHER).map(PathBuf::from).map(Program::Other)
}

pub(crate) fn prepare(lab: &mut Lab) {
    if other().is_none() {
        lab.members.iter_mut().for_each(|member| member.program = Program::Old);
    }
}

impl Lab {
    /// Restarts one, after it has handed the lead over if it has it.
    async fn renew_member(&mut self, number: u32, program: &Program) {
        if self.whole(3).await == number {
            let to = wait_for("the lead to be handed over", || async {
                let request = v1::TransferLeaderRequest { id: 0 };
                self.world().reader(number).transfer_leader(request).await.ok().map(|a| a.into_inner().leader_id)
            });
            let to = to.await;
            self.fault(format!("member {number} has handed the lead over to {to}"));
        }
        self.fault(format!("member {number} is terminated, and started as {program:?}"));
        self.member(number).terminate().await;
        self.goes_on("sessions while it is away").await;
        self.member(number).program = program.clone();
        self.start_again(number).await;
    }

    /// Asks for what the older software does not know.
    async fn asks_for_what_is_new(&self) -> Result<(), tonic::Status> {
        let (_, mut reader) = self.world().readers().swap_remove(0);
        reader.revoke_cluster_tokens(v1::RevokeClusterTokensRequest {}).await.map(drop)
    }

    /// The level in force.
    async fn level(&self) -> u32 {
        wait_for("the level", || async { self.cluster(self.world().readers()[0].0).await.map(|c| c.level) }).await
    }
}

/// Restarts all and lets no call of the gateway fail.
pub(crate) async fn act(lab: &mut Lab) -> String {
    let failed = lab.world().failed();
    let mut programs = match other() {
        // Half-way there, back, and all the way.
        Some(other) => vec![other, Program::Own],
        None => vec![Program::Own],
    };
    if slow_set() {
        programs = vec![programs; 3].concat();
    }
    let old = lab.level().await < LEVEL;
    for program in &programs {
        let leader = lab.whole(3).await;
        for number in [leader % 3 + 1, (leader + 1) % 3 + 1, leader] {
            if number == leader && lab.level().await == OLD_LEVEL {
                lab.whole(3).await;
                let refused = lab.asks_for_what_is_new().await.expect_err("one of three does not know it");
                assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
                // What was begun can be taken back until the last one has followed.
                if slow_set() {
                    lab.renew_member(leader % 3 + 1, &Program::Old).await;
                    lab.renew_member(leader % 3 + 1, program).await;
                }
            }
            lab.renew_member(number, program).await;
        }
        lab.whole(3).await;
        lab.goes_on("sessions with all restarted").await;
    }
    wait_for("the new level", || async { (lab.level().await == LEVEL).then_some(()) }).await;
    lab.asks_for_what_is_new().await.expect("all know it");
    lab.world().ask_again_for_certificates();
    assert_eq!(lab.world().failed(), failed, "calls of the gateway failed though each was tried at every controller");
    let from = if old { format!("from level {OLD_LEVEL} to {LEVEL}, ") } else { String::new() };
    format!("{} rolling restarts, {from}no call failed", programs.len())
}
