use super::*;
use crate::option::LcpOption as Opt;

fn lcp(role: Role, methods: &[AuthMethod]) -> Lcp {
    Lcp::new(role, methods.to_vec(), 1400, Rng::from_seed([1; 32]))
}

fn list(options: &[Opt]) -> Vec<ConfigOption> {
    options.iter().map(Opt::to_option).collect()
}

const BOTH: [AuthMethod; 2] = [AuthMethod::MsChapV2, AuthMethod::Pap];

#[test]
fn what_a_pppd_or_windows_asks_for_is_granted() {
    let mut lcp = lcp(Role::Server, &BOTH);
    let options = list(&[Opt::Mru(1400), Opt::Accm(0), Opt::Magic(7), Opt::Pfc, Opt::Acfc]);
    assert_eq!(lcp.judge(&options, false), Verdict::Ack);
    assert_eq!((lcp.peer_mru(), lcp.pfc(), lcp.acfc()), (1400, true, true));
    // Each request stands for itself.
    assert_eq!(lcp.judge(&[], false), Verdict::Ack);
    assert_eq!((lcp.peer_mru(), lcp.pfc(), lcp.acfc()), (1500, false, false));
}

#[test]
fn all_that_is_unknown_is_rejected_at_once_and_before_any_nak() {
    let mut lcp = lcp(Role::Server, &BOTH);
    let unwanted = [
        Opt::Callback(6, vec![]),
        Opt::Mrru(1614),
        Opt::ShortSequence,
        Opt::Endpoint(1, vec![1, 2]),
        Opt::LinkDiscriminator(4),
        AuthMethod::Pap.to_lcp_option(),
        Opt::Other(ConfigOption::new(77, [1])),
        Opt::Other(ConfigOption::new(1, [1, 2, 3])),
    ];
    let mut options = list(&unwanted);
    options.push(Opt::Mru(100).to_option());
    assert_eq!(lcp.judge(&options, false), Verdict::Reject(list(&unwanted)));
}

#[test]
fn a_tiny_mru_is_raised_and_a_stubborn_one_rejected() {
    let mut lcp = lcp(Role::Server, &BOTH);
    let options = list(&[Opt::Mru(0)]);
    assert_eq!(lcp.judge(&options, false), Verdict::Nak(list(&[Opt::Mru(576)])));
    assert_eq!(lcp.judge(&options, true), Verdict::Reject(options));
}

#[test]
fn a_magic_number_of_zero_or_of_ours_is_refused() {
    let mut lcp = lcp(Role::Server, &BOTH);
    assert!(matches!(lcp.judge(&list(&[Opt::Magic(0)]), false), Verdict::Nak(_)));
    for _ in 0..timer::MAX_LOOPS {
        let ours = lcp.magic();
        assert!(matches!(lcp.judge(&list(&[Opt::Magic(ours)]), false), Verdict::Nak(_)));
        assert_ne!(lcp.magic(), ours);
    }
    let ours = lcp.magic();
    assert!(matches!(lcp.judge(&list(&[Opt::Magic(ours)]), false), Verdict::Impasse(_)));
}

#[test]
fn the_servers_request_follows_the_clients_naks_and_rejects() {
    let mut lcp = lcp(Role::Server, &BOTH);
    let named = |lcp: &Lcp| lcp.request().iter().map(|o| o.kind).collect::<Vec<_>>();
    assert_eq!(named(&lcp), [1, 3, 5, 7, 8]);
    lcp.handle_nak(&list(&[Opt::Mru(1200)])).unwrap();
    assert_eq!(lcp.local_mru(), 1200);
    lcp.handle_nak(&list(&[Opt::Mru(9000)])).unwrap();
    assert_eq!((lcp.local_mru(), named(&lcp)), (1500, vec![3, 5, 7, 8]));
    lcp.handle_reject(&list(&[Opt::Pfc, Opt::Acfc, Opt::Magic(1)])).unwrap();
    assert_eq!((named(&lcp), lcp.magic()), (vec![3], 0));
    assert_eq!(lcp.method(), Some(AuthMethod::MsChapV2));
    lcp.handle_nak(&list(&[AuthMethod::Pap.to_lcp_option()])).unwrap();
    assert_eq!(lcp.method(), Some(AuthMethod::Pap));
    assert!(lcp.handle_nak(&list(&[AuthMethod::MsChapV2.to_lcp_option()])).is_err(), "it refused that before");
}

#[test]
fn a_client_takes_the_method_it_has_and_asks_for_it_otherwise() {
    let mut lcp = lcp(Role::Client, &BOTH);
    assert_eq!(lcp.judge(&list(&[AuthMethod::Pap.to_lcp_option()]), false), Verdict::Ack);
    assert_eq!(lcp.method(), Some(AuthMethod::Pap));
    let chap = list(&[AuthMethod::ChapMd5.to_lcp_option()]);
    assert_eq!(lcp.judge(&chap, false), Verdict::Nak(list(&[AuthMethod::MsChapV2.to_lcp_option()])));
    assert!(matches!(lcp.judge(&chap, true), Verdict::Impasse(_)));
    assert!(!lcp.request().iter().any(|o| o.kind == 3), "a client demands nothing");
}
