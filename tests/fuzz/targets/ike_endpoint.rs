//! A responder, and an initiator that has begun, against whatever datagrams: half-open tables, fragments, cookies,
//! retransmissions, and the first exchanges up to the point where keys are needed.
#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use sallyport_base::{Instant, PeerId};
use sallyport_crypto::Rng;
use sallyport_crypto::Zeroizing;
use sallyport_crypto::dh::DhGroup;
use sallyport_fuzz::steps;
use sallyport_ike::{Answer, Config, Endpoint, Job, Output};

/// Does what an endpoint asks for, and sees that it comes to an end.
fn drain(endpoint: &mut Endpoint, now: Instant, rng: &mut Rng) {
    for _ in 0..10_000 {
        let Some(output) = endpoint.poll_output() else { return };
        if let Output::Job { id, job } = output {
            let answer = match job.compute(rng) {
                Ok(answer) => answer,
                Err(Job::PreSharedKey { .. }) => Answer::PreSharedKey(Some(Zeroizing::new(b"secret".to_vec()))),
                Err(_) => Answer::Failed("not here".into()),
            };
            endpoint.handle_answer(now, id, answer);
        }
    }
    panic!("the endpoint does not come to rest");
}

fuzz_target!(|data: &[u8]| {
    let config = Config { pre_shared_key: true, groups: vec![DhGroup::Ecp256], ..Config::default() };
    let (mut endpoint, mut rng) = (Endpoint::new(config, [7; 32], Instant::ZERO), Rng::from_seed([8; 32]));
    let mut now = Instant::ZERO;
    for step in steps(data) {
        now = step.now;
        let port = if step.choice & 1 == 0 { 500 } else { 4500 };
        let local = SocketAddr::from(([192, 0, 2, 1], port));
        let remote = SocketAddr::from(([198, 51, 100, step.choice >> 4], 500 + u16::from(step.choice & 2)));
        endpoint.handle_datagram(now, local, remote, step.packet);
        drain(&mut endpoint, now, &mut rng);
        if step.choice & 4 != 0 {
            endpoint.handle_timeout(now);
            drain(&mut endpoint, now, &mut rng);
        }
        if step.choice & 8 != 0 {
            endpoint.note_inbound(now, PeerId(u64::from(step.choice >> 4)));
        }
    }
    // Whatever came, no timer is left in the past once it has been served.
    for _ in 0..1_000 {
        match endpoint.poll_timeout() {
            Some(at) => {
                now = now.max(at);
                endpoint.handle_timeout(now);
                drain(&mut endpoint, now, &mut rng);
            }
            None => return,
        }
    }
});
