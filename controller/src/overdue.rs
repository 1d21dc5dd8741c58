//! Says who should have renewed and has not, before that machine silently stops: in the log, by itself, while there is still time to look
//! into it. Numbers for alerts are in the metrics, and all of them in `sallyport machine list --overdue`.

use crate::state::State;

/// Names said at a time; the rest is a number.
const NAMED: usize = 20;
/// How often those that are overdue still are said again, milliseconds.
const AGAIN_MS: u64 = 24 * 3_600 * 1_000;

/// What was said so far.
#[derive(Debug, Default)]
pub(crate) struct Overdue {
    /// Whoever was due by then has been named, log's time; 0 while nothing was said.
    named_by_ms: u64,
    /// When all were counted.
    counted_ms: u64,
}

/// What there is to say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Machines that are newly overdue: the name, and when its certificate ends, milliseconds since 1970.
    pub(crate) machines: Vec<(String, u64)>,
    /// How many more of them there are.
    pub(crate) more: usize,
    /// All that are overdue, machines and gateways: said when this begins, and once a day.
    pub(crate) all: Option<(usize, usize)>,
}

impl Overdue {
    /// What is new at this time (log's time).
    pub(crate) fn look(&mut self, state: &State, now_ms: u64) -> News {
        let first = self.named_by_ms == 0;
        let since = std::mem::replace(&mut self.named_by_ms, now_ms.max(1));
        let mut news = News::default();
        if !first {
            let new = state.overdue_between(since, now_ms);
            for machine in new {
                if news.machines.len() < NAMED {
                    let ends = state.certificates.get(&machine.serial).map_or(0, |row| row.not_after_ms);
                    news.machines.push((machine.name.clone(), ends));
                } else {
                    news.more += 1;
                }
            }
        }
        if first || now_ms.saturating_sub(self.counted_ms) >= AGAIN_MS {
            self.counted_ms = now_ms;
            let all = (state.count_overdue(now_ms), state.overdue_gateways(now_ms).count());
            news.all = (all != (0, 0)).then_some(all);
        }
        news
    }
}

impl News {
    /// Into the log.
    pub(crate) fn say(&self) {
        for (machine, ends_ms) in &self.machines {
            tracing::warn!(
                %machine,
                ends_unix_s = ends_ms / 1_000,
                "a machine has not renewed its certificate, and will not connect once it has ended; \
                 on the machine: sallyport enroll status"
            );
        }
        if self.more > 0 {
            tracing::warn!(machines = self.more, "more machines have not renewed: sallyport machine list --overdue");
        }
        if let Some((machines, gateways)) = self.all {
            tracing::warn!(
                machines,
                gateways,
                "overdue with the renewal of a certificate: sallyport machine list --overdue"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use sallyport_proto::v1;

    use super::*;
    use crate::state::{Action, Bootstrap, CertificateRow, Command, DescribeMember, RecordCertificate};

    fn begun() -> State {
        let (name, address, version) = ("c1".into(), "c1:7443".into(), "0.1.0".into());
        let root = CertificateRow {
            serial: "a0".into(),
            profile: v1::CertificateProfile::Root.into(),
            key_algorithm: v1::KeyAlgorithm::EcdsaP256.into(),
            ..CertificateRow::default()
        };
        let bootstrap = Bootstrap {
            cluster_id: vec![1; 16],
            root_certificate: vec![9],
            sealed_root_key: vec![2],
            record: Some(root),
            member: Some(DescribeMember { id: 1, name, address, version, level: crate::LEVEL }),
        };
        let mut state = State::new();
        state.apply(&Command { request_id: Vec::new(), at_ms: 5, action: Some(Action::Bootstrap(bootstrap)) });
        state
    }

    fn machine(state: &mut State, n: u64, at_ms: u64, length_ms: u64) {
        let record = CertificateRow {
            serial: format!("{n:02x}"),
            name: format!("laptop{n}.example.com"),
            profile: v1::CertificateProfile::Machine.into(),
            key_algorithm: v1::KeyAlgorithm::EcdsaP256.into(),
            not_after_ms: at_ms + length_ms,
            ..CertificateRow::default()
        };
        let action = Action::RecordCertificate(RecordCertificate { record: Some(record), answer: Vec::new() });
        state.apply(&Command { request_id: n.to_be_bytes().repeat(2), at_ms, action: Some(action) });
    }

    #[test]
    fn each_machine_is_named_once_when_its_time_has_come_and_all_are_counted_once_a_day() {
        let day = 86_400_000;
        let mut state = begun();
        machine(&mut state, 1, 1_000, 10 * day);
        machine(&mut state, 2, 2_000, 100 * day);
        let due = state.overdue(u64::MAX).next().map(|m| m.due_ms).expect("a machine");
        let mut overdue = Overdue::default();
        assert_eq!(overdue.look(&state, 5_000), News::default());
        assert_eq!(overdue.look(&state, due), News::default());
        let news = overdue.look(&state, due + 1);
        assert_eq!(news.machines, [("laptop1.example.com".to_owned(), 1_000 + 10 * day)]);
        assert_eq!(overdue.look(&state, due + 2).machines, [], "once");
        assert_eq!(overdue.look(&state, due + 1 + day).all, Some((1, 0)));
        assert_eq!(overdue.look(&state, due + 2 + day).all, None);
        for at in [due, due + 1, u64::MAX] {
            assert_eq!(state.count_overdue(at), state.overdue(at).count(), "by {at}");
        }
        // Another leader knows of nothing that was said, and counts.
        let news = Overdue::default().look(&state, due + 1);
        assert_eq!((news.machines.len(), news.all), (0, Some((1, 0))));
    }

    #[test]
    fn a_flood_is_a_number() {
        let day = 86_400_000;
        let mut state = begun();
        for n in 1..=30 {
            machine(&mut state, n, 1_000, day);
        }
        let mut overdue = Overdue::default();
        overdue.look(&state, 2_000);
        let news = overdue.look(&state, 1_000 + day);
        assert_eq!((news.machines.len(), news.more), (NAMED, 10));
        news.say();
    }
}
