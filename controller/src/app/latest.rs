//! Whoever needs the latest state at this node shares a question to the leader with all others who do.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use crate::raft::ProposeError;

/// Questions for the latest state, shared.
#[derive(Debug, Default)]
pub(crate) struct Latest {
    /// Questions begun so far.
    begun: AtomicU64,
    last: Mutex<Last>,
}

/// The last question that has ended: its number, and what came of it.
#[derive(Debug, Default)]
struct Last {
    number: u64,
    outcome: Option<ProposeError>,
}

impl Latest {
    /// A question that is begun after this call serves it, whoever begins it.
    pub(super) async fn share<F>(&self, ask: impl FnOnce() -> F) -> Result<(), ProposeError>
    where
        F: Future<Output = Result<(), ProposeError>>,
    {
        let before = self.begun.load(Ordering::SeqCst);
        let mut last = self.last.lock().await;
        if last.number <= before {
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            *last = Last { outcome: ask().await.err(), number };
        }
        last.outcome.clone().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    #[tokio::test]
    async fn all_who_come_while_one_asks_share_the_next_question() {
        let (latest, asked) = (Arc::<Latest>::default(), Arc::<AtomicU64>::default());
        let answers = Arc::new(Semaphore::new(0));
        let come = || {
            let (latest, asked, answers) = (latest.clone(), asked.clone(), answers.clone());
            tokio::spawn(async move {
                let ask = || async move {
                    asked.fetch_add(1, Ordering::SeqCst);
                    answers.acquire().await.expect("open").forget();
                    Ok(())
                };
                latest.share(ask).await
            })
        };
        let first = come();
        while asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let rest: Vec<_> = (0..100).map(|_| come()).collect();
        for _ in 0..10 {
            tokio::task::yield_now().await; // all of them wait
        }
        answers.add_permits(1);
        assert_eq!(first.await.expect("ends"), Ok(()));
        answers.add_permits(1);
        for one in rest {
            assert_eq!(one.await.expect("ends"), Ok(()));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2, "the first question was begun before the others came");
    }

    #[tokio::test]
    async fn a_question_that_was_given_up_serves_nobody_and_a_failure_is_for_those_who_waited_only() {
        let latest = Latest::default();
        let given_up = latest.share(std::future::pending);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(1), given_up).await.is_err());
        assert_eq!(latest.share(|| async { Err(ProposeError::NoLeader) }).await, Err(ProposeError::NoLeader));
        assert_eq!(latest.share(|| async { Ok(()) }).await, Ok(()));
    }
}
