//! The rules that detection uses now: compiled, swapped as a whole, fresh within a second.

use crate::metrics::{Metrics, labels};
use arc_swap::ArcSwap;
use model::{Environment, Event, OrgId, Rule};
use rules::{RuleProblem, RuleSet, Subject};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use storage::StorageResult;
use storage::catalog::Catalog;

/// How often a change of the catalog is looked for.
const POLL: Duration = Duration::from_millis(400);

/// Rules, development hosts and teams of one organisation.
#[derive(Debug, Default)]
struct OrgBook {
    rules: RuleSet,
    dev_hosts: HashSet<String>,
    teams: HashMap<String, String>,
}

/// The rules of now. Clones share them.
#[derive(Clone)]
pub struct Rulebook {
    books: Arc<ArcSwap<BTreeMap<OrgId, OrgBook>>>,
    /// Rules from files, laid beside the catalog's; their ids are negative.
    from_files: Arc<ArcSwap<Vec<Rule>>>,
    turn: Arc<tokio::sync::Mutex<()>>,
    catalog: Arc<dyn Catalog>,
    metrics: Arc<Metrics>,
}

/// What a rule says about an event.
#[derive(Debug, Clone)]
pub struct Match {
    pub rule: Rule,
    pub environment: Environment,
}

impl Rulebook {
    pub fn new(catalog: Arc<dyn Catalog>, metrics: Arc<Metrics>) -> Self {
        Self {
            books: Arc::new(ArcSwap::from_pointee(BTreeMap::new())),
            from_files: Arc::new(ArcSwap::from_pointee(Vec::new())),
            turn: Arc::default(),
            catalog,
            metrics,
        }
    }

    /// Replaces the rules from files; they act after the next [`Self::reload`].
    pub fn set_file_rules(&self, rules: Vec<Rule>) {
        self.from_files.store(Arc::new(rules));
    }

    /// Reads and compiles everything. On failure the old rules stay. Returns rules left out.
    pub async fn reload(&self) -> StorageResult<Vec<RuleProblem>> {
        // One after the other: what was read earlier must never replace what was read later.
        let _turn = self.turn.lock().await;
        let started = tokio::time::Instant::now();
        let result = self.load().await;
        self.metrics.alerter_cache_reload_latency.observe(started.elapsed().as_secs_f64());
        let status = if result.is_ok() { "success" } else { "failure" };
        self.metrics.alerter_cache_reload.get_or_create(&labels([("status", status)])).inc();
        if result.is_err() {
            self.metrics.alerter_cache_reload_failures.inc();
        }
        result
    }

    async fn load(&self) -> StorageResult<Vec<RuleProblem>> {
        let mut rules: BTreeMap<OrgId, Vec<Rule>> = BTreeMap::new();
        for (org, rule) in self.catalog.all_rules().await? {
            rules.entry(org).or_default().push(rule);
        }
        rules.entry(OrgId::default()).or_default().extend(self.from_files.load().iter().cloned());
        let mut books: BTreeMap<OrgId, OrgBook> = BTreeMap::new();
        for hosts in self.catalog.all_hosts().await? {
            let book = books.entry(hosts.org).or_default();
            book.dev_hosts = hosts.dev_hosts.into_iter().collect();
            book.teams = hosts.teams.into_iter().collect();
        }
        let compiled = tokio::task::spawn_blocking(move || {
            rules.into_iter().map(|(org, rules)| (org, RuleSet::compile(rules))).collect::<Vec<_>>()
        })
        .await
        .map_err(|e| storage::StorageError::with_source(model::ErrorKind::Internal, "compiling the rules", e))?;
        let mut problems = Vec::new();
        for (org, (set, mut bad)) in compiled {
            books.entry(org).or_default().rules = set;
            problems.append(&mut bad);
        }
        for problem in &problems {
            tracing::error!(%problem, "a rule was left out");
        }
        self.metrics.alerter_cache_rules_refused.set(i64::try_from(problems.len()).unwrap_or(i64::MAX));
        let sum =
            |count: fn(&OrgBook) -> usize| i64::try_from(books.values().map(count).sum::<usize>()).unwrap_or(i64::MAX);
        self.metrics.alerter_cache_rules_count.set(sum(|b| b.rules.len()));
        self.metrics.alerter_cache_dev_hosts_count.set(sum(|b| b.dev_hosts.len()));
        self.metrics.alerter_cache_teams_count.set(sum(|b| b.teams.len()));
        self.books.store(Arc::new(books));
        Ok(problems)
    }

    /// Keeps the rules fresh until stopped.
    pub async fn run(&self, stop: runtime::Stop) {
        let mut seen = None;
        let mut failing = false;
        loop {
            match self.catalog.revision().await {
                Ok(revision) if seen == Some(revision) => {}
                Ok(revision) => match self.reload().await {
                    Ok(_) => {
                        seen = Some(revision);
                        failing = false;
                        tracing::debug!(revision, "rules reloaded");
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut failing, true) {
                            tracing::error!(%error, "rules cannot be reloaded; the old ones stay in force");
                        }
                    }
                },
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        self.metrics.alerter_cache_reload_failures.inc();
                        tracing::error!(%error, "the catalog cannot be asked for changes; the old rules stay in force");
                    }
                }
            }
            if !stop.sleep(POLL).await {
                return;
            }
        }
    }

    /// The rules as of now, for one batch.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.books.load_full())
    }
}

/// Rules that do not change while a batch is worked.
pub struct Snapshot(Arc<BTreeMap<OrgId, OrgBook>>);

fn subject(event: &Event) -> Subject<'_> {
    Subject { message: &event.message, severity: event.severity, trap_oid: event.trap_oid.as_deref() }
}

impl Snapshot {
    /// The first rule that matches, with the host's environment.
    pub fn first_match(&self, event: &Event) -> Option<Match> {
        let book = self.0.get(&event.org)?;
        let rule = book.rules.first_match(&subject(event))?.clone();
        let environment =
            if book.dev_hosts.contains(&event.host) { Environment::Development } else { Environment::Production };
        Some(Match { rule, environment })
    }

    /// The team of a host, for meta-alerts.
    pub fn team(&self, org: &OrgId, host: &str) -> Option<String> {
        self.0.get(org)?.teams.get(host).cloned()
    }

    /// Why each rule hits or misses, as text.
    pub fn explain(&self, event: &Event) -> String {
        match self.0.get(&event.org) {
            Some(book) => book.rules.explain(&subject(event)).to_string(),
            None => "this organisation has no rules".to_owned(),
        }
    }
}
