//! The other backups and tenants, by what is asked about them: made anew once a second at most, whatever is asked, so
//! that ten thousand backups that wait do not each look at ten thousand others.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kube::ResourceExt;
use valv_crds::Backup;

use super::{Context, observe::eldest};
use crate::{controllers::GuardedBackup, tenant::check::Tenant};

/// How long a list is good for. Turns that were decided on an older one are caught by the ledger.
const FRESH: Duration = Duration::from_secs(1);

/// The list that was made last.
#[derive(Default)]
pub struct Others {
    latest: Mutex<Option<(Instant, Arc<Listed>)>>,
}

/// The backups by namespace, and the oldest tenant of each archive.
#[derive(Debug, Default)]
pub struct Listed {
    backups: HashMap<String, Vec<Arc<GuardedBackup>>>,
    eldest: BTreeMap<String, String>,
}

impl Others {
    /// The list, not older than a second.
    pub fn now(&self, context: &Context) -> Arc<Listed> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, listed)) = latest.as_ref()
            && made.elapsed() < FRESH
        {
            return listed.clone();
        }
        let mut listed = Listed::default();
        for backup in context.backups.state() {
            listed.backups.entry(backup.namespace().unwrap_or_default()).or_default().push(backup);
        }
        let tenants = context.tenants.state();
        listed.eldest = eldest(tenants.iter().filter_map(|tenant| tenant.0.as_ref().ok()));
        let listed = Arc::new(listed);
        *latest = Some((Instant::now(), listed.clone()));
        listed
    }
}

impl Listed {
    /// The backups in `namespace` that can be read.
    pub fn of(&self, namespace: &str) -> impl Iterator<Item = &Backup> {
        let backups = self.backups.get(namespace).into_iter().flatten();
        backups.filter_map(|backup| backup.0.as_ref().ok())
    }

    /// An older tenant that has the archive of `tenant`.
    pub fn rival_of(&self, tenant: &Tenant) -> Option<String> {
        self.eldest.get(tenant.archive_id()).filter(|eldest| **eldest != tenant.name).cloned()
    }
}
