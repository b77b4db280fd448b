//! What is to become of a new alert: routes and silences together.

use super::matcher::{Matcher, MatcherSpec};
use super::route::rule_uid;
use super::tree::Router;
use arc_swap::ArcSwap;
use model::{Alert, Timestamp};
use std::sync::Arc;
use storage::StorageResult;
use storage::catalog::Catalog;
use storage::catalog::incidents::{Gathering, NewAlert, Plan, Silence, SilenceId};

/// Plans alerts. Clones share the silences.
#[derive(Clone)]
pub struct Planner(Arc<Shared>);

struct Shared {
    router: Arc<Router>,
    catalog: Arc<dyn Catalog>,
    silences: ArcSwap<Vec<(Silence, Matcher)>>,
}

/// Characters of a title that an incident keeps.
const TITLE_CHARS_MAX: usize = 300;

impl Planner {
    pub fn new(router: Arc<Router>, catalog: Arc<dyn Catalog>) -> Self {
        Self(Arc::new(Shared { router, catalog, silences: ArcSwap::default() }))
    }

    pub fn router(&self) -> &Router {
        &self.0.router
    }

    /// Reads the silences anew. Where that fails, those that are known go on until their time.
    pub async fn refresh(&self, now: Timestamp) -> StorageResult<()> {
        let silences = self.0.catalog.all_silences(now).await?;
        self.0.silences.store(Arc::new(silences.into_iter().filter_map(understood).collect()));
        Ok(())
    }

    /// The silence that holds for an alert now.
    pub fn silenced(&self, alert: &Alert, now: Timestamp) -> Option<SilenceId> {
        let silences = self.0.silences.load();
        let holds = |(silence, matcher): &&(Silence, Matcher)| {
            silence.org == alert.org && silence.holds(now) && matcher.matches(alert)
        };
        silences.iter().find(holds).map(|(silence, _)| silence.id)
    }

    /// The alert with what is to become of it.
    pub fn plan(&self, alert: Alert) -> NewAlert {
        let silenced_by = self.silenced(&alert, alert.created_at);
        let policy = self.0.router.policy(&alert);
        let plan = match silenced_by {
            _ if policy.gathers(&alert) => Plan::Gather(Box::new(Gathering {
                key: policy.key(&alert),
                rule_uid: rule_uid(&alert),
                title: title(&alert),
                group_wait: policy.group_wait,
                repeat_interval: policy.repeat_interval,
                suppress_for: policy.suppress_for,
                resolve_after: policy.resolve_after,
                reopen_within: policy.reopen_within,
                escalate_after: policy.escalation.as_ref().map(|escalation| escalation.after),
                silenced_by,
            })),
            Some(silence) => Plan::Silence(silence),
            None => Plan::Tell,
        };
        NewAlert { alert, plan }
    }
}

/// The silence with its matcher. One that this version cannot understand silences nothing: an alert too
/// many is better than one too few.
fn understood(silence: Silence) -> Option<(Silence, Matcher)> {
    let matcher = read_matcher(&silence.matcher);
    match matcher {
        Ok(matcher) => Some((silence, matcher)),
        Err(why) => {
            tracing::warn!(silence.id, why, "a silence cannot be understood and silences nothing");
            None
        }
    }
}

/// The matcher of a silence, of its JSON; `Err` says what is wrong with it.
pub fn read_matcher(json: &str) -> Result<Matcher, String> {
    let spec: MatcherSpec = serde_json::from_str(json).map_err(|error| format!("match: {error}"))?;
    let mut problems = Vec::new();
    let matcher = Matcher::new(&spec, "match", &mut problems);
    match problems.first() {
        Some(problem) => Err(format!("{}: {}", problem.path, problem.message)),
        None => Ok(matcher),
    }
}

fn title(alert: &Alert) -> String {
    let said = alert.detection.as_deref().map(|detection| detection.title.as_str()).filter(|title| !title.is_empty());
    said.unwrap_or(&alert.message).chars().take(TITLE_CHARS_MAX).collect()
}
