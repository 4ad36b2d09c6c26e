//! Who counts: the pools of all workers and the process, gathered for a scrape.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use prometheus::proto;

use crate::telemetry::families::{
    FAMILIES, Family, Kind, PGBOUNCER_FAMILIES, Sample, Samples, Scrape, Source, Value,
};
use crate::telemetry::instrument::{BOUNDS_SECONDS, HistogramSnapshot};
use crate::telemetry::labels::Limit;
use crate::telemetry::metrics::{Exemplars, PoolMetrics, ProcessMetrics};

/// All that is counted. Shared; the lock inside is taken when a pool is registered and when a scrape begins, never per query.
#[derive(Debug)]
pub struct Registry {
    /// What is counted for the process.
    pub process: Arc<ProcessMetrics>,
    labels: MetricLabels,
    epoch: Instant,
    pools: Mutex<Pools>,
}

/// What the series say that is not a number.
#[derive(Clone, Debug)]
pub struct MetricLabels {
    /// What can become of an annotation: [`PoolMetrics::annotated`] takes the index.
    pub annotation_reasons: &'static [&'static str],
    /// The version of PgBouncer that the console names, as in `SHOW VERSION`.
    pub pgbouncer_version: Box<str>,
}

/// A (database, user) pair.
pub type PoolName = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
struct Pools {
    named: BTreeSet<PoolName>,
    /// By name and worker.
    metrics: BTreeMap<(PoolName, usize), Arc<PoolMetrics>>,
}

/// How many (database, user) pairs get series of their own; further ones are counted together as [`OTHER`].
pub const MAX_POOLS: usize = 1_000;

/// The database and the user of pools beyond [`MAX_POOLS`].
pub const OTHER: &str = "other";

/// What a scrape sees.
#[derive(Debug)]
pub struct Gathered {
    /// Families with their metrics; those without a metric are left out.
    pub families: Vec<proto::MetricFamily>,
    /// The exemplars of [`crate::telemetry::families::WITH_EXEMPLARS`] by database and user.
    pub exemplars: BTreeMap<PoolName, Exemplars>,
}

impl Registry {
    /// Counts nothing yet. `now` is the time that waits are measured from.
    pub fn new(labels: MetricLabels, now: Instant) -> Self {
        Self {
            process: Arc::default(),
            labels,
            epoch: now,
            pools: Mutex::default(),
        }
    }

    /// What `worker` counts for a pool; the same for the same arguments. Only the thread of that worker may write to it.
    ///
    /// Beyond [`MAX_POOLS`] pools a worker's further pools share one; their `set` gauges then tell of the last that wrote.
    pub fn register_pool(&self, worker: usize, database: &str, user: &str) -> Arc<PoolMetrics> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let mut name: PoolName = (database.into(), user.into());
        if !pools.named.contains(&name) {
            if pools.named.len() < MAX_POOLS {
                pools.named.insert(name.clone());
            } else {
                self.process.limits.of(Limit::MetricPools).increase();
                name = (OTHER.into(), OTHER.into());
            }
        }
        let number = u32::try_from(pools.metrics.len()).unwrap_or(u32::MAX);
        let metrics = pools
            .metrics
            .entry((name.clone(), worker))
            .or_insert_with(|| {
                let reasons = self.labels.annotation_reasons.len();
                Arc::new(PoolMetrics::new(number, name, reasons, self.epoch))
            });
        Arc::clone(metrics)
    }

    /// All series as they are at `now`.
    pub fn gather(&self, now: Instant) -> Gathered {
        let pools = self.pools_by_shown_name();
        let scrape = Scrape {
            now,
            annotation_reasons: self.labels.annotation_reasons,
            version: env!("CARGO_PKG_VERSION"),
            pgbouncer_version: &self.labels.pgbouncer_version,
            pools: pools.len(),
            servers: (pools.values().flatten())
                .flat_map(|pool| pool.servers.iter())
                .map(|(_, count)| count)
                .sum(),
        };
        Gathered {
            families: (FAMILIES.iter().chain(PGBOUNCER_FAMILIES))
                .map(|family| self.gather_family(family, &pools, &scrape))
                .filter(|family| !family.get_metric().is_empty())
                .collect(),
            exemplars: (pools.iter())
                .map(|(name, workers)| (name.clone(), latest_exemplars(workers)))
                .collect(),
        }
    }

    /// How many queries there were by context (in the order of its label's values), by database and user.
    pub fn contexts(&self) -> Vec<(PoolName, [u64; 5])> {
        (self.pools_by_name().into_iter())
            .map(|(name, workers)| {
                let mut counts = [0; 5];
                for worker in workers {
                    for (count, more) in counts.iter_mut().zip(worker.queries_by_context()) {
                        *count += more;
                    }
                }
                (name, counts)
            })
            .collect()
    }

    /// What each pool's workers count.
    pub fn pools_by_name(&self) -> BTreeMap<PoolName, Vec<Arc<PoolMetrics>>> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let mut by_name: BTreeMap<PoolName, Vec<Arc<PoolMetrics>>> = BTreeMap::new();
        for ((name, _), metrics) in &pools.metrics {
            by_name
                .entry(name.clone())
                .or_default()
                .push(Arc::clone(metrics));
        }
        by_name
    }

    /// The same by the names that series may have.
    fn pools_by_shown_name(&self) -> BTreeMap<PoolName, Vec<Arc<PoolMetrics>>> {
        let mut by_name: BTreeMap<PoolName, Vec<Arc<PoolMetrics>>> = BTreeMap::new();
        for (name, workers) in self.pools_by_name() {
            let shown = by_name.entry(self.process.shown_name(&name)).or_default();
            shown.extend(workers);
        }
        by_name
    }

    fn gather_family(
        &self,
        family: &Family,
        pools: &BTreeMap<PoolName, Vec<Arc<PoolMetrics>>>,
        scrape: &Scrape<'_>,
    ) -> proto::MetricFamily {
        // By the values of the labels that the source gives.
        let mut groups: BTreeMap<Vec<&str>, Samples> = BTreeMap::new();
        for ((database, user), workers) in pools {
            let (group, read): (Vec<&str>, _) = match family.source {
                Source::Pool(read) => (vec![database, user], read),
                Source::Database(read) => (vec![database], read),
                Source::Process(_) => break,
            };
            let group = groups.entry(group).or_default();
            for worker in workers {
                let mut samples = Samples::default();
                read(worker, scrape, &mut samples);
                group.merge(samples, family.kind);
            }
        }
        if let Source::Process(read) = family.source {
            let samples = groups.entry(Vec::new()).or_default();
            read(&self.process, scrape, samples);
        }

        let mut gathered = proto::MetricFamily::default();
        gathered.set_name(family.name.to_owned());
        gathered.set_help(family.help.to_owned());
        gathered.set_field_type(match family.kind {
            Kind::Counter => proto::MetricType::COUNTER,
            Kind::Gauge | Kind::GaugeMax => proto::MetricType::GAUGE,
            Kind::Histogram => proto::MetricType::HISTOGRAM,
        });
        gathered.set_metric(
            groups
                .into_iter()
                .flat_map(|(group, samples)| {
                    (samples.0.into_iter()).map(move |sample| metric(family, &group, sample))
                })
                .collect(),
        );
        gathered
    }
}

fn metric(family: &Family, group: &[&str], sample: Sample) -> proto::Metric {
    let names = family.source.labels().iter().chain(family.labels);
    let values = (group.iter().copied()).chain(sample.labels.iter().map(AsRef::as_ref));
    let labels = names.zip(values).map(|(name, value)| {
        let mut label = proto::LabelPair::default();
        label.set_name((*name).to_owned());
        label.set_value(value.to_owned());
        label
    });
    let mut metric = proto::Metric::from_label(labels.collect());
    match sample.value {
        Value::Histogram(snapshot) => metric.set_histogram(histogram(&snapshot)),
        Value::Number(value) if family.kind == Kind::Counter => {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        }
        Value::Number(value) => {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
    }
    metric
}

fn histogram(snapshot: &HistogramSnapshot) -> proto::Histogram {
    let mut count = 0;
    let buckets = (BOUNDS_SECONDS.iter().zip(snapshot.buckets))
        .map(|(&bound, in_bucket)| {
            count += in_bucket;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        })
        .collect();
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(snapshot.buckets.iter().sum());
    histogram.set_sample_sum(snapshot.sum_seconds);
    histogram
}

fn latest_exemplars(workers: &[Arc<PoolMetrics>]) -> Exemplars {
    let mut latest = Exemplars::default();
    for worker in workers {
        for (slot, exemplar) in latest.iter_mut().zip(worker.exemplars()) {
            if exemplar.map(|exemplar| exemplar.at) > slot.map(|exemplar| exemplar.at) {
                *slot = exemplar;
            }
        }
    }
    latest
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::session::query_record::{Outcome, Phases, QueryKind, QueryRecord, QueueCause};
    use crate::telemetry::labels::ServerState;
    use crate::telemetry::metrics::{Exemplar, KnownNames};
    use crate::trace_context::{ContextState, SpanId, TraceId};

    #[test]
    fn the_same_pool_of_two_workers_is_one_series() {
        let registry = registry();
        let first = registry.register_pool(0, "app", "ann");
        let second = registry.register_pool(1, "app", "ann");
        let other = registry.register_pool(0, "app", "bob");
        first.observe(&record(Duration::from_millis(2)));
        second.observe(&record(Duration::from_millis(200)));
        other.observe(&record(Duration::from_millis(2)));
        first.pgbouncer.queries.add(2);
        other.pgbouncer.queries.increase();
        first.servers.of(ServerState::Idle).set(3);
        second.servers.of(ServerState::Idle).set(4);

        let gathered = registry.gather(now());
        assert_eq!(
            number(&gathered, "pgspan_pool_servers", &["app", "ann", "idle"]),
            Some(7.0)
        );
        assert_eq!(
            number(
                &gathered,
                "pgspan_queries_total",
                &["app", "ann", "provided", "completed"]
            ),
            Some(2.0)
        );
        let duration = metric_of(&gathered, "pgspan_query_duration_seconds", &["app", "ann"])
            .unwrap()
            .get_histogram()
            .clone();
        assert_eq!(duration.get_sample_count(), 2);
        assert_eq!(duration.get_sample_sum(), 0.202);
        assert_eq!(
            number(&gathered, "pgbouncer_stats_queries_total", &["app"]),
            Some(3.0)
        );
        assert_eq!(number(&gathered, "pgbouncer_used_servers", &[]), Some(7.0));
    }

    #[test]
    fn a_worker_that_registers_a_pool_again_gets_the_same_metrics() {
        let registry = registry();
        let first = registry.register_pool(0, "app", "ann");
        assert!(Arc::ptr_eq(
            &first,
            &registry.register_pool(0, "app", "ann")
        ));
        assert!(!Arc::ptr_eq(
            &first,
            &registry.register_pool(1, "app", "ann")
        ));
    }

    #[test]
    fn pools_beyond_the_limit_are_counted_together() {
        let registry = registry();
        for number in 0..MAX_POOLS {
            registry.register_pool(0, "app", &number.to_string());
        }
        let beyond = registry.register_pool(0, "app", "one too many");
        let further = registry.register_pool(0, "app", "two too many");
        assert!(Arc::ptr_eq(&beyond, &further));
        beyond.checkouts.increase();

        let gathered = registry.gather(now());
        assert_eq!(
            number(&gathered, "pgspan_pool_checkouts_total", &[OTHER, OTHER]),
            Some(1.0)
        );
        assert_eq!(
            number(&gathered, "pgspan_limits_hit_total", &["metric_pools"]),
            Some(2.0)
        );
    }

    #[test]
    fn names_that_the_configuration_does_not_know_are_counted_together() {
        let registry = registry();
        for (database, user) in [("app", "ann"), ("app", "stranger"), ("app", "other one")] {
            registry
                .register_pool(0, database, user)
                .checkouts
                .increase();
        }
        registry.process.set_known_names(Some(KnownNames {
            databases: BTreeSet::from(["app".into()]),
            users: BTreeSet::from(["ann".into()]),
        }));
        let gathered = registry.gather(now());
        let count = |user| number(&gathered, "pgspan_pool_checkouts_total", &["app", user]);
        assert_eq!(count("ann"), Some(1.0));
        assert_eq!(count("stranger"), None);
        assert_eq!(count(OTHER), Some(2.0));
    }

    #[test]
    fn the_oldest_wait_is_that_of_the_scrape_and_the_longest_of_all_workers() {
        let registry = registry();
        let start = registry.epoch;
        let first = registry.register_pool(0, "app", "ann");
        let second = registry.register_pool(1, "app", "ann");
        first.set_oldest_wait(Some(start));
        second.set_oldest_wait(Some(start + Duration::from_secs(2)));

        let gathered = registry.gather(start + Duration::from_secs(3));
        let name = "pgspan_pool_oldest_wait_seconds";
        assert_eq!(number(&gathered, name, &["app", "ann"]), Some(3.0));

        first.set_oldest_wait(None);
        let gathered = registry.gather(start + Duration::from_secs(3));
        assert_eq!(number(&gathered, name, &["app", "ann"]), Some(1.0));
    }

    #[test]
    fn annotations_are_counted_under_the_registered_reasons() {
        let registry = registry();
        registry.register_pool(0, "app", "ann").annotated(1);
        let gathered = registry.gather(now());
        let name = "pgspan_query_annotations_total";
        assert_eq!(
            number(&gathered, name, &["app", "ann", "annotated"]),
            Some(0.0)
        );
        assert_eq!(
            number(&gathered, name, &["app", "ann", "has_comment"]),
            Some(1.0)
        );
    }

    #[test]
    fn waits_are_counted_by_cause_and_times_by_phase() {
        let registry = registry();
        let pool = registry.register_pool(0, "app", "ann");
        let mut waited = record(Duration::from_millis(1));
        waited.phases.queue_wait = Duration::from_millis(40);
        waited.phases.queue_cause = Some(QueueCause::PoolFull);
        pool.waits.of(QueueCause::PoolFull).increase();
        pool.observe(&waited);

        let gathered = registry.gather(now());
        assert_eq!(
            number(
                &gathered,
                "pgspan_pool_waits_total",
                &["app", "ann", "pool_full"]
            ),
            Some(1.0)
        );
        let wait = metric_of(
            &gathered,
            "pgspan_query_phase_seconds",
            &["app", "ann", "queue_wait"],
        )
        .unwrap();
        assert_eq!(wait.get_histogram().get_sample_sum(), 0.04);
    }

    #[test]
    fn the_newest_exemplar_of_all_workers_stands_for_a_bucket() {
        let registry = registry();
        let first = registry.register_pool(0, "app", "ann");
        let second = registry.register_pool(1, "app", "ann");
        let old = exemplar(1);
        let new = exemplar(2);
        first.keep_exemplar(new);
        second.keep_exemplar(old);

        let gathered = registry.gather(now());
        let exemplars = gathered.exemplars[&("app".into(), "ann".into())];
        assert_eq!(exemplars[10], Some(new));
        assert_eq!(exemplars.iter().flatten().count(), 1);
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "any time will do, std has no other"
    )]
    pub(crate) fn now() -> Instant {
        Instant::now()
    }

    pub(crate) fn registry() -> Registry {
        Registry::new(
            MetricLabels {
                annotation_reasons: &["annotated", "has_comment"],
                pgbouncer_version: "PgBouncer 1.25.2".into(),
            },
            now(),
        )
    }

    pub(crate) fn exemplar(second: u64) -> Exemplar {
        Exemplar {
            trace_id: TraceId::from_bytes([0xab; 16]).unwrap(),
            span_id: SpanId::from_bytes([0xcd; 8]),
            duration: Duration::from_millis(200),
            at: std::time::UNIX_EPOCH + Duration::from_secs(second),
        }
    }

    /// A completed query that the server took `first_byte` for.
    pub(crate) fn record(first_byte: Duration) -> QueryRecord<'static> {
        QueryRecord {
            sql: b"SELECT 1",
            kind: QueryKind::Simple,
            phases: Phases {
                first_byte,
                ..Phases::default()
            },
            outcome: Outcome::Completed,
            rows: 1,
            trace: None,
            context: ContextState::Provided,
            server_pid: 42,
            warnings: &[],
        }
    }

    fn metric_of<'a>(
        gathered: &'a Gathered,
        name: &str,
        labels: &[&str],
    ) -> Option<&'a proto::Metric> {
        (gathered.families.iter())
            .find(|family| family.name() == name)?
            .get_metric()
            .iter()
            .find(|metric| {
                (metric.get_label().iter().map(proto::LabelPair::value)).eq(labels.iter().copied())
            })
    }

    fn number(gathered: &Gathered, name: &str, labels: &[&str]) -> Option<f64> {
        let metric = metric_of(gathered, name, labels)?;
        Some(metric.get_counter().get_value() + metric.get_gauge().get_value())
    }
}
