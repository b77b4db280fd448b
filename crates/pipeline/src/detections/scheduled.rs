//! Rules with a schedule: compiled to questions to the stored events.

use super::set::{DetectionRule, DetectionSet, InForce};
use super::standing::Mode;
use crate::history::Questions;
use rules::sigma::correlation::Target;
use rules::sigma::{Collection, Schedule};
use rules::sql::SqlError;
use rules::sql::correlation::members;
use std::sync::Arc;
use storage::catalog::detection_rules::RuleState;

/// One of a collection, whoever has it in force.
#[derive(Debug)]
pub(super) struct Scheduled {
    pub rule: DetectionRule,
    schedule: Schedule,
    target: Target,
    /// What is asked of the stored events, or why it cannot be.
    questions: Result<Arc<Questions>, SqlError>,
}

/// One that an organisation has in force, and that speaks for itself.
#[derive(Debug, Clone)]
pub struct ScheduledRule {
    set: Arc<DetectionSet>,
    of: Arc<Scheduled>,
    mode: Mode,
}

/// All of a collection.
pub(super) fn compiled(collection: &Collection) -> Vec<Arc<Scheduled>> {
    let rules = (0..).zip(&collection.rules).filter_map(|(place, rule)| {
        let schedule = rule.header.schedule?;
        Some((DetectionRule::of_rule(place, rule, Arc::default()), schedule, Target::Rule(place)))
    });
    let correlations = (0..).zip(&collection.correlations).filter_map(|(place, one)| {
        let schedule = one.header.schedule?;
        Some((DetectionRule::of_correlation(place, one), schedule, Target::Correlation(place)))
    });
    let mut shared = None;
    let one = |(rule, schedule, target): (DetectionRule, Schedule, Target)| {
        let of_matched = Arc::clone(shared.get_or_insert_with(|| Arc::new(members::of_matched(collection))));
        let (questions, left_out) = Questions::of(collection, of_matched, |one| one == target);
        let questions = match left_out.into_iter().next() {
            Some(left_out) => {
                let (rule, why) = (&*rule.header.uid, &left_out.why);
                tracing::error!(rule, %why, "a scheduled rule cannot be asked of the stored events");
                Err(left_out.why)
            }
            None => Ok(Arc::new(questions)),
        };
        Arc::new(Scheduled { rule, schedule, target, questions })
    };
    rules.chain(correlations).map(one).collect()
}

impl DetectionSet {
    /// What is asked now and then, and alerts or is in dry run.
    pub(super) fn scheduled(&self) -> impl Iterator<Item = (&Arc<Scheduled>, Mode)> {
        self.compiled().scheduled.iter().filter_map(|of| {
            let standing = match of.target {
                Target::Rule(place) => self.standings().rules.get(place)?,
                Target::Correlation(place) => self.standings().correlations.get(place)?,
            };
            Some((of, standing.mode().filter(|mode| *mode != Mode::Feeds)?))
        })
    }
}

impl ScheduledRule {
    /// Those of an organisation's set.
    pub fn of(set: &Arc<DetectionSet>) -> Vec<Self> {
        set.scheduled().map(|(of, mode)| Self { set: Arc::clone(set), of: Arc::clone(of), mode }).collect()
    }

    pub fn uid(&self) -> &str {
        &self.of.rule.header.uid
    }

    pub fn rule(&self) -> &DetectionRule {
        &self.of.rule
    }

    pub fn schedule(&self) -> Schedule {
        self.of.schedule
    }

    pub fn target(&self) -> Target {
        self.of.target
    }

    /// How the organisation has it in force.
    pub fn in_force(&self) -> InForce<'_> {
        let standing = match self.of.target {
            Target::Rule(place) => self.set.standings().rules.get(place),
            Target::Correlation(place) => self.set.standings().correlations.get(place),
        };
        let level = standing.map_or(self.of.rule.header.level, |standing| standing.level);
        let team = standing.and_then(|standing| standing.team.as_deref());
        InForce { rule: &self.of.rule, mode: self.mode, level, team }
    }

    /// What is asked of the stored events; rules that are off are not.
    pub fn questions(&self) -> Result<Arc<Questions>, &SqlError> {
        let questions = self.of.questions.as_ref()?;
        let rules = &self.set.standings().rules;
        let is_off = |place: usize| rules.get(place).is_none_or(|standing| standing.state == RuleState::Off);
        Ok(Questions::without(questions, is_off))
    }
}
