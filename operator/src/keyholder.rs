//! The key holder: brings the key of an unattended drill into that drill's namespace, for that drill alone.
//!
//! It has a ServiceAccount of its own and reads one namespace of keys, which the operator cannot. It reads namespaces,
//! drills and tenants, and writes nothing but Secrets called `drill-key`, where the operator let it. Each use of a key
//! is an event on it, and a line in the log.
//!
//! Input: the namespaces of drills. Output: Secrets in them, for as long as the restore needs them.

pub mod decide;
pub mod vault;

use std::{future::Future, sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        Controller,
        controller::Action,
        events::{Recorder, Reporter},
        watcher,
    },
};
use tracing::{debug, error, info, instrument, warn};
use valv_crds::reference::DRILL_LABEL;

use self::{
    decide::{Decision, Request},
    vault::Vault,
};
use crate::{
    backoff::Backoff,
    error::chain,
    io::events::{self, News, Tone},
    tenant::observe::Access,
};

/// Between two looks at a drill that restores: nothing tells of its end but itself.
const WHILE_RESTORING: Duration = Duration::from_secs(3);

/// Between two looks at a drill whose key is not there.
const WHILE_MISSING: Duration = Duration::from_secs(30);

/// What every look shares.
struct Context {
    vault: Vault,
    recorder: Recorder,
    backoff: Backoff,
}

/// Why a look stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster could not be read or written.
    #[error("failed to bring a drill its key")]
    Vault(#[source] vault::Error),
}

/// Brings keys for as long as this runs. `namespace` is that of the keys.
pub async fn run(client: Client, namespace: String, stop: impl Future<Output = ()> + Send + Sync + 'static) {
    let reporter = Reporter { controller: "valv.eu/keyholder".to_owned(), instance: None };
    let context = Arc::new(Context {
        recorder: Recorder::new(client.clone(), reporter),
        vault: Vault::new(client.clone(), namespace),
        backoff: Backoff::default(),
    });
    let drills = watcher::Config::default().labels(DRILL_LABEL);
    info!("brings the keys of unattended drills");
    Controller::new(Api::<Namespace>::all(client), drills)
        .graceful_shutdown_on(stop)
        .run(reconcile, error_policy, context)
        .for_each(|result| {
            if let Err(error) = result {
                debug!(error = chain(&error), "a look ended");
            }
            async {}
        })
        .await;
}

#[instrument(skip_all, fields(object.kind = "Namespace", object.name = namespace.name_any()))]
async fn reconcile(namespace: Arc<Namespace>, context: Arc<Context>) -> Result<Action, Error> {
    let vault = &context.vault;
    let seen = vault.look(&namespace).await.map_err(Error::Vault)?;
    let action = match decide::decide(&namespace, &seen) {
        Decision::Nothing => Action::await_change(),
        Decision::Wait => Action::requeue(WHILE_RESTORING),
        Decision::Refuse(why) => {
            error!(why, "no key is brought");
            Action::requeue(WHILE_MISSING)
        }
        Decision::Withdraw => {
            vault.withdraw(&namespace.name_any(), seen.brought.as_ref()).await.map_err(Error::Vault)?;
            info!("the key was taken away again");
            Action::await_change()
        }
        Decision::Bring(request) => bring(&namespace, &request, &context).await?,
    };
    context.backoff.succeeded(&namespace.name_any());
    Ok(action)
}

async fn bring(namespace: &Namespace, request: &Request, context: &Context) -> Result<Action, Error> {
    let eldest = context.vault.eldest(&request.archive).await.map_err(Error::Vault)?;
    if let Err(why) = decide::is_the_tenants(request, eldest.as_ref()) {
        error!(archive = request.archive, why = why.to_string(), "no key is brought");
        return Ok(Action::requeue(WHILE_MISSING));
    }
    let Some(key) = context.vault.key(&request.archive).await.map_err(Error::Vault)? else {
        warn!(archive = request.archive, "there is no key for this archive; the drill waits");
        return Ok(Action::requeue(WHILE_MISSING));
    };
    let identity = match decide::identity(&key, request) {
        Ok(identity) => identity,
        Err(why) => {
            error!(archive = request.archive, why = why.to_string(), "no key is brought");
            return Ok(Action::requeue(WHILE_MISSING));
        }
    };
    context.vault.bring(namespace, request, identity).await.map_err(Error::Vault)?;
    info!(
        archive = request.archive,
        tenant.name = request.tenant,
        drill.name = request.drill,
        drill.uid = request.uid,
        "brought the key"
    );
    let note = format!(
        "brought to {} for the RestoreDrill {} (UID {}) of the tenant {}",
        namespace.name_any(),
        request.drill,
        request.uid,
        request.tenant
    );
    let news = News { tone: Tone::Normal, reason: "KeyUsed".to_owned(), note };
    events::publish(&context.recorder, &key.object_ref(&()), vec![news]).await;
    Ok(Action::requeue(WHILE_RESTORING))
}

fn error_policy(namespace: Arc<Namespace>, error: &Error, context: Arc<Context>) -> Action {
    let name = namespace.name_any();
    let wait = context.backoff.failed(&name, rand::random());
    warn!(
        object.kind = "Namespace",
        object.name = name,
        error = chain(error),
        wait_seconds = wait.as_secs_f64(),
        "failed to look after a drill's key, trying again"
    );
    Action::requeue(wait)
}

/// What was seen of a drill.
#[derive(Debug, Default)]
pub struct Seen {
    /// The drill that the namespace names, if it is there and can be read.
    pub drill: Option<valv_crds::RestoreDrill>,
    /// The drill's tenant.
    pub tenant: Option<valv_crds::JournalTenant>,
    /// Whether the operator has let the key holder in.
    pub access: Access,
    /// The Secret with the key in the drill's namespace, whoever brought it: its data were thrown away.
    pub brought: Option<k8s_openapi::api::core::v1::Secret>,
}
