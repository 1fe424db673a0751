//! Lets no more copies begin than there is room for beside the backups that are written to the same store. Pure.

use std::collections::HashMap;

use valv_crds::backup::BackupReason;

use super::{
    check::Copy,
    observe::{Jobs, Standing},
    plan::Step,
};

/// `steps`, of which those wait that would be one too many in their store, where `backups` run already; and how many
/// copies there are then to each store.
pub fn heed(
    steps: Vec<(Copy, Step)>,
    jobs: &Jobs,
    backups: impl Fn(&str) -> usize,
) -> (Vec<(Copy, Step)>, HashMap<String, usize>) {
    let mut running: HashMap<String, usize> = HashMap::new();
    for ((_, store), _) in jobs.iter().filter(|(_, seen)| seen.standing == Standing::Active) {
        *running.entry(store.clone()).or_default() += 1;
    }
    let heeded = steps.into_iter().map(|(copy, step)| {
        let Step::Begins { number } = step else { return (copy, step) };
        let most = usize::try_from(copy.target.limits.concurrent_backups).unwrap_or(1);
        let here = running.entry(copy.target.name.clone()).or_default();
        if *here + backups(&copy.target.name) < most {
            *here += 1;
            return (copy, Step::Begins { number });
        }
        let message = format!("as many backups and copies are written to {} as may", copy.target.name);
        (copy, Step::Waits { reason: BackupReason::AtLimit, message })
    });
    (heeded.collect(), running)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::copy::{check::tests::copies_for, observe::Seen};

    /// Copies to Frankfurt and to Oslo, each of which takes so many.
    fn begun(most: i32) -> Vec<(Copy, Step)> {
        let copies = copies_for(&["helsinki", "frankfurt", "oslo"]).into_iter().map(|mut copy| {
            let mut object = copy.target.object.as_ref().clone();
            object.spec.limits.concurrent_backups = most;
            copy.target.object = Arc::new(object);
            (copy, Step::Begins { number: 1 })
        });
        copies.collect()
    }

    #[test]
    fn a_store_to_which_as_many_backups_run_as_may_takes_no_copy_and_another_does() {
        let in_frankfurt = |store: &str| usize::from(store == "frankfurt") * 2;

        let (steps, running) = heed(begun(2), &Jobs::new(), in_frankfurt);

        assert!(matches!(steps[0].1, Step::Waits { reason: BackupReason::AtLimit, .. }), "{:?}", steps[0].1);
        assert_eq!(steps[1].1, Step::Begins { number: 1 });
        assert_eq!((running["frankfurt"], running["oslo"]), (0, 1));
    }

    #[test]
    fn copies_that_run_count_with_the_backups() {
        let other = Seen { name: "copy-y-1".to_owned(), number: 1, depth: None, standing: Standing::Active };
        let jobs = Jobs::from([(("u2".to_owned(), "frankfurt".to_owned()), other)]);

        let (steps, running) = heed(begun(2), &jobs, |_| 1);

        assert!(matches!(steps[0].1, Step::Waits { .. }));
        assert_eq!(running["frankfurt"], 1);
    }
}
