use core::time::Duration;

use super::*;

const NOW: Instant = Instant::from_secs(100);

fn message() -> Vec<u8> {
    ControlHeader { tunnel_id: 1, session_id: 0, ns: 0, nr: 0 }.emit(8).to_vec()
}

fn header(ns: u16) -> ControlHeader {
    ControlHeader { tunnel_id: 1, session_id: 0, ns, nr: 0 }
}

/// Ns of all messages that may go now; a ZLB counts as `None`.
fn sent(channel: &mut Channel, now: Instant) -> Vec<u16> {
    core::iter::from_fn(|| channel.poll_transmit(now, (1, 0)))
        .map(|(bytes, _)| u16::from_be_bytes([bytes[8], bytes[9]]))
        .collect()
}

fn channel(window: u16) -> Channel {
    let mut channel = Channel::new(4, 5);
    channel.set_peer_window(Some(window));
    channel
}

#[test]
fn a_window_of_one_lets_one_message_fly() {
    let mut c = channel(1);
    (0..3).for_each(|_| c.push(message()));
    for ns in 0..3 {
        assert_eq!(sent(&mut c, NOW), [ns]);
        c.handle_nr(NOW, ns + 1);
    }
    assert!(c.is_idle());
    assert_eq!(c.deadline(), None);
}

#[test]
fn the_window_opens_by_slow_start_up_to_what_the_peer_announced() {
    let mut c = channel(4);
    (0..20).for_each(|_| c.push(message()));
    let mut rounds = Vec::new();
    let mut next = 0;
    while !c.is_idle() {
        let n = sent(&mut c, NOW).len();
        rounds.push(n);
        next += n;
        c.handle_nr(NOW, u16::try_from(next).unwrap());
    }
    assert_eq!(rounds, [1, 2, 4, 4, 4, 4, 1]);
}

#[test]
fn the_largest_window_and_acknowledgements_without_end_break_nothing() {
    let mut c = channel(u16::MAX);
    let mut next = 0_u16;
    for _ in 0..=2 * u32::from(u16::MAX) {
        c.push(message());
        next = next.wrapping_add(u16::try_from(sent(&mut c, NOW).len()).unwrap());
        c.handle_nr(NOW, next);
    }
    assert_eq!(c.cwnd, u16::MAX);
}

#[test]
fn a_window_of_zero_counts_as_one_and_an_absent_one_as_four() {
    assert_eq!(channel(0).peer_window, 1);
    let mut c = Channel::new(4, 5);
    c.set_peer_window(None);
    assert_eq!(c.peer_window, 4);
}

#[test]
fn retransmissions_back_off_and_then_the_peer_is_dead() {
    let mut c = channel(4);
    c.push(message());
    let mut now = NOW;
    assert_eq!(sent(&mut c, now), [0]);
    let mut waits = Vec::new();
    loop {
        let at = c.deadline().expect("a deadline");
        waits.push(at.since(now).as_secs());
        now = at;
        match c.handle_timeout(now) {
            Expiry::Resend => assert_eq!(sent(&mut c, now), [0]),
            Expiry::Dead => break,
            Expiry::None => panic!("it was due"),
        }
    }
    assert_eq!(waits, [1, 2, 4, 8, 8, 8]);
}

#[test]
fn a_resent_message_carries_the_newest_nr() {
    let mut c = channel(4);
    c.push(message());
    assert_eq!(c.poll_transmit(NOW, (1, 0)).map(|(b, again)| (b[11], again)), Some((0, false)));
    assert_eq!(c.handle_ns(header(0), b"x"), Arrival::InOrder);
    let later = NOW + Duration::from_secs(1);
    assert_eq!(c.handle_timeout(later), Expiry::Resend);
    assert_eq!(c.poll_transmit(later, (1, 0)).map(|(b, again)| (b[11], again)), Some((1, true)));
    assert_eq!(c.poll_transmit(later, (1, 0)), None, "the message was the acknowledgement");
}

#[test]
fn after_a_loss_all_of_the_flight_is_sent_again_as_the_window_reopens() {
    let mut c = channel(4);
    (0..7).for_each(|_| c.push(message()));
    sent(&mut c, NOW);
    c.handle_nr(NOW, 1);
    sent(&mut c, NOW);
    c.handle_nr(NOW, 3);
    assert_eq!(sent(&mut c, NOW), [3, 4, 5, 6]);
    let later = NOW + Duration::from_secs(2);
    assert_eq!(c.handle_timeout(later), Expiry::Resend);
    assert_eq!(sent(&mut c, later), [3]);
    c.handle_nr(later, 4);
    assert_eq!(sent(&mut c, later), [4, 5]);
    // The peer had the rest after all.
    c.handle_nr(later, 7);
    assert!(c.is_idle());
}

#[test]
fn acknowledgements_of_the_past_and_of_the_future_change_nothing() {
    let mut c = channel(4);
    c.push(message());
    c.push(message());
    assert_eq!(sent(&mut c, NOW), [0]);
    for nr in [0, 2, 5, 0xffff, 0x8000] {
        c.handle_nr(NOW, nr);
        assert_eq!((c.queue.len(), c.una), (2, 0));
    }
    c.handle_nr(NOW, 1);
    assert_eq!(c.queue.len(), 1);
}

#[test]
fn early_messages_wait_for_their_turn() {
    let mut c = channel(4);
    assert_eq!(c.handle_ns(header(2), b"c"), Arrival::Early);
    assert_eq!(c.handle_ns(header(1), b"b"), Arrival::Early);
    assert_eq!(c.next_early(), None);
    assert_eq!(c.handle_ns(header(0), b"a"), Arrival::InOrder);
    assert_eq!(c.next_early().map(|(_, body)| body), Some(b"b".to_vec()));
    assert_eq!(c.next_early().map(|(_, body)| body), Some(b"c".to_vec()));
    assert_eq!(c.next_early(), None);
    assert_eq!(c.nr, 3);
}

#[test]
fn what_lies_outside_the_window_is_not_kept() {
    let mut c = channel(4);
    for ns in 4..0x8000 {
        assert_eq!(c.handle_ns(header(ns), b"x"), Arrival::Dropped);
    }
    for ns in 0x8000..=0xffff {
        assert_eq!(c.handle_ns(header(ns), b"x"), Arrival::Duplicate);
    }
    assert_eq!(c.handle_ns(header(1), &[0; MAX_EARLY_LEN + 1]), Arrival::Dropped);
    for _ in 0..10 {
        for ns in 1..4 {
            assert_eq!(c.handle_ns(header(ns), b"x"), Arrival::Early);
        }
    }
    assert_eq!(c.early.len(), 3);
}

#[test]
fn a_duplicate_is_acknowledged_again() {
    let mut c = channel(4);
    c.handle_ns(header(0), b"x");
    assert_eq!(sent(&mut c, NOW).len(), 1, "a ZLB");
    assert_eq!(c.handle_ns(header(0), b"x"), Arrival::Duplicate);
    let (zlb, _) = c.poll_transmit(NOW, (7, 0)).expect("a ZLB");
    assert_eq!(zlb, [0xc8, 2, 0, 12, 0, 7, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn a_peer_that_acknowledges_nothing_is_not_listened_to_for_ever() {
    let mut c = channel(4);
    let mut taken = 0;
    for ns in 0..1000 {
        if c.handle_ns(header(ns), b"x") == Arrival::InOrder {
            taken += 1;
            c.push(message());
        }
    }
    assert_eq!(taken, MAX_QUEUE);
    // Once it acknowledges, it is heard again.
    sent(&mut c, NOW);
    c.handle_nr(NOW, 1);
    assert_eq!(c.handle_ns(header(u16::try_from(MAX_QUEUE).unwrap()), b"x"), Arrival::InOrder);
}

#[test]
fn sequence_numbers_wrap() {
    let mut c = channel(4);
    (c.una, c.nr) = (0xffff, 0xffff);
    c.push(message());
    c.push(message());
    assert_eq!(sent(&mut c, NOW), [0xffff]);
    c.handle_nr(NOW, 0);
    assert_eq!(sent(&mut c, NOW), [0]);
    assert_eq!(c.handle_ns(header(0), b"y"), Arrival::Early);
    assert_eq!(c.handle_ns(header(0xffff), b"x"), Arrival::InOrder);
    assert!(c.next_early().is_some());
    assert_eq!(c.nr, 1);
}

#[test]
fn a_message_that_is_asked_for_again_goes_at_once() {
    let mut c = channel(4);
    c.push(message());
    assert_eq!(sent(&mut c, NOW), [0]);
    c.resend_first();
    assert_eq!(sent(&mut c, NOW), [0]);
    assert_eq!(sent(&mut c, NOW), []);
}
