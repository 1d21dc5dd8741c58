//! Whatever comes from outside, from peers, from inside and from control.

use proptest::prelude::*;

use super::*;

/// A random change of the tables, to be checked against a model that is as simple as can be.
#[derive(Clone, Copy, Debug)]
enum Change {
    Install(u8, u8),
    Remove(u8),
    Session(u8, u8),
    End(u8),
    Forget(u8),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0u8..6, 0u8..12).prop_map(|(p, s)| Change::Install(p, s)),
        (0u8..12).prop_map(Change::Remove),
        (0u8..6, 0u8..12).prop_map(|(p, s)| Change::Session(p, s)),
        (0u8..12).prop_map(Change::End),
        (0u8..6).prop_map(Change::Forget),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn tables_hold_what_a_simple_model_holds(changes in proptest::collection::vec(change(), 0..120)) {
        use std::collections::{BTreeMap, BTreeSet};
        let mut rig = rig();
        let (mut sas, mut sessions) = (BTreeMap::new(), BTreeMap::new());
        let path = OuterPath { local: addr("198.51.100.1:4500"), remote: addr("203.0.113.5:4500"), encap: true };
        for c in changes {
            match c {
                Change::Install(p, s) => {
                    let (sa, _, _) = pair(GCM, PeerId(p.into()), 1000 + u32::from(s), path);
                    rig.apply(ToData::InstallSa(Box::new(sa)));
                    sas.insert(s, p);
                }
                Change::Remove(s) => {
                    rig.apply(ToData::RemoveSa { spi_in: 1000 + u32::from(s) });
                    sas.remove(&s);
                }
                Change::Session(p, s) => {
                    rig.apply(ToData::InstallSession(Box::new(InstallSession {
                        peer: PeerId(p.into()), peer_port: 1701, local_tunnel: 1, local_session: s.into(),
                        peer_tunnel: 1, peer_session: 1, sequencing: false, network: SessionNetwork::closed(),
                    })));
                    sessions.remove(&s);
                    if sas.values().any(|q| *q == p) || sessions.values().any(|q| *q == p) {
                        sessions.insert(s, p);
                    }
                }
                Change::End(s) => {
                    rig.apply(ToData::RemoveSession { local_tunnel: 1, local_session: s.into() });
                    sessions.remove(&s);
                }
                Change::Forget(p) => {
                    rig.apply(ToData::RemovePeer { peer: PeerId(p.into()) });
                    sas.retain(|_, q| *q != p);
                    sessions.retain(|_, q| *q != p);
                }
            }
            let peers: BTreeSet<u8> = sas.values().chain(sessions.values()).copied().collect();
            prop_assert_eq!(rig.fast.tables.sizes(), (peers.len(), sas.len(), sessions.len()));
            for p in 0u8..6 {
                let at = rig.fast.tables.find_peer(PeerId(p.into()));
                prop_assert_eq!(at.is_some(), peers.contains(&p));
                let outbound = at.and_then(|at| rig.fast.tables.peer(at)).and_then(|p| p.outbound);
                prop_assert_eq!(outbound.is_some(), sas.values().any(|q| *q == p));
            }
        }
    }

    /// Whatever strangers and peers send, nothing panics, nothing reaches the inside, and each packet leaves at most
    /// one message of its own size.
    #[test]
    fn arbitrary_datagrams_never_panic_and_never_pile_up(
        datagrams in proptest::collection::vec((0u8..4, proptest::collection::vec(any::<u8>(), 0..200), any::<bool>()), 0..60)
    ) {
        let mut rig = rig();
        let c = rig.client(GCM, 1);
        for (role, bytes, aimed) in &datagrams {
            let role = [Role::Ike, Role::NatT, Role::Esp, Role::ClearL2tp][usize::from(*role)];
            let mut bytes = bytes.clone();
            if *aimed && bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&c.spi_in.to_be_bytes());
            }
            rig.receive_as(role, c.path.local, c.path.remote, &[bytes]);
        }
        prop_assert!(rig.taken_inside().is_empty());
        prop_assert!(rig.control.len() <= datagrams.len());
    }

    /// The same from a peer that has keys.
    #[test]
    fn arbitrary_payloads_of_a_peer_never_panic(
        payloads in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..120), 0u8..4, any::<u8>()), 0..40)
    ) {
        let mut rig = rig();
        let mut c = rig.client(GCM, 1);
        let n = payloads.len();
        for (bytes, layer, next_header) in payloads {
            let sealed = match layer {
                0 => c.seal_bare(&bytes, next_header),
                1 => c.seal(&bytes),
                2 => { let m = c.l2tp(&bytes); c.seal(&m) }
                _ => c.data(&bytes),
            };
            rig.receive(c.path, &[sealed]);
        }
        prop_assert!(rig.control.len() <= n);
    }

    /// And from the inside device.
    #[test]
    fn arbitrary_frames_of_the_device_never_panic(
        frames in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..200), any::<bool>()), 0..40)
    ) {
        let mut rig = rig();
        let c = rig.client(GCM, 1);
        for (mut bytes, aimed) in frames {
            if aimed && bytes.len() >= 30 {
                bytes[10] = 0x45;
                bytes[26..30].copy_from_slice(&c.address.octets());
                bytes[1] %= 6;
            }
            rig.give_inside(&bytes, true);
        }
        rig.flush();
    }
}
