//! Turns at stores: each store has its own, so that one that answers slowly keeps nobody from another.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// A turn that does not come within this time is asked for again later: who waits for one keeps others from working too.
const WAIT: Duration = Duration::from_secs(5);

/// The turns at each store.
#[derive(Debug)]
pub struct Lanes {
    turns: usize,
    stores: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Lanes {
    /// So many `turns` at each store.
    pub fn new(turns: usize) -> Self {
        Self { turns, stores: Mutex::default() }
    }

    /// A turn at `store`, until it is dropped; `None` if none came.
    pub async fn turn(&self, store: &str) -> Option<OwnedSemaphorePermit> {
        let lane = self.lane(store);
        // It is closed only with the process.
        timeout(WAIT, lane.acquire_owned()).await.ok()?.ok()
    }

    /// A panic elsewhere leaves nothing half done in it. A store that is gone leaves a few bytes.
    fn lane(&self, store: &str) -> Arc<Semaphore> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        stores.entry(store.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.turns))).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_store_whose_turns_are_all_taken_keeps_nobody_from_another() {
        let lanes = Lanes::new(1);
        let slow = lanes.turn("frankfurt").await;

        assert!(lanes.turn("helsinki").await.is_some());
        assert!(lanes.turn("frankfurt").await.is_none(), "and nobody waits for it for ever");
        drop(slow);
        assert!(lanes.turn("frankfurt").await.is_some());
    }
}
