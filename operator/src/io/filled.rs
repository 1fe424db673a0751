//! Whether all was listed once that decisions rest on.
//!
//! kube's `Store::wait_until_ready` wakes only the one that polled it last: of several that wait, the others wait for
//! ever (seen with kube-runtime 5.0). So one waits for the stores, and tells everybody by this.

use tokio::sync::watch;

/// Tells, once.
#[derive(Debug)]
pub struct Filling(watch::Sender<bool>);

/// Can be waited for by any number.
#[derive(Clone, Debug)]
pub struct Filled(watch::Receiver<bool>);

impl Filling {
    /// Nothing is listed yet.
    pub fn new() -> (Self, Filled) {
        let (tell, told) = watch::channel(false);
        (Self(tell), Filled(told))
    }

    /// All is listed.
    pub fn done(&self) {
        self.0.send_replace(true);
    }
}

impl Filled {
    /// Whether all is listed.
    pub fn is_done(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until all is listed; or until nobody will tell any more, for then everything ends.
    pub async fn wait(&self) {
        let _ = self.0.clone().wait_for(|done| *done).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::future::join_all;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn all_who_wait_are_told() {
        let (filling, filled) = Filling::new();
        let waiting: Vec<_> = (0..5)
            .map(|_| {
                let filled = filled.clone();
                tokio::spawn(async move { filled.wait().await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(!filled.is_done());

        filling.done();

        let all = timeout(Duration::from_secs(5), join_all(waiting)).await;
        assert!(all.is_ok_and(|all| all.into_iter().all(|one| one.is_ok())));
        assert!(filled.is_done());
    }
}
