//! What the operator counts, for Prometheus.
//!
//! What is counted here has labels of kinds, results and stores. What is told of each tenant's backups has its object's
//! name as a label, and no other name: see [`protection`].

pub mod protection;

use std::{
    collections::BTreeMap,
    fmt, fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder, text::encode,
    },
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
        info::Info,
    },
    registry::Registry,
};

use crate::lease::Leadership;
use protection::{Protection, Sources};

/// The `Content-Type` of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the buckets of a reconciliation's time, in seconds: from a comparison that finds nothing to
/// do (milliseconds) to a request that timed out (half a minute).
const RECONCILE_SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];

/// How a reconciliation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The cluster is as it should be, or on its way.
    Success,
    /// Something failed, or the fence had fallen; it is tried again, by this operator or another.
    Error,
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), fmt::Error> {
        let text = match self {
            Self::Success => "success",
            Self::Error => "error",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    kind: String,
    result: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: String,
}

/// Everything that is counted. One a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Family<ReconcileLabels, Counter>,
    durations: Family<KindLabel, Histogram>,
    written: Family<KindLabel, Counter>,
    tenants: Gauge,
    stores: Stores,
    protection: Protection,
}

/// What is told of one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreFigures {
    /// 1 if backups may go there.
    pub ready: i64,
    /// 1 if nothing is sent there for a while, or one request only.
    pub breaker_open: i64,
    /// When the last complete probe ended, in seconds since 1970; absent before the first.
    pub last_probe_seconds: Option<i64>,
}

impl Metrics {
    /// Nothing counted yet. Whether this process leads is asked of `leadership` at each scrape.
    pub fn new(leadership: Leadership) -> Self {
        let reconciles = Family::default();
        let durations =
            Family::new_with_constructor((|| Histogram::new(RECONCILE_SECONDS)) as fn() -> Histogram);
        let written = Family::default();
        let tenants = Gauge::default();

        let mut registry = Registry::default();
        // The suffixes `_total` and `_info` are added by the encoder.
        registry.register("valv_reconcile", "Reconciliations, by kind and result", reconciles.clone());
        registry.register(
            "valv_reconcile_duration_seconds",
            "How long reconciliations took, by kind",
            durations.clone(),
        );
        registry.register("valv_objects_written", "Objects written to the cluster, by kind", written.clone());
        registry.register("valv_tenants", "Tenants in this cluster", tenants.clone());
        registry.register(
            "valv_build",
            "The version of this operator",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let protection = Protection::new(leadership.clone());
        registry.register_collector(Box::new(protection.clone()));
        registry.register_collector(Box::new(Leader(leadership)));
        registry.register_collector(Box::new(Process));
        let stores = Stores::default();
        registry.register_collector(Box::new(stores.clone()));
        Self { registry, reconciles, durations, written, tenants, stores, protection }
    }

    /// A reconciliation of an object of `kind` ended after `took`.
    pub fn reconciled(&self, kind: &str, result: Outcome, took: Duration) {
        self.reconciles.get_or_create(&ReconcileLabels { kind: kind.to_owned(), result }).inc();
        self.durations.get_or_create(&KindLabel { kind: kind.to_owned() }).observe(took.as_secs_f64());
    }

    /// An object of `kind` was written: created, changed or deleted.
    pub fn written(&self, kind: &str) {
        self.written.get_or_create(&KindLabel { kind: kind.to_owned() }).inc();
    }

    /// There are so many tenants now.
    pub fn tenants(&self, count: usize) {
        self.tenants.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// From now on `sources` are asked, at each scrape, how tenants are backed up, drilled and proven.
    pub fn protection(&self, sources: Sources) {
        self.protection.ask(sources);
    }

    /// A store stands like this now.
    pub fn store(&self, name: &str, figures: StoreFigures) {
        self.stores.all().insert(name.to_owned(), figures);
    }

    /// Tells of no stores any more but those for which `is_there` says so.
    pub fn retain_stores(&self, is_there: impl Fn(&str) -> bool) {
        self.stores.all().retain(|name, _| is_there(name));
    }

    /// All of it, in the `OpenMetrics` text format ([`CONTENT_TYPE`]).
    ///
    /// # Errors
    /// Never in practice: a `String` takes all that is written to it.
    ///
    /// # Source
    /// <https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md>
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// `valv_leader`, read from the fence: what it says is what a write would be told.
#[derive(Debug)]
struct Leader(Leadership);

impl Collector for Leader {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let leads: ConstGauge<i64> = ConstGauge::new(self.0.check().is_ok().into());
        let metric = encoder.encode_descriptor(
            "valv_leader",
            "1 if this process may write to the cluster",
            None,
            MetricType::Gauge,
        )?;
        leads.encode(metric)
    }
}

/// The stores, by name. One that is gone is not told of.
#[derive(Clone, Debug, Default)]
struct Stores(Arc<Mutex<BTreeMap<String, StoreFigures>>>);

impl Stores {
    /// A panic elsewhere leaves nothing half done in it.
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, StoreFigures>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One number of a store.
type Figure = fn(&StoreFigures) -> Option<i64>;

impl Collector for Stores {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let gauges: [(&str, &str, Figure); 3] = [
            ("valv_store_ready", "1 if backups may go to the store", |figures| Some(figures.ready)),
            ("valv_store_breaker_open", "1 if the store is left alone for a while", |figures| {
                Some(figures.breaker_open)
            }),
            ("valv_store_last_probe_timestamp_seconds", "When the last complete probe ended", |figures| {
                figures.last_probe_seconds
            }),
        ];
        let stores = self.all().clone();
        for (name, help, figure) in gauges {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (store, figures) in &stores {
                let Some(value) = figure(figures) else { continue };
                ConstGauge::<i64>::new(value).encode(metric.encode_family(&[("store", store.as_str())])?)?;
            }
        }
        Ok(())
    }
}

/// The metrics that every Prometheus client exports of its process, under their customary names.
///
/// Read from `/proc` at each scrape; what cannot be read is left out.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let resident = fs::read_to_string("/proc/self/status").ok().and_then(|text| resident_bytes(&text));
        if let Some(bytes) = resident {
            let metric = encoder.encode_descriptor(
                "process_resident_memory_bytes",
                "Resident memory size in bytes",
                None,
                MetricType::Gauge,
            )?;
            ConstGauge::<u64>::new(bytes).encode(metric)?;
        }
        let cpu = fs::read_to_string("/proc/self/stat").ok().and_then(|text| cpu_seconds(&text));
        if let Some(seconds) = cpu {
            let metric = encoder.encode_descriptor(
                "process_cpu_seconds",
                "User and system CPU time spent in seconds",
                None,
                MetricType::Counter,
            )?;
            ConstCounter::<f64>::new(seconds).encode(metric)?;
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            let metric = encoder.encode_descriptor(
                "process_open_fds",
                "Number of open file descriptors",
                None,
                MetricType::Gauge,
            )?;
            // The listing itself holds one open.
            let open = entries.count().saturating_sub(1);
            ConstGauge::<u64>::new(open as u64).encode(metric)?;
        }
        Ok(())
    }
}

/// The resident set in the text of `/proc/<pid>/status`.
///
/// # Source
/// `proc_pid_status(5)`: `VmRSS:`, in kB of 1024 bytes.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// User and system time in the text of `/proc/<pid>/stat`.
///
/// # Source
/// `proc_pid_stat(5)`: fields 14 and 15, in clock ticks, of which Linux shows 100 a second on all
/// architectures that it supports for containers. Field 2, the name, may hold spaces and brackets.
fn cpu_seconds(stat: &str) -> Option<f64> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn metrics() -> Metrics {
        Metrics::new(Leadership::lasting_until(Instant::now() + Duration::from_secs(3600)))
    }

    #[test]
    fn what_was_counted_is_scraped_under_its_documented_name() {
        let metrics = metrics();

        metrics.reconciled("JournalTenant", Outcome::Success, Duration::from_millis(7));
        metrics.reconciled("JournalTenant", Outcome::Error, Duration::from_millis(7));
        metrics.written("ConfigMap");
        metrics.tenants(3);
        let text = metrics.text().unwrap();

        for line in [
            "valv_reconcile_total{kind=\"JournalTenant\",result=\"success\"} 1",
            "valv_reconcile_total{kind=\"JournalTenant\",result=\"error\"} 1",
            "valv_reconcile_duration_seconds_count{kind=\"JournalTenant\"} 2",
            "valv_reconcile_duration_seconds_bucket{le=\"0.01\",kind=\"JournalTenant\"} 2",
            "valv_objects_written_total{kind=\"ConfigMap\"} 1",
            "valv_tenants 3",
            "valv_leader 1",
            concat!("valv_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
        }
    }

    #[test]
    fn a_store_is_told_of_while_it_is_there() {
        let metrics = metrics();
        let figures = StoreFigures { ready: 1, breaker_open: 0, last_probe_seconds: Some(1_800_000_000) };

        metrics.store("helsinki", figures);
        metrics.store("frankfurt", StoreFigures { last_probe_seconds: None, ready: 0, ..figures });
        metrics.store("oslo", figures);
        metrics.retain_stores(|name| name != "oslo");
        let text = metrics.text().unwrap();

        for line in [
            "valv_store_ready{store=\"helsinki\"} 1",
            "valv_store_ready{store=\"frankfurt\"} 0",
            "valv_store_breaker_open{store=\"helsinki\"} 0",
            "valv_store_last_probe_timestamp_seconds{store=\"helsinki\"} 1800000000",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
        }
        assert!(!text.contains("oslo"));
        assert!(!text.contains("timestamp_seconds{store=\"frankfurt\"}"));
    }

    #[test]
    fn a_process_whose_fence_fell_is_not_the_leader() {
        let metrics = Metrics::new(Leadership::lasting_until(Instant::now()));

        assert!(metrics.text().unwrap().contains("\nvalv_leader 0\n"));
    }

    #[test]
    fn the_process_reports_its_memory_its_time_and_its_descriptors() {
        let text = metrics().text().unwrap();

        for name in ["process_resident_memory_bytes ", "process_cpu_seconds_total ", "process_open_fds "] {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let value: f64 = line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap();
            assert!(value >= 0.0);
        }
    }

    #[test]
    fn memory_and_time_are_read_as_the_manual_pages_say() {
        let status = "Name:\tvalv\nVmHWM:\t   30000 kB\nVmRSS:\t   20480 kB\n";
        let stat = "7 (a name) with ) brackets) S 1 7 7 0 -1 4194560 900 0 0 0 250 50 0 0 20 0 3 0 100";

        assert_eq!(resident_bytes(status), Some(20 * 1024 * 1024));
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(resident_bytes("Name:\tkthreadd\n"), None);
        assert_eq!(cpu_seconds("nonsense"), None);
    }
}
