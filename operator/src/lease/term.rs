//! One term of office: wait for the Lease, work while it is held, leave in order.

use std::{convert::Infallible, future::Future, pin::pin, time::Duration};

use tokio::{sync::oneshot, time::sleep};
use tracing::{info, warn};

use super::{Elector, Lost};
use crate::error::chain;

/// How a term ended.
#[derive(Debug)]
pub enum End<E> {
    /// It was asked to stop, and did. The Lease is free, unless a warning in the log says otherwise.
    Stopped,
    /// It was asked to stop, and its work did not end in time. The Lease was left to expire, because a write of
    /// that work may still be on its way.
    StoppedUnfinished,
    /// The Lease was lost, and the work was dropped where it stood.
    Lost(Lost),
    /// The work ended though nobody asked it to.
    WorkEnded(Result<(), E>),
}

/// Waits until `elector` leads, runs `work` for as long as it does, and frees the Lease at the end.
///
/// `work` is given the future that asks it to stop: it then has `grace` to finish what it began, under the
/// Lease, which is renewed until it is done. If the Lease is lost, `work` is dropped at once.
pub async fn lead<W, E>(
    mut elector: Elector,
    stop: impl Future<Output = ()>,
    grace: Duration,
    work: impl FnOnce(Stop) -> W,
) -> End<E>
where
    W: Future<Output = Result<(), E>>,
{
    let mut stop = pin!(stop);
    let leads = tokio::select! {
        biased;
        () = &mut stop => Leads::No,
        () = elector.acquire() => Leads::Yes,
    };
    if let Leads::No = leads {
        // The try that was cut short may have won.
        release(&mut elector).await;
        return End::Stopped;
    }

    let (asks, asked) = oneshot::channel::<Infallible>();
    let end = {
        let mut work = pin!(work(Stop(asked)));
        let mut held = pin!(elector.hold());
        tokio::select! {
            biased;
            lost = &mut held => return End::Lost(lost),
            result = &mut work => End::WorkEnded(result),
            () = &mut stop => {
                info!("stopping: finishing what was begun");
                drop(asks);
                tokio::select! {
                    biased;
                    lost = &mut held => return End::Lost(lost),
                    result = &mut work => match result {
                        Ok(()) => End::Stopped,
                        Err(error) => End::WorkEnded(Err(error)),
                    },
                    () = sleep(grace) => End::StoppedUnfinished,
                }
            }
        }
    };
    if !matches!(end, End::StoppedUnfinished) {
        release(&mut elector).await;
    }
    end
}

enum Leads {
    Yes,
    No,
}

/// Completes when the work is asked to stop.
pub struct Stop(oneshot::Receiver<Infallible>);

impl Future for Stop {
    type Output = ();

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        // Nothing is ever sent: the sender is dropped.
        std::pin::Pin::new(&mut self.0).poll(context).map(|_| ())
    }
}

async fn release(elector: &mut Elector) {
    if let Err(error) = elector.release().await {
        warn!(error = chain(&error), "failed to release the lease; it expires by itself");
    }
}
