//! How each tenant is backed up and drilled, for Prometheus.
//!
//! Computed at each scrape from what is in memory of the objects, so that it is right after a restart and after another
//! operator has taken over; tenants that are gone are gone from it. Only the leader tells it: a follower knows nothing.
//! `docs/operations/metrics.md` lists the names; a label `tenant` is the name of the tenant's object, and nothing here is
//! personal data.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use kube::{
    ResourceExt,
    core::{DeserializeGuard, DynamicObject},
    runtime::reflector::Store,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use valv_crds::{
    Backup, BackupPolicy, BackupStore, JournalTenant, RestoreDrill,
    reference::{NAMESPACE_PREFIX, TENANT_LABEL},
};

use crate::{
    drill::{check, sweep},
    io::{cache::Cache, filled::Filled},
    lease::Leadership,
    overview::{self, Overview, Snapshot, TroubleCode},
};

/// What is in memory of the objects.
#[derive(Clone)]
pub struct Sources {
    /// All tenants.
    pub tenants: Store<DeserializeGuard<JournalTenant>>,
    /// All policies.
    pub policies: Store<DeserializeGuard<BackupPolicy>>,
    /// All stores.
    pub stores: Store<DeserializeGuard<BackupStore>>,
    /// All backups.
    pub backups: Store<DeserializeGuard<Backup>>,
    /// All drills; absent: the cluster has not the kind.
    pub drills: Option<Store<DeserializeGuard<RestoreDrill>>>,
    /// What the cluster holds: the namespaces of drills among it.
    pub cache: Cache,
    /// Whether all of them were listed.
    pub filled: Filled,
    /// The clock.
    pub now: fn() -> Timestamp,
}

impl Sources {
    /// Whether everything that there is was seen. Before that a tenant without a policy might only look so, and what
    /// ended long ago would be taken for news.
    fn are_filled(&self) -> bool {
        self.filled.is_done()
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Sources")
    }
}

/// Tells it.
#[derive(Clone, Debug)]
pub struct Protection {
    leadership: Leadership,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    sources: Option<Sources>,
    counted: Counted,
}

/// Ends that were counted: each object once.
#[derive(Debug, Default)]
pub struct Counted {
    /// UIDs of objects that have ended, and are still there. Absent: nothing was looked at yet.
    seen: Option<HashSet<String>>,
    failures: BTreeMap<String, u64>,
    drills: BTreeMap<(&'static str, String), u64>,
}

/// One sample: labels and value.
type Sample = (Vec<(&'static str, String)>, f64);

/// A drill's namespace whose drill is gone: the tenant, and when it was made.
type Orphan = (String, Timestamp);

fn orphan(namespace: &DynamicObject) -> Option<Orphan> {
    let tenant = namespace.labels().get(TENANT_LABEL)?.clone();
    Some((tenant, namespace.creation_timestamp()?.0))
}

/// One gauge: name, help, samples.
type Family = (&'static str, &'static str, Vec<Sample>);

impl Protection {
    /// Tells nothing before it was said whom to ask.
    pub fn new(leadership: Leadership) -> Self {
        Self { leadership, state: Arc::default() }
    }

    /// Asks `sources` from now on.
    pub fn ask(&self, sources: Sources) {
        *self.state() = State { sources: Some(sources), counted: Counted::default() };
    }

    /// A panic elsewhere leaves nothing half done in it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Protection {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        if self.leadership.check().is_err() {
            return Ok(());
        }
        let mut state = self.state();
        let Some(sources) = state.sources.clone().filter(Sources::are_filled) else { return Ok(()) };
        let (tenants, policies, stores, backups) = (
            sources.tenants.state(),
            sources.policies.state(),
            sources.stores.state(),
            sources.backups.state(),
        );
        let drills = sources.drills.as_ref().map(Store::state).unwrap_or_default();
        let snapshot = Snapshot {
            tenants: tenants.iter().filter_map(|object| object.0.as_ref().ok()).collect(),
            policies: policies.iter().filter_map(|object| object.0.as_ref().ok()).collect(),
            stores: stores.iter().filter_map(|object| object.0.as_ref().ok()).collect(),
            backups: backups.iter().filter_map(|object| object.0.as_ref().ok()).collect(),
            drills: drills.iter().filter_map(|object| object.0.as_ref().ok()).collect(),
        };
        state.counted.look(&snapshot);
        let orphans = sources.drills.as_ref().map(|drills| sweep::orphans(&sources.cache, drills));
        let orphans: Vec<Orphan> =
            orphans.iter().flatten().filter_map(|namespace| orphan(namespace)).collect();
        encode(&mut encoder, &snapshot, &orphans, &state.counted, (sources.now)())
    }
}

impl Counted {
    /// Counts what has ended since the last look. What had ended before the first was counted by whoever led then, or is
    /// lost: a counter that began with it would tell Prometheus of failures that are not new.
    pub fn look(&mut self, snapshot: &Snapshot<'_>) {
        let mut there = HashSet::new();
        let mut news = vec![];
        for backup in &snapshot.backups {
            let Some(uid) = backup.uid().filter(|_| has_ended(backup)) else { continue };
            if let Some(failure) = overview::failure(backup) {
                news.push((uid.clone(), None, failure.reason));
            }
            there.insert(uid);
        }
        for drill in &snapshot.drills {
            let (Some(uid), Some(ended)) = (drill.uid(), overview::ended_drill(drill)) else { continue };
            let verdict = if ended.passed == "True" { "passed" } else { "failed" };
            news.push((uid.clone(), Some(verdict), ended.reason));
            there.insert(uid);
        }
        if let Some(seen) = &self.seen {
            for (_, verdict, reason) in news.into_iter().filter(|(uid, ..)| !seen.contains(uid)) {
                let count = match verdict {
                    None => self.failures.entry(reason).or_default(),
                    Some(verdict) => self.drills.entry((verdict, reason)).or_default(),
                };
                *count += 1;
            }
        }
        self.seen = Some(there);
    }
}

fn has_ended(backup: &Backup) -> bool {
    backup.status.as_ref().is_some_and(|status| status.ended.is_some())
}

fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    snapshot: &Snapshot<'_>,
    orphans: &[Orphan],
    counted: &Counted,
    now: Timestamp,
) -> Result<(), fmt::Error> {
    let tenants = overview::tenants(snapshot, now);
    for (name, help, samples) in gauges(snapshot, &tenants, orphans) {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            ConstGauge::<f64>::new(value).encode(metric.encode_family(&labels)?)?;
        }
    }
    let running = snapshot.backups.iter().filter(|backup| overview::is_running(backup)).count();
    let metric =
        encoder.encode_descriptor("valv_backup_running", "Backups that run", None, MetricType::Gauge)?;
    ConstGauge::<u64>::new(running as u64).encode(metric)?;
    let help = "Backups that failed for good since this operator leads, by reason";
    let mut metric = encoder.encode_descriptor("valv_backup_failures", help, None, MetricType::Counter)?;
    for (reason, count) in &counted.failures {
        ConstCounter::<u64>::new(*count).encode(metric.encode_family(&[("reason", reason.as_str())])?)?;
    }
    let help = "Drills that ended since this operator leads, by verdict and reason";
    let mut metric = encoder.encode_descriptor("valv_drill_results", help, None, MetricType::Counter)?;
    for ((verdict, reason), count) in &counted.drills {
        let labels = [("verdict", *verdict), ("reason", reason.as_str())];
        ConstCounter::<u64>::new(*count).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

/// What is told of the objects as they are.
fn gauges(snapshot: &Snapshot<'_>, tenants: &[Overview], orphans: &[Orphan]) -> Vec<Family> {
    // One sample a tenant for which there is a value.
    let each = |of: &dyn Fn(&Overview) -> Option<f64>| -> Vec<Sample> {
        let value = |tenant: &Overview| Some((vec![("tenant", tenant.tenant.clone())], of(tenant)?));
        tenants.iter().filter_map(value).collect()
    };
    let last =
        |of: fn(&overview::BackupView) -> f64| each(&|tenant: &Overview| tenant.last_backup.as_ref().map(of));
    let measured = |of: fn(&Overview) -> &Option<overview::MeasuredBy>| {
        each(&|tenant: &Overview| of(tenant).as_ref().map(|by| number(by.seconds)))
    };
    let protected = tenants.iter().map(|tenant| {
        let unusable = |code| [TroubleCode::Unprotected, TroubleCode::PolicyUnusable].contains(&code);
        let is_protected = !tenant.troubles.iter().any(|trouble| unusable(trouble.code));
        let policy = tenant.policy.clone().unwrap_or_default();
        (vec![("tenant", tenant.tenant.clone()), ("policy", policy)], f64::from(u8::from(is_protected)))
    });
    let failed = tenants.iter().filter_map(|tenant| {
        let failed = tenant.failed_backup.as_ref()?;
        let labels = vec![("tenant", tenant.tenant.clone()), ("reason", failed.reason.clone())];
        Some((labels, 1.0))
    });
    let keys = |of: fn(&overview::KeyView) -> Option<f64>| -> Vec<Sample> {
        let of_tenant = |tenant: &Overview| {
            let name = tenant.tenant.clone();
            let sample = move |key: &overview::KeyView| {
                let role = format!("{:?}", key.role);
                Some((vec![("tenant", name.clone()), ("role", role)], of(key)?))
            };
            tenant.keys.iter().filter_map(sample).collect::<Vec<Sample>>()
        };
        tenants.iter().flat_map(of_tenant).collect()
    };
    vec![
        ("valv_tenant_protected", "1 if the tenant has a policy that can be followed", protected.collect()),
        (
            "valv_backup_last_success_timestamp_seconds",
            "The moment that the newest complete backup holds",
            last(|backup| seconds(backup.taken)),
        ),
        (
            "valv_backup_bytes",
            "Bytes in the store of the newest complete backup",
            last(|backup| number(backup.bytes)),
        ),
        (
            "valv_backup_duration_seconds",
            "How long the newest complete backup took, while its object is there",
            each(&|tenant: &Overview| {
                tenant.last_backup.as_ref().and_then(|backup| backup.duration_seconds).map(number)
            }),
        ),
        (
            "valv_backup_due_timestamp_seconds",
            "When the next backup must be complete: later it is overdue",
            each(&|tenant: &Overview| tenant.backup_due.map(seconds)),
        ),
        ("valv_backup_failed", "1 while the newest backup that ended is one that failed", failed.collect()),
        (
            "valv_drill_last_success_timestamp_seconds",
            "When the newest drill that passed ended",
            each(&|tenant: &Overview| tenant.last_drill_passed.map(seconds)),
        ),
        (
            "valv_drill_due_timestamp_seconds",
            "When the next drill must have ended: later it is overdue",
            each(&|tenant: &Overview| tenant.drill_due.map(seconds)),
        ),
        (
            "valv_drill_failed",
            "1 while a drill did not pass, and none of the same or a newer backup from that store has since",
            failed_drills(tenants),
        ),
        (
            "valv_drill_rto_seconds",
            "Recovery time that the newest drill measured of those that were due",
            measured(|tenant| &tenant.recovery_time),
        ),
        (
            "valv_drill_rpo_seconds",
            "Recovery point that the newest drill measured of those that were due",
            measured(|tenant| &tenant.recovery_point),
        ),
        (
            "valv_drill_not_torn_down_timestamp_seconds",
            "When the drill ended of which something has been left the longest",
            unfinished(snapshot, check::left_since, orphans),
        ),
        (
            "valv_drill_not_recorded_timestamp_seconds",
            "When the drill ended whose record has been missing the longest",
            unfinished(snapshot, check::unrecorded_since, &[]),
        ),
        (
            "valv_tampering",
            "Backups and drills that report that what lies in a store was changed",
            each(&|tenant: &Overview| {
                Some(number(i64::try_from(tenant.tampering.len()).unwrap_or(i64::MAX)))
            }),
        ),
        (
            "valv_keys_proven_timestamp_seconds",
            "When the holder of a key last proved it; 0: never",
            keys(|key| Some(key.proven.map_or(0.0, seconds))),
        ),
        (
            "valv_keys_due_timestamp_seconds",
            "When a key must be proven again: later it is overdue",
            keys(|key| key.due.map(seconds)),
        ),
        ("valv_policy_objective_seconds", "What a policy promises", objectives(snapshot)),
        (
            "valv_backup_copies_missing",
            "Backups that a store of the policy should have a copy of by now, and has not",
            each(&|tenant: &Overview| Some(number(tenant.copies_missing))),
        ),
        (
            "valv_cleanup_waits",
            "1 while a clean-up of the tenant's backups waits for somebody's word",
            each(&|tenant: &Overview| {
                let waits = tenant.troubles.iter().any(|trouble| trouble.code == TroubleCode::CleanUpWaits);
                Some(f64::from(u8::from(waits)))
            }),
        ),
        (
            "valv_backups_held_back",
            "Backups that retention would delete, and that stay because nobody knows what could be restored without them",
            each(&|tenant: &Overview| {
                Some(tenant.archives.iter().map(|archive| f64::from(archive.held_back)).sum())
            }),
        ),
        (
            "valv_janitor_last_look_timestamp_seconds",
            "When the archive in the store that nobody looked after the longest was last looked after",
            last_looks(tenants),
        ),
    ]
}

/// One sample a store and a reason, whatever number of drills failed so.
fn failed_drills(tenants: &[Overview]) -> Vec<Sample> {
    let of_tenant = |tenant: &Overview| {
        let of_drill = |drill: &overview::DrillView| {
            (tenant.tenant.clone(), drill.store.clone().unwrap_or_default(), drill.reason.clone())
        };
        tenant.failed_drills.iter().map(of_drill).collect::<Vec<_>>()
    };
    let failed: BTreeSet<_> = tenants.iter().flat_map(of_tenant).collect();
    let sample =
        |(tenant, store, reason)| (vec![("tenant", tenant), ("store", store), ("reason", reason)], 1.0);
    failed.into_iter().map(sample).collect()
}

/// By tenant, the oldest of what drills have `since` they ended: of the drills, and not of the tenants that are there, for
/// a tenant may be gone before what was restored of it is; and of `orphans`, whose drills are gone.
fn unfinished(
    snapshot: &Snapshot<'_>,
    since: fn(&RestoreDrill) -> Option<Timestamp>,
    orphans: &[Orphan],
) -> Vec<Sample> {
    let of_drill = |drill: &&RestoreDrill| {
        let tenant = drill.namespace()?.strip_prefix(NAMESPACE_PREFIX)?.to_owned();
        Some((tenant, since(drill)?))
    };
    let mut oldest: BTreeMap<String, Timestamp> = BTreeMap::new();
    for (tenant, ended) in snapshot.drills.iter().filter_map(of_drill).chain(orphans.iter().cloned()) {
        let standing = oldest.entry(tenant).or_insert(ended);
        *standing = ended.min(*standing);
    }
    oldest.into_iter().map(|(tenant, ended)| (vec![("tenant", tenant)], seconds(ended))).collect()
}

/// By store, the oldest of the last looks: one archive that fails each time must not hide behind those that do not.
fn last_looks(tenants: &[Overview]) -> Vec<Sample> {
    let mut oldest: BTreeMap<&str, Timestamp> = BTreeMap::new();
    for archive in tenants.iter().flat_map(|tenant| &tenant.archives) {
        // One that never was, and cannot be, was looked after when time began.
        let never = archive.failure.as_ref().map(|_| Timestamp::UNIX_EPOCH);
        let Some(looked) = archive.looked.or(never) else { continue };
        let standing = oldest.entry(archive.store.as_str()).or_insert(looked);
        *standing = looked.min(*standing);
    }
    oldest.into_iter().map(|(store, looked)| (vec![("store", store.to_owned())], seconds(looked))).collect()
}

fn objectives(snapshot: &Snapshot<'_>) -> Vec<Sample> {
    let of_policy = |policy: &&BackupPolicy| {
        let promised = overview::promised(policy);
        let sample = |objective: &str, seconds: i64| {
            (vec![("policy", policy.name_any()), ("objective", objective.to_owned())], number(seconds))
        };
        [sample("rpo", promised.rpo_seconds), sample("rto", promised.rto_seconds)]
    };
    snapshot.policies.iter().flat_map(of_policy).collect()
}

fn seconds(moment: Timestamp) -> f64 {
    number(moment.as_second())
}

/// Exact below 2^53, which is beyond any of these.
#[expect(clippy::cast_precision_loss, reason = "said above")]
fn number(value: i64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use kube::runtime::{reflector::store::Writer, watcher::Event};
    use serde_json::json;

    use super::*;
    use crate::{
        fake_cache::fill,
        io::{filled::Filling, kind::Kind},
        metrics::Metrics,
        overview::tests::{World, complete, condition, drill, failed, noon},
    };

    /// The caches of a leader, with what `world` has.
    struct Caches {
        tenants: Writer<DeserializeGuard<JournalTenant>>,
        backups: Writer<DeserializeGuard<Backup>>,
        drills: Writer<DeserializeGuard<RestoreDrill>>,
        policies: Writer<DeserializeGuard<BackupPolicy>>,
        stores: Writer<DeserializeGuard<BackupStore>>,
        cache: Cache,
        filling: Filling,
        filled: Filled,
        metrics: Metrics,
    }

    fn caches(world: &World, leadership: Leadership) -> Caches {
        let (filling, filled) = Filling::new();
        let mut caches = Caches {
            cache: Cache::empty(),
            filling,
            filled,
            tenants: Writer::default(),
            backups: Writer::default(),
            drills: Writer::default(),
            policies: Writer::default(),
            stores: Writer::default(),
            metrics: Metrics::new(leadership),
        };
        fill(&mut caches.policies, [world.policy.clone()]);
        fill(&mut caches.stores, [world.store.clone()]);
        caches.refill(world);
        caches.metrics.protection(caches.sources());
        caches
    }

    impl Caches {
        fn sources(&self) -> Sources {
            Sources {
                tenants: self.tenants.as_reader(),
                policies: self.policies.as_reader(),
                stores: self.stores.as_reader(),
                backups: self.backups.as_reader(),
                drills: Some(self.drills.as_reader()),
                cache: self.cache.clone(),
                filled: self.filled.clone(),
                now: noon,
            }
        }

        fn refill(&mut self, world: &World) {
            fill(&mut self.tenants, [world.tenant.clone()]);
            fill(&mut self.backups, world.backups.clone());
            fill(&mut self.drills, world.drills.clone());
            self.filling.done();
        }

        fn scrape(&self) -> String {
            self.metrics.text().unwrap()
        }
    }

    fn leads() -> Leadership {
        Leadership::lasting_until(Instant::now() + Duration::from_secs(3600))
    }

    fn assert_lines(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|found| found == *line), "no {line:?} in\n{text}");
        }
    }

    #[test]
    fn a_fresh_leader_tells_at_its_first_scrape_what_the_objects_say() {
        let text = caches(&World::well(), leads()).scrape();

        assert_lines(
            &text,
            &[
                "valv_tenant_protected{tenant=\"ada\",policy=\"default\"} 1.0",
                "valv_backup_last_success_timestamp_seconds{tenant=\"ada\"} 1795396200.0",
                "valv_backup_bytes{tenant=\"ada\"} 4096.0",
                "valv_backup_duration_seconds{tenant=\"ada\"} 600.0",
                "valv_backup_due_timestamp_seconds{tenant=\"ada\"} 1795489200.0",
                "valv_backup_running 0",
                "valv_drill_last_success_timestamp_seconds{tenant=\"ada\"} 1795326060.0",
                "valv_drill_rto_seconds{tenant=\"ada\"} 2460.0",
                "valv_drill_rpo_seconds{tenant=\"ada\"} 14400.0",
                "valv_tampering{tenant=\"ada\"} 0.0",
                "valv_keys_proven_timestamp_seconds{tenant=\"ada\",role=\"Escrow\"} 1793491200.0",
                "valv_policy_objective_seconds{policy=\"default\",objective=\"rto\"} 3600.0",
            ],
        );
        assert!(!text.contains("valv_backup_failed{") && !text.contains("valv_drill_failed{"), "{text}");
    }

    #[test]
    fn a_follower_tells_nothing_of_tenants() {
        let text = caches(&World::well(), Leadership::lasting_until(Instant::now())).scrape();

        assert!(!text.contains("tenant="), "{text}");
    }

    #[test]
    fn before_everything_was_seen_nothing_is_told_and_nothing_is_counted() {
        let world = World::well();
        let mut caches = caches(&world, leads());
        let mut backups = Writer::default();
        let (filling, filled) = Filling::new();
        let sources = Sources { backups: backups.as_reader(), filled, ..caches.sources() };
        caches.metrics.protection(sources);
        assert!(!caches.scrape().contains("tenant="), "{}", caches.scrape());

        fill::<Backup>(&mut backups, [failed("20261122T010000Z", "2026-11-22T01:10:00Z", "AgentFailed")]);
        caches.backups = backups;
        filling.done();

        let text = caches.scrape();
        assert!(text.contains("tenant=\"ada\"") && !text.contains("valv_backup_failures_total{"), "{text}");
    }

    #[test]
    fn the_series_of_a_tenant_that_is_gone_are_gone() {
        let world = World::well();
        let mut caches = caches(&world, leads());
        let tenant = serde_json::from_value(world.tenant.clone()).unwrap();

        caches.tenants.apply_watcher_event(&Event::Delete(tenant));

        assert!(!caches.scrape().contains("tenant=\"ada\""), "{}", caches.scrape());
    }

    #[test]
    fn a_tenant_without_a_policy_is_not_protected() {
        let mut world = World::well();
        world.tenant["spec"].as_object_mut().unwrap().remove("backup");

        assert_lines(
            &caches(&world, leads()).scrape(),
            &["valv_tenant_protected{tenant=\"ada\",policy=\"\"} 0.0"],
        );
    }

    #[test]
    fn a_failure_is_told_while_it_is_the_newest_and_counted_once_if_it_is_new() {
        let mut world = World::well();
        world.backups.push(failed("20261122T010000Z", "2026-11-22T01:10:00Z", "AgentFailed"));
        let mut caches = caches(&world, leads());
        assert!(!caches.scrape().contains("valv_backup_failures_total{"), "{}", caches.scrape());

        world.backups.push(failed("20261123T080000Z", "2026-11-23T08:10:00Z", "StoreFull"));
        caches.refill(&world);
        caches.scrape();

        assert_lines(
            &caches.scrape(),
            &[
                "valv_backup_failed{tenant=\"ada\",reason=\"StoreFull\"} 1.0",
                "valv_backup_failures_total{reason=\"StoreFull\"} 1",
            ],
        );
        world.backups.push(complete("20261123T090000Z", "2026-11-23T09:10:00Z"));
        caches.refill(&world);
        let text = caches.scrape();
        assert!(!text.contains("valv_backup_failed{"), "{text}");
        assert_lines(&text, &["valv_backup_failures_total{reason=\"StoreFull\"} 1"]);
    }

    #[test]
    fn drills_are_counted_by_verdict_and_reason() {
        let mut world = World::well();
        let mut caches = caches(&world, leads());
        caches.scrape();

        world.drills.push(drill("ada-one", "2026-11-23T08:00:00Z", "False", "SegmentDiffers"));
        caches.refill(&world);

        assert_lines(
            &caches.scrape(),
            &[
                "valv_drill_failed{tenant=\"ada\",store=\"\",reason=\"SegmentDiffers\"} 1.0",
                "valv_drill_results_total{verdict=\"failed\",reason=\"SegmentDiffers\"} 1",
                "valv_drill_last_success_timestamp_seconds{tenant=\"ada\"} 1795326060.0",
            ],
        );
    }

    #[test]
    fn what_is_left_of_a_drill_is_told_also_of_a_tenant_that_is_gone() {
        let mut world = World::well();
        let mut left = drill("bo-one", "2026-11-22T08:00:00Z", "True", "AsAsked");
        left["metadata"]["namespace"] = json!("journal-bo");
        left["status"]["conditions"] = json!([condition("Passed", "True", "AsAsked")]);
        let mut hangs = drill("ada-one", "2026-11-23T08:00:00Z", "True", "AsAsked");
        hangs["status"]["conditions"][1] = condition("TornDown", "False", "TearingDown");
        let mut older = hangs.clone();
        older["metadata"]["name"] = json!("ada-two");
        older["status"]["ended"] = json!("2026-11-23T07:00:00Z");
        let text = caches(&world, leads()).scrape();
        assert!(!text.contains("valv_drill_not_torn_down_timestamp_seconds{"), "{text}");
        world.drills.extend([left, hangs, older]);

        assert_lines(
            &caches(&world, leads()).scrape(),
            &[
                "valv_drill_not_torn_down_timestamp_seconds{tenant=\"ada\"} 1795417200.0",
                "valv_drill_not_torn_down_timestamp_seconds{tenant=\"bo\"} 1795334400.0",
                "valv_drill_not_recorded_timestamp_seconds{tenant=\"bo\"} 1795334400.0",
            ],
        );
    }

    #[test]
    fn what_a_drill_left_whose_object_was_taken_away_is_told_from_when_its_namespace_was_made() {
        let mut world = World::well();
        let mut running = drill("ada-two", "2026-11-23T08:00:00Z", "True", "AsAsked");
        running["status"] = serde_json::Value::Null;
        world.drills.push(running);
        let caches = caches(&world, leads());
        let namespace = |name: &str, drill: &str| {
            let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": {
                "name": name, "creationTimestamp": "2026-11-23T07:00:00Z",
                "labels": { "valv.eu/tenant": "ada", "valv.eu/drill": drill },
            }});
            caches.cache.put(Kind::Namespace, serde_json::from_value(namespace).unwrap());
        };
        namespace("drill-ada-1", "ada-two");
        let text = caches.scrape();
        assert!(!text.contains("valv_drill_not_torn_down_timestamp_seconds{"), "it is under way: {text}");

        namespace("drill-ada-2", "somebody took its finalizer off");

        let told = "valv_drill_not_torn_down_timestamp_seconds{tenant=\"ada\"} 1795417200.0";
        assert_lines(&caches.scrape(), &[told]);
    }

    #[test]
    fn two_drills_that_failed_alike_are_one_sample() {
        let mut world = World::well();
        let mut before = drill("ada-one", "2026-11-23T07:00:00Z", "False", "StoreUnavailable");
        before["status"]["store"] = json!("helsinki");
        let mut after = drill("ada-two", "2026-11-23T08:00:00Z", "False", "StoreUnavailable");
        after["status"]["backup"] = json!({ "slot": "20261123T010000Z", "store": "helsinki" });
        world.drills.extend([before, after]);

        let text = caches(&world, leads()).scrape();

        let sample = "valv_drill_failed{tenant=\"ada\",store=\"helsinki\",reason=\"StoreUnavailable\"} 1.0";
        assert_eq!(text.lines().filter(|line| *line == sample).count(), 1, "{text}");
    }

    #[test]
    fn tampering_is_counted_by_the_objects_that_report_it() {
        let mut world = World::well();
        world.backups[0]["status"]["conditions"][1] = condition("Intact", "False", "Tampered");

        assert_lines(&caches(&world, leads()).scrape(), &["valv_tampering{tenant=\"ada\"} 1.0"]);
    }

    #[test]
    fn a_backup_that_runs_is_counted_and_a_key_that_was_never_proven_is_0() {
        let mut world = World::well();
        world.backups[0]["status"]["ended"] = serde_json::Value::Null;
        world.backups[0]["status"]["conditions"] = json!([]);
        world.tenant["status"]["backup"]["keys"] = json!([]);

        assert_lines(
            &caches(&world, leads()).scrape(),
            &[
                "valv_backup_running 1",
                "valv_keys_proven_timestamp_seconds{tenant=\"ada\",role=\"Tenant\"} 0.0",
            ],
        );
    }

    #[test]
    fn what_the_janitor_saw_is_told() {
        let kept = json!([
            { "store": "helsinki", "looked": "2026-11-23T02:00:00Z", "uncopied": 2,
                "awaitsAcknowledgement": "0123456789abcdef", "heldBack": 3 },
        ]);
        let world = World::well().tenant("/status/backup/kept", kept);

        assert_lines(
            &caches(&world, leads()).scrape(),
            &[
                "valv_backup_copies_missing{tenant=\"ada\"} 2.0",
                "valv_cleanup_waits{tenant=\"ada\"} 1.0",
                "valv_backups_held_back{tenant=\"ada\"} 3.0",
                "valv_janitor_last_look_timestamp_seconds{store=\"helsinki\"} 1795399200.0",
            ],
        );
    }

    #[test]
    fn every_metric_of_this_file_is_documented() {
        let documented = include_str!("../../../docs/operations/metrics.md");
        let kept = json!([{ "store": "helsinki", "looked": "2026-11-23T02:00:00Z" }]);
        let text = caches(&World::well().tenant("/status/backup/kept", kept), leads()).scrape();

        let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        for name in names {
            assert!(documented.contains(name), "{name} is not documented");
        }
    }
}
