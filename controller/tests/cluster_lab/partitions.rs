//! Links that are cut: in one direction, in both, around the leader and around a follower. Clients reach every member all the
//! while, the one that is cut off too: it must not tell them what it cannot know.

use std::time::Duration;

use sallyport_proto::v1;
use tokio::task::JoinSet;

use super::lab::{Lab, slow_set, wait_for};
use super::workload::ask_for_certificate;

/// Which way nothing gets through.
#[derive(Clone, Copy, Debug)]
enum Cut {
    From,
    To,
    Both,
}

impl Lab {
    fn cut_off(&self, victim: u32, cut: Cut) {
        for other in (1..=3).filter(|n| *n != victim) {
            if matches!(cut, Cut::From | Cut::Both) {
                self.place.cut(victim, other);
            }
            if matches!(cut, Cut::To | Cut::Both) {
                self.place.cut(other, victim);
            }
        }
        self.fault(format!("member {victim} is cut off: {cut:?}"));
    }

    fn heal(&self) {
        self.place.heal();
        self.fault("all links are whole");
    }

    /// While a member is cut off, it must not answer whatever it is asked; returns how often it was. Among that are certificates: one that
    /// led has the authority's key open, and what it signs now must not get out. (What becomes of its requests later, the history says:
    /// no request makes two certificates, and what is acknowledged is on record.)
    async fn is_mute(&self, victim: u32) -> u32 {
        let mut questions = JoinSet::new();
        // No answer is as good as a refusal, which comes when the member gives up hope.
        let patience = Duration::from_millis(if slow_set() { 10_000 } else { 1_500 });
        for n in 0..12 {
            let mut reader = self.world().reader(victim);
            let number = self.world().number();
            questions.spawn(async move {
                let asked = async {
                    match n % 4 {
                        3 => ask_for_certificate(reader, &format!("m{number}.example.com"), number).await.is_ok(),
                        0 => reader.get_settings(v1::GetSettingsRequest {}).await.is_ok(),
                        1 => reader.list_sessions(v1::ListSessionsRequest::default()).await.is_ok(),
                        _ => reader.create_cluster_token(v1::CreateClusterTokenRequest { ttl_s: 60 }).await.is_ok(),
                    }
                };
                let answered = tokio::time::timeout(patience, asked).await.unwrap_or(false);
                assert!(!answered, "member {victim} is cut off from the others and has answered question {n}");
            });
        }
        let mut asked = 0;
        while let Some(question) = questions.join_next().await {
            question.expect("refused");
            asked += 1;
        }
        asked
    }
}

/// Who is cut off answers nothing and stands for nothing, and the others go on.
pub(crate) async fn act(lab: &mut Lab) -> String {
    let mut refused = 0;
    // The quick set cuts off a follower both ways, below.
    let rounds = if slow_set() { [Cut::Both, Cut::From, Cut::To].repeat(5) } else { vec![Cut::From, Cut::To] };
    let count = rounds.len();
    for cut in rounds {
        let leader = lab.whole(3).await;
        lab.cut_off(leader, cut);
        lab.goes_on("sessions without the old leader").await;
        let next = lab.leader_without(leader).await;
        lab.fault(format!("member {next} leads"));
        refused += lab.is_mute(leader).await;
        lab.heal();
    }
    // A follower that nobody hears, and that hears nobody: the others keep their leader.
    let leader = lab.whole(3).await;
    let follower = leader % 3 + 1;
    let doubted = lab.member(follower).doubts();
    lab.cut_off(follower, Cut::Both);
    let mut newcomer = lab.newcomer(leader, follower).await;
    let on = lab.goes_on("sessions without a follower");
    let (mute, answered, _) = tokio::join!(lab.is_mute(follower), newcomer.is_answered(), on);
    assert!(!answered, "member {follower} is cut off, and lets in somebody of whom it cannot know");
    refused += mute;
    wait_for("the follower to find the leader silent", || {
        let doubts = lab.member(follower).doubts() > doubted;
        async move { doubts.then_some(()) }
    })
    .await;
    // Whoever stands raises the term. The others may have come to a higher one by themselves, on a machine that does much else.
    let own = lab.term(|seen_by| seen_by == follower).await;
    let others = lab.term(|seen_by| seen_by != follower).await;
    assert!(own <= others, "member {follower} stood while it was cut off: term {own}, and {others} among the others");
    lab.heal();
    newcomer.gets_in().await;
    // One link between two of three: both still reach the third.
    if slow_set() {
        let leader = lab.whole(3).await;
        let other = leader % 3 + 1;
        lab.place.cut(leader, other);
        lab.fault(format!("nothing gets from {leader} to {other}"));
        lab.goes_on("sessions with one link cut").await;
        // Whatever the two that do not hear each other do, it takes them longer than an election.
        tokio::time::sleep(Duration::from_secs(20)).await;
        lab.goes_on("sessions with one link cut for a while").await;
        lab.heal();
    }
    lab.whole(3).await;
    format!("{count} leaders and a follower cut off, {refused} questions not answered by them")
}
