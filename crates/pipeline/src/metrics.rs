//! Every metric of the product, with the contract's names and labels (mutt §9.1) and our own.
//!
//! One registry a process; each port shows all of it, as the roles may share a process. A process
//! shows the metrics of its roles only: what is shared by several processes, the depth of a queue for
//! one, is told once, and a counter at 0 tells that nothing came, not that nobody looks.

use model::{InputKind, Outcome, RejectReason};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use rules::correlate::Counters;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use storage::queue::QueueName;

/// Label names and values of one series.
pub type Labels = Vec<(&'static str, String)>;
type Float = Gauge<f64, AtomicU64>;

const LATENCY: [f64; 11] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// The default of the original's library.
const RELOAD: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const DELIVERY: [f64; 8] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
const WRITE_MS: [f64; 11] = [1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0];
const SCHEDULE: [f64; 8] = [0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0];
const API: [f64; 7] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// Which role a metric is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Ingestor,
    Alerter,
    Forwarder,
    Remediation,
    Webui,
}

impl Owner {
    pub const ALL: [Self; 5] = [Self::Ingestor, Self::Alerter, Self::Forwarder, Self::Remediation, Self::Webui];

    /// By the names of the contract; `None`: of the process, or of a queue, whoever runs here.
    fn of(name: &str) -> Option<Self> {
        const NAMES: [(&str, Owner); 14] = [
            ("mutt_agents_", Owner::Ingestor),
            ("mutt_detection_", Owner::Alerter),
            ("mutt_ingest_", Owner::Ingestor),
            ("mutt_events_settled", Owner::Alerter),
            ("mutt_events_", Owner::Ingestor),
            ("mutt_alerter_", Owner::Alerter),
            ("mutt_db_write_", Owner::Alerter),
            ("mutt_incidents_", Owner::Alerter),
            ("mutt_schedule_", Owner::Alerter),
            ("mutt_moog_", Owner::Forwarder),
            ("mutt_alert_delivery_", Owner::Forwarder),
            ("mutt_circuit_breaker_", Owner::Forwarder),
            ("mutt_remediation_", Owner::Remediation),
            ("mutt_webui_", Owner::Webui),
        ];
        NAMES.iter().find(|(start, _)| name.starts_with(start)).map(|(_, owner)| *owner)
    }

    /// Who tells of a queue that all processes share.
    pub const fn of_queue(queue: QueueName) -> Self {
        match queue {
            QueueName::Ingest => Self::Ingestor,
            QueueName::DlqAlerter => Self::Alerter,
            QueueName::Alerts | QueueName::DlqForwarder => Self::Forwarder,
            QueueName::Dead => Self::Remediation,
        }
    }
}

macro_rules! metrics {
    ($( $field:ident: $kind:ty = $make:expr, $name:literal, $help:literal; )*) => {
        /// The metrics; fields are named as the series without the `mutt_` prefix.
        #[expect(missing_docs, reason = "the help text of each is its documentation")]
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            owners: Vec<Owner>,
            /// Series that every request touches, found once.
            accepted_by_input: Vec<(InputKind, Counter)>,
            ingest_successes: Counter,
            $( pub $field: $kind, )*
        }

        impl Metrics {
            fn build(owners: &[Owner]) -> Self {
                let mut registry = Registry::default();
                $(
                    let $field: $kind = $make;
                    if Owner::of($name).is_none_or(|owner| owners.contains(&owner)) {
                        registry.register($name, $help, $field.clone());
                    }
                )*
                let owners = owners.to_vec();
                Self { registry, owners, accepted_by_input: Vec::new(), ingest_successes: Counter::default(), $( $field, )* }
            }
        }
    };
}

fn histogram(buckets: &'static [f64]) -> Histogram {
    Histogram::new(buckets.iter().copied())
}

metrics! {
    ingest_requests: Family<Labels, Counter> = Family::default(), "mutt_ingest_requests", "Ingest requests by status and reason";
    ingest_queue_depth: Gauge = Gauge::default(), "mutt_ingest_queue_depth", "Events accepted and not settled";
    ingest_rate_limit_hits: Counter = Counter::default(), "mutt_ingest_rate_limit_hits", "Requests refused by the site-wide limit";
    ingest_latency: Histogram = histogram(&LATENCY), "mutt_ingest_latency_seconds", "Time to answer an ingest request";
    events_accepted: Family<Labels, Counter> = Family::default(), "mutt_events_accepted", "Events made durable, by input";
    events_rejected: Family<Labels, Counter> = Family::default(), "mutt_events_rejected", "Things that came in and were refused or cut (too_large), by input and reason";
    events_lost_in_kernel: Family<Labels, Counter> = Family::default(), "mutt_events_lost_in_kernel", "Datagrams the kernel dropped before they could be read, by input";
    events_settled: Family<Labels, Counter> = Family::default(), "mutt_events_settled", "Accepted events by how they ended";
    agents_connections: Gauge = Gauge::default(), "mutt_agents_connections", "Open connections of agents";
    agents_sessions: Gauge = Gauge::default(), "mutt_agents_sessions", "Agents that are greeted and not gone";
    agents_turned_away: Family<Labels, Counter> = Family::default(), "mutt_agents_turned_away", "Connections of agents that came to nothing, by why";
    agents_logins: Family<Labels, Counter> = Family::default(), "mutt_agents_logins", "Tokens that were shown, by result: accepted, refused";
    agents_batches: Family<Labels, Counter> = Family::default(), "mutt_agents_batches", "Batches of agents that are durable, by whether they came again: first, repeated";
    agents_records: Counter = Counter::default(), "mutt_agents_records", "Records in batches of agents, those that came again not counted";
    agents_bytes: Counter = Counter::default(), "mutt_agents_bytes", "Bytes of batches of agents, those that came again not counted";
    agents_silent: Counter = Counter::default(), "mutt_agents_silent", "Agents that fell silent";
    queue_quarantined: Family<Labels, Gauge> = Family::default(), "mutt_queue_quarantined_records", "Broken records put aside when the queue was opened";
    queue_bytes: Family<Labels, Gauge> = Family::default(), "mutt_queue_bytes", "Bytes a queue occupies";
    queue_depth: Family<Labels, Gauge> = Family::default(), "mutt_queue_depth", "Unsettled records by queue";

    alerter_events_processed: Family<Labels, Counter> = Family::default(), "mutt_alerter_events_processed", "Events worked by status";
    alerter_alerts_forwarded: Counter = Counter::default(), "mutt_alerter_alerts_forwarded", "Alerts handed to delivery";
    incidents_open: Gauge = Gauge::default(), "mutt_incidents_open", "Incidents that are open; every alerter says the same number";
    incidents_grouped: Counter = Counter::default(), "mutt_incidents_grouped", "Alerts that joined an incident and of which nobody was told";
    incidents_silenced: Counter = Counter::default(), "mutt_incidents_silenced", "Alerts of which nobody was told because of a silence";
    incidents_escalations: Counter = Counter::default(), "mutt_incidents_escalations", "Incidents escalated because nobody acknowledged them";
    incidents_auto_resolved: Counter = Counter::default(), "mutt_incidents_auto_resolved", "Incidents resolved because they were quiet";
    alerter_unhandled_meta_alerts: Counter = Counter::default(), "mutt_alerter_unhandled_meta_alerts", "Meta-alerts about unhandled events";
    alerter_cache_reload_failures: Counter = Counter::default(), "mutt_alerter_cache_reload_failures", "Rule reloads that failed; the old rules stay";
    alerter_cache_reload: Family<Labels, Counter> = Family::default(), "mutt_alerter_cache_reload", "Rule reloads by status";
    alerter_processing_latency: Histogram = histogram(&LATENCY), "mutt_alerter_processing_latency_seconds", "Time to work a batch of events";
    alerter_cache_reload_latency: Histogram = histogram(&RELOAD), "mutt_alerter_cache_reload_latency_seconds", "Time to reload the rules";
    alerter_cache_rules_count: Gauge = Gauge::default(), "mutt_alerter_cache_rules_count", "Active rules";
    alerter_cache_rules_refused: Gauge = Gauge::default(), "mutt_alerter_cache_rules_refused", "Active rules that cannot be used and are left out";
    alerter_cache_dev_hosts_count: Gauge = Gauge::default(), "mutt_alerter_cache_dev_hosts_count", "Development hosts";
    alerter_cache_teams_count: Gauge = Gauge::default(), "mutt_alerter_cache_teams_count", "Hosts with a team";
    alerter_dlq_depth: Gauge = Gauge::default(), "mutt_alerter_dlq_depth", "Dead letters of the alerter";
    alerter_processing_list_depth: Gauge = Gauge::default(), "mutt_alerter_processing_list_depth", "Events leased to the alerter";
    alerter_queue_depth: Gauge = Gauge::default(), "mutt_alerter_queue_depth", "Alerts waiting for delivery, as the alerter sees them";
    alerter_shed_events: Family<Labels, Counter> = Family::default(), "mutt_alerter_shed_events", "Alerts left in the outbox (dlq) or pauses (defer) because the alert queue was over its threshold";
    detection_rules: Gauge = Gauge::default(), "mutt_detection_rules", "Detection rules in force where an organisation says nothing, those in dry run counted";
    detection_documents_refused: Gauge = Gauge::default(), "mutt_detection_documents_refused", "Rules of organisations that cannot be used and are left out";
    detection_reloads: Family<Labels, Counter> = Family::default(), "mutt_detection_reloads", "Reloads of the detection rules by status; after a failure the old ones stay";
    detection_reload_latency: Histogram = histogram(&RELOAD), "mutt_detection_reload_latency_seconds", "Time to read and compile detection rules";
    detection_matches: Family<Labels, Counter> = Family::default(), "mutt_detection_matches", "Matches of detection rules by rule and outcome: alerted, dry_run, paused, counted (its level alerts nobody)";
    correlation_hits: Family<Labels, Counter> = Family::default(), "mutt_detection_correlation_hits", "What correlations were told of events: counted, repeated (known already), late (behind their group's newest by more than lateness allows) or ahead (of the clock)";
    correlation_members_dropped: Counter = Counter::default(), "mutt_detection_correlation_members_dropped", "Events that a group of a correlation forgot because it was full";
    correlation_groups_evicted: Counter = Counter::default(), "mutt_detection_correlation_groups_evicted", "Groups of correlations that began anew because there were too many, or too large ones";
    correlation_groups_expired: Counter = Counter::default(), "mutt_detection_correlation_groups_expired", "Groups of correlations forgotten because nobody touched them any more";
    correlation_hits_waiting: Gauge = Gauge::default(), "mutt_detection_correlation_hits_waiting", "Hits that wait to be worked by the alerters that share correlations; each says the same number";
    correlation_groups: Gauge = Gauge::default(), "mutt_detection_correlation_groups", "Groups that correlations keep";
    correlation_bytes: Gauge = Gauge::default(), "mutt_detection_correlation_bytes", "Memory of the groups of correlations, as estimated";
    schedule_runs: Family<Labels, Counter> = Family::default(), "mutt_schedule_runs", "Runs of scheduled rules by outcome: done, failed";
    schedule_lag: Family<Labels, Float> = Family::default(), "mutt_schedule_lag_seconds", "By scheduled rule: time since acceptance of the first event that it has not looked at, where it is furthest behind";
    schedule_gaps: Family<Labels, Counter> = Family::default(), "mutt_schedule_gaps", "Stretches of events that scheduled rules could not look at, by why: retention, damage, off";
    schedule_late: Counter = Counter::default(), "mutt_schedule_late_events", "Events that scheduled correlations left out, as they came too late or were dated in the future";
    schedule_took: Histogram = histogram(&SCHEDULE), "mutt_schedule_run_seconds", "Time of one run of a scheduled rule";
    db_write_latency_ms: Histogram = histogram(&WRITE_MS), "mutt_db_write_latency_ms", "Time to write a batch to the catalog";

    moog_requests: Family<Labels, Counter> = Family::default(), "mutt_moog_requests", "Delivery attempts by status and reason";
    moog_request_latency: Histogram = histogram(&DELIVERY), "mutt_moog_request_latency_seconds", "Time of one delivery attempt";
    moog_dlq_depth: Gauge = Gauge::default(), "mutt_moog_dlq_depth", "Dead letters of the forwarder";
    moog_processing_list_depth: Gauge = Gauge::default(), "mutt_moog_processing_list_depth", "Alerts leased to the forwarder";
    moog_rate_limit_hits: Counter = Counter::default(), "mutt_moog_rate_limit_hits", "Times an alert had to wait for the shared limit";
    moog_alerts_processed: Family<Labels, Counter> = Family::default(), "mutt_moog_alerts_processed", "Alerts by how delivery ended";
    alert_delivery_seconds: Histogram = histogram(&DELIVERY), "mutt_alert_delivery_seconds", "From acceptance of the event to delivery of the alert";
    circuit_breaker_state: Family<Labels, Gauge> = Family::default(), "mutt_circuit_breaker_state", "0 closed, 1 half open, 2 open";
    circuit_breaker_failures: Family<Labels, Gauge> = Family::default(), "mutt_circuit_breaker_failures", "Failures in a row";
    circuit_breaker_state_changes: Family<Labels, Counter> = Family::default(), "mutt_circuit_breaker_state_changes", "Changes of state";
    moog_circuit_open: Gauge = Gauge::default(), "mutt_moog_circuit_open", "1 while a breaker is open";
    moog_circuit_breaker_state: Gauge = Gauge::default(), "mutt_moog_circuit_breaker_state", "As mutt_circuit_breaker_state, for shipped alert rules";
    moog_circuit_trips: Counter = Counter::default(), "mutt_moog_circuit_trips", "Times a breaker opened";
    moog_circuit_blocked: Counter = Counter::default(), "mutt_moog_circuit_blocked", "Times an alert had to wait for a breaker";

    webui_api_requests: Family<Labels, Counter> = Family::default(), "mutt_webui_api_requests", "Web API requests by endpoint and status";
    webui_api_latency: Family<Labels, Histogram, fn() -> Histogram> = Family::new_with_constructor(|| histogram(&API)), "mutt_webui_api_latency_seconds", "Time to answer a Web API request by endpoint";
    webui_login_failures: Family<Labels, Counter> = Family::default(), "mutt_webui_login_failures", "Wrong keys for the Web API: told so (wrong_key), or told to wait because their address gave too many (limited)";
    webui_db_query_latency_ms: Family<Labels, Histogram, fn() -> Histogram> = Family::new_with_constructor(|| histogram(&WRITE_MS)), "mutt_webui_db_query_latency_ms", "Time of a catalog query by operation";

    remediation_loops: Counter = Counter::default(), "mutt_remediation_loops", "Remediation cycles";
    remediation_replay_success: Counter = Counter::default(), "mutt_remediation_replay_success", "Dead letters replayed";
    remediation_poison_messages: Counter = Counter::default(), "mutt_remediation_poison_messages", "Dead letters parked for good";
    remediation_replay_fail: Family<Labels, Counter> = Family::default(), "mutt_remediation_replay_fail", "Replays that failed by reason";
    remediation_dlq_depth: Family<Labels, Gauge> = Family::default(), "mutt_remediation_dlq_depth", "Dead letters by queue";
    remediation_moog_health: Gauge = Gauge::default(), "mutt_remediation_moog_health", "1 while the receiver answers";
    remediation_loop_duration: Histogram = histogram(&DELIVERY), "mutt_remediation_loop_duration_seconds", "Time of a remediation cycle";

    webui_redis_scan_latency: Histogram = histogram(&API), "mutt_webui_redis_scan_latency_seconds", "Time to read the rate counters from the coordination store";
    flask_http_request: Family<Request, Counter> = Family::default(), "flask_http_request", "HTTP requests by method and status; named as the original's exporter does";
    flask_http_request_duration: Family<RequestPath, Histogram, fn() -> Histogram> = Family::new_with_constructor(|| histogram(&LATENCY)), "flask_http_request_duration_seconds", "Time to answer an HTTP request; named as the original's exporter does";

    retention_events_archived: Counter = Counter::default(), "mutt_retention_events_archived", "Audit rows moved to the archive";
    retention_events_deleted: Counter = Counter::default(), "mutt_retention_events_deleted", "Audit rows dropped for their age, from the log or the archive";
    retention_config_audits_deleted: Counter = Counter::default(), "mutt_retention_config_audits_deleted", "Rows about changes dropped for their age";
    retention_errors: Counter = Counter::default(), "mutt_retention_errors", "Runs of the retention that failed";
    retention_last_run: Gauge = Gauge::default(), "mutt_retention_last_run_timestamp", "End of the last run of the retention that succeeded, Unix time";
    retention_enforcement_duration: Histogram = histogram(&DELIVERY), "mutt_retention_enforcement_duration_seconds", "Time of a run of the retention";
    retention_cleanup_records_deleted: Family<Labels, Counter> = Family::default(), "mutt_retention_cleanup_records_deleted", "Rows dropped for their age, by type";
    retention_enabled: Gauge = Gauge::default(), "mutt_retention_enabled", "1 where this process runs the retention";
    retention_policy_days: Family<Labels, Gauge> = Family::default(), "mutt_retention_policy_days", "How long a type is kept";
    retention_cleanup_last_run: Gauge = Gauge::default(), "mutt_retention_cleanup_last_run_timestamp_seconds", "End of the last run of the retention that succeeded, Unix time";

    secrets_refresh_failures: Counter = Counter::default(), "mutt_secrets_refresh_failures", "Readings of Vault that failed; the secrets of before stay";
    secrets_last_refresh: Gauge = Gauge::default(), "mutt_secrets_last_refresh_timestamp_seconds", "Last good reading of Vault, Unix time; 0 without a Vault";

    host_udp_datagrams_dropped: Counter = Counter::default(), "mutt_host_udp_datagrams_dropped", "UDP datagrams for any socket of this host (network namespace) that no program got";
    host_packets_dropped: Counter = Counter::default(), "mutt_host_packets_dropped", "Packets of any kind that the host's kernel dropped before any socket";
    process_cpu_seconds: Counter<f64, AtomicU64> = Counter::default(), "process_cpu_seconds", "User and system time";
    process_virtual_memory: Gauge = Gauge::default(), "process_virtual_memory_bytes", "Virtual memory";
    process_max_fds: Gauge = Gauge::default(), "process_max_fds", "Most open file descriptors";
    process_resident_memory: Gauge = Gauge::default(), "process_resident_memory_bytes", "Resident memory";
    process_open_fds: Gauge = Gauge::default(), "process_open_fds", "Open file descriptors";
    process_start_time: Float = Float::default(), "process_start_time_seconds", "Start of the process, Unix time";
}

/// An answered HTTP request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Request {
    pub method: Cow<'static, str>,
    pub status: u16,
}

/// An answered HTTP request with the route that answered it, never the path asked for: a closed set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestPath {
    pub method: Cow<'static, str>,
    pub path: Cow<'static, str>,
    pub status: u16,
}

/// One series' labels.
pub fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    pairs.into_iter().map(|(name, value)| (name, value.to_owned())).collect()
}

impl Metrics {
    /// The metrics of all roles.
    pub fn new() -> Arc<Self> {
        Self::of(&Owner::ALL)
    }

    /// Those of these roles and of any process, with the series that operators and alert rules expect
    /// present from the start. The others can be counted too; nobody sees them.
    pub fn of(owners: &[Owner]) -> Arc<Self> {
        let mut metrics = Self::build(owners);
        metrics.accepted_by_input = InputKind::ALL
            .into_iter()
            .map(|kind| (kind, metrics.events_accepted.get_or_create_owned(&labels([("input", kind.as_str())]))))
            .collect();
        metrics.ingest_successes =
            metrics.ingest_requests.get_or_create_owned(&labels([("status", "success"), ("reason", "")]));
        for reason in ["auth", "json", "validation", "queue_full", "redis", "rate_limit", "unknown"] {
            drop(metrics.ingest_requests.get_or_create(&labels([("status", "fail"), ("reason", reason)])));
        }
        drop(metrics.ingest_requests.get_or_create(&labels([("status", "success"), ("reason", "")])));
        for result in ["wrong_key", "limited"] {
            drop(metrics.webui_login_failures.get_or_create(&labels([("result", result)])));
        }
        for status in ["handled", "unhandled", "poison", "error"] {
            drop(metrics.alerter_events_processed.get_or_create(&labels([("status", status)])));
        }
        for status in ["success", "failure"] {
            drop(metrics.alerter_cache_reload.get_or_create(&labels([("status", status)])));
        }
        for status in ["success", "dlq", "error"] {
            drop(metrics.moog_alerts_processed.get_or_create(&labels([("status", status)])));
        }
        for reason in ["http", "rate_limit", "retry_exhausted", "circuit_open"] {
            drop(metrics.moog_requests.get_or_create(&labels([("status", "fail"), ("reason", reason)])));
        }
        drop(metrics.moog_requests.get_or_create(&labels([("status", "success"), ("reason", "")])));
        for outcome in Outcome::ALL {
            drop(metrics.events_settled.get_or_create(&labels([("outcome", outcome.as_str())])));
        }
        for outcome in ["counted", "repeated", "late", "ahead"] {
            drop(metrics.correlation_hits.get_or_create(&labels([("outcome", outcome)])));
        }
        for input in InputKind::ALL {
            drop(metrics.events_accepted.get_or_create(&labels([("input", input.as_str())])));
        }
        for input in [InputKind::SyslogUdp, InputKind::Snmp] {
            drop(metrics.events_lost_in_kernel.get_or_create(&labels([("input", input.as_str())])));
        }
        Arc::new(metrics)
    }

    /// Whether this process tells of a queue.
    pub fn tells_of(&self, queue: QueueName) -> bool {
        self.owners.contains(&Owner::of_queue(queue))
    }

    /// The text of `/metrics` as Prometheus has always read it (text format 0.0.4).
    pub fn encode_classic(&self) -> String {
        classic(&self.encode())
    }

    /// The text of `/metrics` (OpenMetrics 1.0).
    pub fn encode(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(error) => format!("# encoding failed: {error}\n# EOF\n"),
        }
    }

    /// Counts an ingest request as the contract labels it; an empty reason is a success.
    pub fn count_ingest(&self, reason: &str) {
        if reason.is_empty() {
            self.ingest_successes.inc();
            return;
        }
        self.ingest_requests.get_or_create(&labels([("status", "fail"), ("reason", reason)])).inc();
        if reason == "rate_limit" {
            self.ingest_rate_limit_hits.inc();
        }
    }

    /// Counts an HTTP request. `route` as registered, not as asked for.
    pub fn count_request(&self, method: &http::Method, route: Cow<'static, str>, status: u16, seconds: f64) {
        let method: Cow<'static, str> = match method.as_str() {
            "GET" => "GET".into(),
            "POST" => "POST".into(),
            "PUT" => "PUT".into(),
            "DELETE" => "DELETE".into(),
            "HEAD" => "HEAD".into(),
            // A client may make up methods without end.
            _ => "other".into(),
        };
        self.flask_http_request.get_or_create(&Request { method: method.clone(), status }).inc();
        let series = RequestPath { method, path: route, status };
        self.flask_http_request_duration.get_or_create(&series).observe(seconds);
    }

    pub fn count_accepted(&self, input: InputKind, n: u64) {
        if let Some((_, counter)) = self.accepted_by_input.iter().find(|(kind, _)| *kind == input) {
            counter.inc_by(n);
        }
    }

    pub fn count_rejected(&self, input: InputKind, reason: RejectReason) {
        let labels = labels([("input", input.as_str()), ("reason", reason.as_str())]);
        self.events_rejected.get_or_create(&labels).inc();
    }

    pub fn count_settled(&self, outcome: Outcome, n: u64) {
        if n > 0 {
            self.events_settled.get_or_create(&labels([("outcome", outcome.as_str())])).inc_by(n);
        }
        let status = match outcome {
            Outcome::Handled => "handled",
            Outcome::Unhandled => "unhandled",
            Outcome::DeadLettered => "poison",
            Outcome::Duplicate => return,
        };
        self.alerter_events_processed.get_or_create(&labels([("status", status)])).inc_by(n);
    }

    /// Counts what correlations did with a batch.
    pub fn count_correlated(&self, counted: &Counters) {
        let Counters { hits, repeated, late, ahead, members_dropped, groups_evicted, groups_expired } = *counted;
        let outcomes = [
            ("counted", hits.saturating_sub(repeated + late)),
            ("repeated", repeated),
            ("late", late),
            ("ahead", ahead),
        ];
        for (outcome, count) in outcomes.into_iter().filter(|(_, count)| *count > 0) {
            self.correlation_hits.get_or_create(&labels([("outcome", outcome)])).inc_by(count);
        }
        self.correlation_members_dropped.inc_by(members_dropped);
        self.correlation_groups_evicted.inc_by(groups_evicted);
        self.correlation_groups_expired.inc_by(groups_expired);
    }

    /// Sum of the events of one outcome, for tests that add up.
    pub fn settled(&self, outcome: Outcome) -> u64 {
        self.events_settled.get_or_create(&labels([("outcome", outcome.as_str())])).get()
    }
}

/// OpenMetrics as the older format: there a counter is called as its series are, and nothing ends.
fn classic(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (end, kind) = match kind {
                "counter" => ("_total", kind),
                "unknown" => ("", "untyped"),
                _ => ("", kind),
            };
            if let Some((_, text)) = help.take() {
                let _ = writeln!(out, "# HELP {name}{end} {}", text.trim_end_matches('.'));
            }
            let _ = writeln!(out, "# TYPE {name}{end} {kind}");
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_tells_of_its_roles_and_of_its_queues_only() {
        let metrics = Metrics::of(&[Owner::Webui]);
        metrics.count_ingest("");
        metrics.count_ingest("auth");
        metrics.alerter_queue_depth.set(7);
        let text = metrics.encode();
        for start in ["mutt_ingest", "mutt_alerter", "mutt_moog", "mutt_remediation", "mutt_circuit", "mutt_events"] {
            assert!(!text.contains(start), "{start} in\n{text}");
        }
        for name in ["mutt_webui_login_failures_total", "process_open_fds", "mutt_retention_errors_total"] {
            assert!(text.contains(name), "{name} is not in\n{text}");
        }
        assert!(QueueName::ALL.into_iter().all(|queue| !metrics.tells_of(queue)));
        let all = Metrics::new();
        assert!(QueueName::ALL.into_iter().all(|queue| all.tells_of(queue)));
    }

    #[test]
    fn the_classic_text_names_counters_as_their_series() {
        let text = classic(
            "# HELP a_b Things \\\"x\\\".\n# TYPE a_b counter\n# UNIT a_b b\na_b_total{c=\"d\"} 1\n# HELP g Of.\n# TYPE g gauge\ng 2\n# EOF\n",
        );
        assert_eq!(
            text,
            "# HELP a_b_total Things \\\"x\\\"\n# TYPE a_b_total counter\na_b_total{c=\"d\"} 1\n# HELP g Of\n# TYPE g gauge\ng 2\n"
        );
        assert!(!Metrics::new().encode_classic().contains("# EOF"));
    }

    #[test]
    fn the_contracts_series_are_there_from_the_start() {
        let text = Metrics::new().encode();
        for line in [
            "mutt_ingest_requests_total{status=\"success\",reason=\"\"} 0",
            "mutt_alerter_events_processed_total{status=\"handled\"} 0",
            "mutt_moog_alerts_processed_total{status=\"dlq\"} 0",
            "mutt_moog_circuit_open 0",
            "mutt_alerter_dlq_depth 0",
            "mutt_remediation_loops_total 0",
            "mutt_ingest_latency_seconds_count 0",
            "mutt_retention_errors_total 0",
            "mutt_webui_redis_scan_latency_seconds_count 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
