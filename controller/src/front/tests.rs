use super::*;
use crate::app::tests::controller;
use crate::state::{Action, Outcome, ProfileRow, RevokeCertificate, SetProfile, SettingsRow, UpdateSettings};

const DAY_S: u64 = 86_400;

/// The certificates of the endpoint on record, the newest first.
fn on_record(core: &Core) -> Vec<CertificateRow> {
    let state = core.node.shared().read();
    let rows = state.certificates_before(u64::MAX).filter(|row| row.profile() == v1::CertificateProfile::Endpoint);
    rows.cloned().collect()
}

async fn done(core: &Core, action: Action) {
    let reply = core.propose(action).await.expect("proposes");
    assert!(matches!(reply.outcome, Some(Outcome::Done(_))), "{reply:?}");
}

#[tokio::test]
async fn the_endpoints_certificate_is_on_record_lives_for_days_and_is_replaced_when_it_is_due_or_taken_back() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (running, clock) = controller(dir.path()).await;
    let core = running.core().clone();
    // Beside the one that the controller itself looks after.
    let front = Front::new(&core).expect("a front");
    let mut shown = None;
    let look = async |shown: &mut Option<Shown>| {
        assert!(refresh(&core, &front, shown).await.expect("refreshes"));
        shown.as_ref().expect("one is shown").serial.clone()
    };
    let first = look(&mut shown).await;
    let row = core.node.shared().read().certificates.get(&first).cloned().expect("on record");
    assert_eq!((row.profile(), row.member, row.issuer), (v1::CertificateProfile::Endpoint, core.node.id(), 1));
    assert_eq!((row.not_after_ms - row.issued_ms) / 1_000, 7 * DAY_S);
    assert!(!row.fingerprint.is_empty() && row.sans.contains(&row.name), "{row:?}");
    assert_eq!(look(&mut shown).await, first, "it is still good");
    clock.advance(Duration::from_secs(4 * DAY_S));
    assert_eq!(look(&mut shown).await, first);
    clock.advance(Duration::from_secs(2 * DAY_S));
    let second = look(&mut shown).await;
    assert_ne!(second, first, "five sixths of its life are over, before which it is due at a time of its own");
    done(&core, Action::RevokeCertificate(RevokeCertificate { serial: second.clone(), reason: "x".into() })).await;
    let third = look(&mut shown).await;
    assert_ne!(third, second, "it was taken back");
    // As long as the profile says.
    let profile = ProfileRow { validity_s: 3 * DAY_S, ..ProfileRow::initial(Profile::Endpoint) };
    done(&core, Action::SetProfile(SetProfile { name: "endpoint".into(), profile: Some(profile) })).await;
    let fourth = look(&mut shown).await;
    let newest = on_record(&core).into_iter().find(|row| row.serial == fourth).expect("on record");
    assert_eq!((newest.not_after_ms - newest.issued_ms) / 1_000, 3 * DAY_S);
    drop((core, front));
    running.shutdown().await;
}

/// Else it would make a key and an entry of the log each second, for ever.
#[tokio::test]
async fn where_the_profile_allows_none_of_the_names_nothing_is_made_and_it_is_said() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (running, _) = controller(dir.path()).await;
    let core = running.core().clone();
    let front = Front::new(&core).expect("a front");
    let row = core.node.shared().read().profile(Profile::Endpoint);
    let narrow = ProfileRow { name_suffixes: vec!["nowhere.example".into()], no_addresses: true, ..row };
    done(&core, Action::SetProfile(SetProfile { name: "endpoint".into(), profile: Some(narrow) })).await;
    let (before, mut shown) = (on_record(&core).len(), None);
    for _ in 0..3 {
        let refused = refresh(&core, &front, &mut shown).await.expect_err("none is allowed");
        assert!(refused.to_string().contains("profile endpoint"), "{refused}");
    }
    assert_eq!((on_record(&core).len(), shown.is_some()), (before, false));
    drop((core, front));
    running.shutdown().await;
}

/// The order of names follows the oldest certificates of gateways: each that ends would cost a certificate of each controller.
#[tokio::test]
async fn names_in_another_order_are_the_same_names() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (running, _) = controller(dir.path()).await;
    let core = running.core().clone();
    let front = Front::new(&core).expect("a front");
    let mut serials = Vec::new();
    let mut shown = None;
    for names in [&["a.example.com", "b.example.com"][..], &["b.example.com", "a.example.com"], &["b.example.com"]] {
        let public_names = names.iter().map(|name| (*name).to_owned()).collect();
        let settings = SettingsRow { public_names, ..core.node.shared().read().settings() };
        done(&core, Action::UpdateSettings(UpdateSettings { settings: Some(settings) })).await;
        assert!(refresh(&core, &front, &mut shown).await.expect("refreshes"));
        serials.push(shown.as_ref().expect("one is shown").serial.clone());
    }
    assert!(serials[0] == serials[1] && serials[1] != serials[2], "{serials:?}");
    drop((core, front));
    running.shutdown().await;
}
