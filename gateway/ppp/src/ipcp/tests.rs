use super::*;
use crate::option::IpcpOption as Opt;

const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 53);

fn server() -> Ipcp {
    Ipcp::server(&Accept {
        authenticator_response: None,
        message: String::new(),
        local: OURS,
        peer: THEIRS,
        dns: [Some(DNS), None],
        nbns: [None; 2],
        idle_timeout: None,
        session_timeout: None,
    })
}

fn list(options: &[Opt]) -> Vec<ConfigOption> {
    options.iter().map(Opt::to_option).collect()
}

#[test]
fn the_address_and_the_name_servers_are_given_by_nak() {
    let mut ipcp = server();
    let asked = list(&[Opt::Address(NONE), Opt::Server(IpcpKind::DNS1, NONE)]);
    let given = list(&[Opt::Address(THEIRS), Opt::Server(IpcpKind::DNS1, DNS)]);
    assert_eq!(ipcp.judge(&asked, false), Verdict::Nak(given.clone()));
    assert_eq!(ipcp.judge(&given, false), Verdict::Ack);
}

#[test]
fn a_client_that_leaves_its_address_out_is_given_one() {
    let mut ipcp = server();
    assert_eq!(ipcp.judge(&[], false), Verdict::Nak(list(&[Opt::Address(THEIRS)])));
    assert!(matches!(ipcp.judge(&[], true), Verdict::Impasse(_)));
}

#[test]
fn a_client_that_insists_on_its_name_server_keeps_its_address() {
    let mut ipcp = server();
    let asked = list(&[Opt::Address(THEIRS), Opt::Server(IpcpKind::DNS1, OURS)]);
    assert!(matches!(ipcp.judge(&asked, false), Verdict::Nak(_)));
    assert_eq!(ipcp.judge(&asked, true), Verdict::Reject(list(&[Opt::Server(IpcpKind::DNS1, OURS)])));
}

#[test]
fn a_server_keeps_its_own_address_and_can_do_without_naming_it() {
    let mut ipcp = server();
    ipcp.handle_nak(&list(&[Opt::Address(THEIRS)])).unwrap();
    assert_eq!(ipcp.request(), list(&[Opt::Address(OURS)]));
    ipcp.handle_reject(&list(&[Opt::Address(OURS)])).unwrap();
    assert_eq!(ipcp.request(), []);
    assert_eq!(ipcp.addresses(), (OURS, THEIRS));
}

#[test]
fn a_client_takes_what_it_is_given() {
    let mut ipcp = Ipcp::client(true);
    assert_eq!(ipcp.request().len(), 3);
    ipcp.handle_reject(&list(&[Opt::Server(IpcpKind::DNS2, NONE)])).unwrap();
    ipcp.handle_nak(&list(&[Opt::Address(THEIRS), Opt::Server(IpcpKind::DNS1, DNS)])).unwrap();
    assert_eq!(ipcp.request(), list(&[Opt::Address(THEIRS), Opt::Server(IpcpKind::DNS1, DNS)]));
    assert_eq!(ipcp.judge(&list(&[Opt::Address(OURS)]), false), Verdict::Ack);
    assert_eq!((ipcp.addresses(), ipcp.dns()), ((THEIRS, OURS), [Some(DNS), None]));
    let vj = Opt::Other(ConfigOption::new(2, [0, 0x2d, 15, 1]));
    assert_eq!(ipcp.judge(&list(core::slice::from_ref(&vj)), false), Verdict::Reject(list(&[vj])));
    assert!(ipcp.handle_reject(&list(&[Opt::Address(THEIRS)])).is_err());
}
