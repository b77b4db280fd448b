//! Detection rules: which the organisation has and how they stand (`rules.rs`), the documents that it
//! keeps itself (`documents.rs`), many at once (`import.rs`), and trying rules before they are kept
//! (`trial.rs`).
//!
//! Always true here: what cannot be used is refused with file, line and reason before anything is
//! stored; and what takes long, reading rules, is done off the async threads by one request at a time.

mod documents;
mod import;
mod rules;
mod trial;

pub use documents::{list as documents, one as document, put, remove, restore, version, versions};
pub use import::{export, import};
pub use rules::{Search, change, clear, explanation, list, no_such_rule, one, set, team_of};
pub use trial::test;

use super::Api;
use super::error::{ApiError, ApiResult};
use ::rules::sigma::Gravity;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use model::OrgId;
use pipeline::detections::{Inventory, Library, OrgProblem};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use storage::catalog::detection_rules::{OrgDetectionRules, RuleDocument};

pub const STATES: &[&str] = &["on", "dry-run", "off"];
pub const SOURCES: &[&str] = &["shipped", "file", "document"];
pub const KINDS: &[&str] = &["rule", "correlation", "filter"];
pub const LEVELS: &[&str] = &["informational", "low", "medium", "high", "critical"];

/// Largest body of an import.
pub const IMPORT_BYTES_MAX: usize = crate::rule_documents::ARCHIVE_BYTES_MAX;
/// Longest time that the body of an import may take.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(120);
/// Problems that an answer names.
const PROBLEMS_SHOWN_MAX: usize = 1_000;

/// What the organisation has, as it was read last.
pub struct Known {
    pub own: OrgDetectionRules,
    pub inventory: Inventory,
    library: Arc<Library>,
    revision: u64,
}

impl Known {
    fn document(&self, name: &str) -> Option<&RuleDocument> {
        self.own.documents.iter().find(|document| document.name == name)
    }
}

impl Api {
    /// What the default organisation has now.
    pub(super) async fn detection(&self) -> ApiResult<Arc<Known>> {
        self.detection_of(&self.deps.org).await
    }

    /// What an organisation has now. That of the one that was asked about last is kept.
    pub(super) async fn detection_of(&self, org: &OrgId) -> ApiResult<Arc<Known>> {
        let mut kept = self.known.lock().await;
        let catalog = &self.deps.catalog;
        let revision = self.ask("detection_revision", catalog.detection_revision()).await?;
        let library = self.deps.detections.library();
        let same = |known: &&Arc<Known>| {
            known.own.org == *org && known.revision == revision && Arc::ptr_eq(&known.library, &library)
        };
        if let Some(known) = kept.as_ref().filter(same) {
            return Ok(Arc::clone(known));
        }
        let documents = self.ask("detection_documents", catalog.rule_documents(org)).await?;
        let settings = self.ask("detection_settings", catalog.rule_settings(org)).await?;
        let own = OrgDetectionRules { org: org.clone(), documents, settings };
        let known = working(move || {
            let inventory = Inventory::of(&library, &own);
            Arc::new(Known { own, inventory, library, revision })
        });
        let known = known.await?;
        *kept = Some(Arc::clone(&known));
        Ok(known)
    }
}

/// Work that takes long, off the async threads.
async fn working<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> ApiResult<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::unavailable("reading the rules broke off"))
}

fn refused(problems: &[OrgProblem]) -> usize {
    problems.iter().filter(|found| found.problem.gravity == Gravity::Refused).count()
}

/// Problems, those that refuse something first.
fn problems_shown<'p>(problems: impl IntoIterator<Item = &'p OrgProblem>) -> Vec<Value> {
    let mut all: Vec<&OrgProblem> = problems.into_iter().collect();
    all.sort_by_key(|found| found.problem.gravity);
    all.into_iter().take(PROBLEMS_SHOWN_MAX).map(problem_shown).collect()
}

fn problem_shown(found: &OrgProblem) -> Value {
    let problem = &found.problem;
    json!({
        "document": found.document,
        "file": &*problem.place.file,
        "line": problem.place.line,
        "rule": problem.rule,
        "title": problem.title,
        "field": problem.field,
        "message": problem.message,
        "suggestion": problem.suggestion,
        "refused": problem.gravity == Gravity::Refused,
    })
}

/// The refusal of a change that something is wrong with.
fn unusable(problems: &[OrgProblem]) -> ApiError {
    let first = problems.iter().find(|found| found.problem.gravity == Gravity::Refused);
    let said = first.map_or_else(String::new, |found| format!(": {}", found.problem));
    let count = refused(problems);
    let more = if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
    ApiError::invalid(format!("nothing was changed{said}{more}")).with("problems", problems_shown(problems))
}

/// A body as it is.
pub struct Raw {
    pub bytes: Bytes,
    pub headers: HeaderMap,
}

impl<S: Send + Sync> FromRequest<S> for Raw {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &S) -> ApiResult<Self> {
        let headers = request.headers().clone();
        let bytes = super::params::read(request, state).await?;
        Ok(Self { bytes, headers })
    }
}

/// The same, as large as an import may be, with more time.
pub struct LargeRaw(pub Raw);

impl<S: Send + Sync> FromRequest<S> for LargeRaw {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &S) -> ApiResult<Self> {
        let headers = request.headers().clone();
        let bytes = super::params::read_up_to(request, state, IMPORT_BYTES_MAX, IMPORT_TIMEOUT).await?;
        Ok(Self(Raw { bytes, headers }))
    }
}

impl Raw {
    /// The media type without its parameters, in lower case.
    fn media(&self) -> String {
        let value = self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }
}
