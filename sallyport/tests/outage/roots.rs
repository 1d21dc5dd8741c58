//! A change of roots, as those live through it who are on machines of their own: a gateway, and an operator's folder.

use std::path::Path;

use sallyport_ca::{Certificate, pem};
use sallyport_gateway::renewal::Renewer;

use super::removed::operate;
use super::*;

/// A command of the operator's, which must succeed; its JSON.
fn ask(folder: &Path, controllers: &str, args: &[&str]) -> serde_json::Value {
    let said = operate(folder, controllers, &[args, &["-o", "json"]].concat());
    assert!(said.status.success(), "{args:?}: {}", String::from_utf8_lossy(&said.stderr));
    serde_json::from_slice(&said.stdout).unwrap_or_default()
}

fn roots(file: &Path) -> Vec<Vec<u8>> {
    pem::certificates(&std::fs::read(file).unwrap()).unwrap()
}

/// Whether all certificates of a gateway are of an authority below this root.
fn is_below(identity: &Identity, root: &Certificate) -> bool {
    let link = pem::certificates(&identity.grpc_chain).unwrap();
    let issuer = |chain: &Vec<Vec<u8>>| Certificate::from_der(&chain[1]).unwrap();
    identity.ike.iter().map(|ike| &ike.chain).chain([&link]).all(|chain| issuer(chain).is_issued_by(root))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_and_an_operator_live_through_a_change_of_roots_without_force_and_start_again_from_their_folders() {
    let mut site = Site::new().await;
    let (dir, temp) = (site.members[0].dir.path().join("gw1"), tempfile::tempdir().unwrap());
    let identity = Identity::load(&dir).unwrap();
    let [first] = pem::certificates(&identity.ca).unwrap().try_into().unwrap();
    let renewing = tokio::spawn(Renewer::new(site.controllers.clone(), identity, Some(dir.clone()), None).run());
    let addresses: Vec<String> = site.members.iter().map(|m| m.config.listen.to_string()).collect();
    let controllers = addresses.join(",");
    let folder = temp.path().join("ada");
    let own = site.members[0].dir.path().join("operator");
    ask(&own, &controllers, &["cert", "issue", "--operator", "ada", "--out", folder.to_str().unwrap()]);

    // The next root is prepared: both learn of it by what the first has signed.
    ask(&folder, &controllers, &["ca", "rollover", "begin"]);
    wait_for("the gateway's folder to hold both roots", || async {
        (pem::certificates(&Identity::load(&dir).unwrap().ca).unwrap().len() == 2).then_some(())
    })
    .await;
    let status = || ask(&folder, &controllers, &["ca", "rollover", "status"]);
    wait_for("the gateway to say so", || async {
        let waiting = status()["waiting_first"].as_array().unwrap().clone();
        (!waiting.iter().any(|w| w["name"] == "gw1")).then_some(())
    })
    .await;
    let [kept, next] = roots(&folder.join("ca.pem")).try_into().unwrap();
    assert_eq!(kept, first);
    let next = Certificate::from_der(&next).unwrap();

    // It is in force: the gateway has new certificates at once, the operator when he asks for them.
    ask(&folder, &controllers, &["ca", "rollover", "activate"]);
    wait_for("certificates below the next root", || async {
        is_below(&Identity::load(&dir).unwrap(), &next).then_some(())
    })
    .await;
    let early = operate(&folder, &controllers, &["ca", "rollover", "finish"]);
    assert!(!early.status.success(), "the operator's own certificate is below the first root");
    assert_eq!(ask(&folder, &controllers, &["cert", "renew"])["renewed"], true);
    assert_eq!(ask(&folder, &controllers, &["cert", "renew"])["renewed"], false, "once");
    let mut left = status();
    for _ in 0..60 {
        if left["still_below_the_root_before"] == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        left = status();
    }
    assert_eq!(left["still_below_the_root_before"], 0, "{left}");
    ask(&folder, &controllers, &["ca", "rollover", "finish"]);

    // The first root goes everywhere, and for good.
    wait_for("the gateway to give the first root up", || async {
        site.controllers.look_for_revoked_controllers().await;
        let there = Identity::load(&dir).unwrap();
        let gone = pem::certificates(&there.gone).unwrap_or_default();
        (pem::certificates(&there.ca).unwrap() == [next.der()] && gone == [first.clone()]).then_some(())
    })
    .await;
    wait_for("the operator's folder to do the same", || async {
        ask(&folder, &controllers, &["user", "list"]);
        (roots(&folder.join("ca.pem")) == [next.der()]).then_some(())
    })
    .await;
    assert_eq!(roots(&folder.join("ca-gone.pem")), [first]);

    // It serves, as it is and started anew.
    let session = site.login().await.unwrap();
    site.report(&session, v1::SessionState::Up);
    assert!(site.controllers.try_flush().await);
    renewing.abort();
    let (again, mut events) = gateway(&site.proxies, &dir).await;
    let request = v1::AuthenticateRequest {
        request_id: vec![0xee; 16],
        user: "ada".into(),
        method: Some(v1::authenticate_request::Method::Pap(v1::Pap { password: Some(v1::Secret::new("open sesame")) })),
        ..Default::default()
    };
    again.authenticate(77, request);
    let decision = loop {
        if let FromController::Authenticated { question: 77, decision } =
            within("a decision", events.recv()).await.expect("goes on")
        {
            break decision;
        }
    };
    assert!(matches!(decision, Ok(v1::authenticate_response::Decision::Accept(_))), "{decision:?}");
    for member in &mut site.members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_whose_key_was_stolen_is_believed_by_nobody_and_its_gateways_and_controllers_go_on_below_another()
{
    let mut site = Site::new().await;
    let (dir, temp) = (site.members[0].dir.path().join("gw1"), tempfile::tempdir().unwrap());
    let identity = Identity::load(&dir).unwrap();
    let stolen = identity.ike[0].chain[1].clone();
    let renewing = tokio::spawn(Renewer::new(site.controllers.clone(), identity, Some(dir.clone()), None).run());
    let addresses: Vec<String> = site.members.iter().map(|m| m.config.listen.to_string()).collect();
    let (controllers, folder) = (addresses.join(","), temp.path().join("ada"));
    let own = site.members[0].dir.path().join("operator");
    ask(&own, &controllers, &["cert", "issue", "--operator", "ada", "--out", folder.to_str().unwrap()]);
    let retire = ["ca", "issuer", "retire", "1", "--compromised"];
    let only = operate(&folder, &controllers, &retire);
    assert!(String::from_utf8_lossy(&only.stderr).contains("ca issuer add"), "{only:?}");

    ask(&folder, &controllers, &["ca", "issuer", "add", "--key", "ecdsa-p256", "--replace"]);
    ask(&folder, &controllers, &retire);
    let listed = ask(&folder, &controllers, &["ca", "list"]);
    assert!(listed.to_string().contains("compromised"), "{listed}");
    wait_for("certificates below the other authority", || async {
        Identity::load(&dir).unwrap().ike.iter().all(|ike| ike.chain[1] != stolen).then_some(())
    })
    .await;
    // The gateway knows it, and the controllers show certificates that it believes.
    site.controllers.look_for_revoked_controllers().await;
    wait_for("the controllers to be back", || async { (!site.controllers.are_away()).then_some(()) }).await;
    let session = site.login().await.unwrap();
    site.report(&session, v1::SessionState::Up);
    site.delivered().await;
    wait_for("the operator's tool to believe the controllers", || async {
        operate(&folder, &controllers, &["user", "list"]).status.success().then_some(())
    })
    .await;
    let kept = std::fs::read(folder.join("controllers.crl")).unwrap();
    let known = sallyport_ca::crl::Revocations::trusting(&std::fs::read(folder.join("ca.pem")).unwrap()).unwrap();
    known.take_all(&kept).unwrap();
    assert!(known.judge_authority(&stolen).is_err(), "the operator's folder says so");
    renewing.abort();
    for member in &mut site.members {
        member.stop().await;
    }
}
