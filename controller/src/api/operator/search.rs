//! Lists that are searched for a text: however long they are, nobody waits for the state meanwhile.

use std::ops::ControlFlow;
use std::sync::Arc;

use tonic::Status;

use super::super::convert::page_size;
use crate::app::Core;
use crate::state::State;

/// Rows that are looked at before others may have the state.
pub(super) const AT_A_TIME: usize = 10_000;

/// Takes each row's key, and what is said of it if it is looked for.
pub(super) type Put<'a, K, T> = &'a mut dyn FnMut(&K, Option<T>) -> ControlFlow<()>;

/// Work on a thread of its own that takes its time.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Status::internal("looking through the state panicked"))
}

/// One page of what `each` finds behind a key, and the key of its last item where more follow. `each` gives the rows behind a key in
/// their order, until it is told to stop; then it is called again.
pub(super) async fn search<K, T>(
    core: &Arc<Core>,
    (from, size): (K, u32),
    each: impl Fn(&State, &K, Put<'_, K, T>) -> ControlFlow<()> + Send + 'static,
) -> Result<(Vec<T>, Option<K>), Status>
where
    K: Clone + Send + 'static,
    T: Send + 'static,
{
    let (core, size) = (core.clone(), page_size(size));
    aside(move || {
        let (mut at, mut found) = (from, Vec::new());
        loop {
            let (mut seen, mut last) = (0, None);
            let looked = each(&core.node.shared().read(), &at, &mut |key, item| {
                seen += 1;
                if let Some(item) = item {
                    found.push((key.clone(), item));
                }
                if found.len() > size {
                    return ControlFlow::Break(());
                }
                if seen == AT_A_TIME {
                    last = Some(key.clone());
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            });
            match last {
                Some(key) if looked.is_break() => at = key,
                _ => break,
            }
        }
        let more = found.len() > size;
        found.truncate(size);
        let next = found.last().filter(|_| more).map(|(key, _)| key.clone());
        (found.into_iter().map(|(_, item)| item).collect(), next)
    })
    .await
}
