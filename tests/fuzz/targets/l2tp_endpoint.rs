//! All tunnels of a gateway, or of a client, against whatever control messages from three peers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_base::{Instant, PeerId};
use sallyport_fuzz::steps;
use sallyport_l2tp::{Config, Endpoint};

fn drain(endpoint: &mut Endpoint) {
    for _ in 0..10_000 {
        if endpoint.poll_output().is_none() {
            return;
        }
    }
    panic!("the endpoint does not come to rest");
}

fuzz_target!(|data: &[u8]| {
    let Some((role, data)) = data.split_first() else { return };
    let config = if role & 1 == 0 { Config::default() } else { Config::client("fuzz") };
    let mut endpoint = Endpoint::new(config, [7; 32], Instant::ZERO);
    if role & 1 != 0 {
        let _ = endpoint.connect(Instant::ZERO, PeerId(0));
    }
    drain(&mut endpoint);
    for step in steps(data) {
        let peer = PeerId(u64::from(step.choice & 3));
        match step.choice >> 2 {
            0..=55 => endpoint.handle_control(step.now, peer, 1701, step.packet),
            56..=60 => endpoint.handle_timeout(step.now),
            61 => endpoint.peer_gone(step.now, peer),
            62 => endpoint.shutdown(step.now),
            _ => endpoint.note_inbound(step.now, u16::from(step.choice)),
        }
        drain(&mut endpoint);
        assert!(endpoint.tunnel_count() <= 64 && endpoint.session_count() <= 64);
    }
});
