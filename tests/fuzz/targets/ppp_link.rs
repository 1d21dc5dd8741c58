//! A PPP link in either role against whatever frames: LCP, PAP, CHAP, IPCP and their options; and MSS clamping.
#![no_main]

use std::net::Ipv4Addr;

use libfuzzer_sys::fuzz_target;
use sallyport_base::Instant;
use sallyport_fuzz::steps;
use sallyport_ppp::{Accept, Answer, AuthMethod, ClientConfig, Link, Output, Reject, ServerConfig, clamp_mss, strip};

/// Takes what the link says and answers its questions, with yes or no as `choice` has it.
fn drain(link: &mut Link, now: Instant, choice: u8) {
    for _ in 0..10_000 {
        match link.poll_output() {
            Some(Output::Question(question, request)) => {
                let answer = if choice & 1 == 0 {
                    Answer::Accept(Accept {
                        authenticator_response: Some(format!("S={}", "0".repeat(40))),
                        message: String::new(),
                        local: Ipv4Addr::new(10, 0, 0, 1),
                        peer: Ipv4Addr::new(10, 0, 0, 2),
                        dns: [Some(Ipv4Addr::new(10, 0, 0, 3)), None],
                        nbns: [None; 2],
                        idle_timeout: None,
                        session_timeout: None,
                    })
                } else {
                    Answer::Reject(Reject {
                        error: 691,
                        retry: choice & 2 != 0,
                        message: "no".into(),
                        cause: format!("{} by {}", request.user, request.method.method()),
                        remedy: String::new(),
                    })
                };
                link.handle_answer(now, question, answer);
            }
            Some(_) => {}
            None => return,
        }
    }
    panic!("the link does not come to rest");
}

fuzz_target!(|data: &[u8]| {
    let _ = strip(data);
    let mut packet = data.to_vec();
    clamp_mss(&mut packet, 1400);

    let Some((role, data)) = data.split_first() else { return };
    let methods = vec![AuthMethod::MsChapV2, AuthMethod::ChapMd5, AuthMethod::Pap];
    let mut link = if role & 1 == 0 {
        Link::server(ServerConfig { methods, ..ServerConfig::default() }, [7; 32], Instant::ZERO)
    } else {
        Link::client(ClientConfig { methods, ..ClientConfig::new("ada", "secret") }, [7; 32], Instant::ZERO)
    };
    drain(&mut link, Instant::ZERO, *role >> 1);
    for step in steps(data) {
        if step.choice & 0x80 == 0 {
            link.handle_frame(step.now, step.packet);
        } else {
            link.handle_timeout(step.now);
        }
        drain(&mut link, step.now, step.choice);
    }
});
