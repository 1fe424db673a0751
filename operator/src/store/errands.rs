//! What is under way at each store: one errand at a time, side by side with those at others. One that takes long, because
//! its store does, is waited for by nobody else.

use std::{collections::BTreeSet, future::Future, pin::pin, time::Duration};

use futures::{FutureExt, StreamExt, future::LocalBoxFuture, stream::FuturesUnordered};
use tokio::time::sleep;

/// The errands, by what no two of them share: a pair of stores, or a place at one.
pub struct Errands<'a, K> {
    under_way: BTreeSet<K>,
    work: FuturesUnordered<LocalBoxFuture<'a, K>>,
}

impl<K> Default for Errands<'_, K> {
    fn default() -> Self {
        Self { under_way: BTreeSet::new(), work: FuturesUnordered::new() }
    }
}

impl<'a, K: Ord + Clone + 'a> Errands<'a, K> {
    /// Whether the last errand at `key` is not over.
    pub fn is_under_way(&self, key: &K) -> bool {
        self.under_way.contains(key)
    }

    /// Where the last errand is not over.
    pub fn under_way(&self) -> BTreeSet<K> {
        self.under_way.clone()
    }

    /// Begins `work` at `key`. It goes on while somebody [waits](Self::go_on_until).
    pub fn begin(&mut self, key: K, work: impl Future<Output = ()> + 'a) {
        self.under_way.insert(key.clone());
        self.work.push(work.map(|()| key).boxed_local());
    }

    /// Goes on with all of them for this long.
    pub async fn go_on_for(&mut self, span: Duration) {
        self.go_on_until(sleep(span)).await;
    }

    /// Goes on with all of them until `event`. What is asked of somebody meanwhile is asked here: else all stand still.
    pub async fn go_on_until<T>(&mut self, event: impl Future<Output = T>) -> T {
        let mut event = pin!(event);
        loop {
            tokio::select! {
                happened = &mut event => return happened,
                Some(key) = self.work.next(), if !self.work.is_empty() => {
                    self.under_way.remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, future::pending};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_errand_that_never_ends_keeps_no_other_from_ending_and_from_beginning_again() {
        let done = RefCell::new(Vec::new());
        let mut errands = Errands::default();
        errands.begin("frankfurt", pending());

        for round in 0..3 {
            assert!(!errands.is_under_way(&"helsinki"));
            let done = &done;
            errands.begin("helsinki", async move { done.borrow_mut().push(round) });
            errands.go_on_for(Duration::from_secs(30)).await;
        }

        assert_eq!(*done.borrow(), [0, 1, 2]);
        assert!(errands.is_under_way(&"frankfurt"));
    }
}
