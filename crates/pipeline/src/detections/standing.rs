//! Whether a rule is in force for an organisation, and how: what its author says of it, what the
//! organisation says, and what the server is told, weighed.
//!
//! * A rule whose author calls it `experimental`, `deprecated` or `unsupported` is off until the
//!   organisation says otherwise. What it says is what holds, except that a server in dry run tells nobody.
//! * A rule that is off is not asked: correlations never see its events. A correlation that is off hears
//!   nothing and tells those above it nothing.
//! * A rule in dry run, and one whose level alerts nobody, feed correlations all the same.
//! * A rule that a correlation looks at does not alert by itself, unless the correlation says
//!   `generate`. Only correlations that are on hold rules back: to try one takes no alert away.
//! * What only scheduled rules need is not asked of each event.

use model::Level;
use rules::sigma::correlation::Target;
use rules::sigma::{Collection, Header};
use std::collections::{BTreeMap, HashMap};
use storage::catalog::detection_rules::{RuleSetting, RuleState};

/// What a match leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// An alert.
    Alert,
    /// It is counted.
    DryRun,
    /// It is counted, and correlations see it; it does not alert by itself.
    Feeds,
}

/// Who decided the state of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// Nobody said anything.
    Default,
    /// Its author: the rule is not finished, or given up.
    Status,
    /// The organisation.
    Setting,
    /// The server is in dry run.
    ServerDryRun,
}

impl Why {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Status => "status",
            Self::Setting => "setting",
            Self::ServerDryRun => "server-dry-run",
        }
    }
}

/// How a rule stands with one organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub state: RuleState,
    pub why: Why,
    /// A correlation that is on looks at it, and so it does not alert by itself.
    pub held_back: bool,
    /// It is asked of each event as it comes: it is not scheduled and speaks for itself, or something above
    /// it does.
    pub at_once: bool,
    /// The organisation's, else its own.
    pub level: Level,
    /// The organisation's word on who is told.
    pub team: Option<Box<str>>,
}

impl Standing {
    fn of(header: &Header, setting: Option<&RuleSetting>) -> Self {
        let (state, why) = match setting.and_then(|setting| setting.state) {
            Some(state) => (state, Why::Setting),
            None if on_by_default(header) => (RuleState::On, Why::Default),
            None => (RuleState::Off, Why::Status),
        };
        let level = setting.and_then(|setting| setting.level).unwrap_or(header.level);
        let team = setting.and_then(|setting| setting.team.as_deref()).map(Box::from);
        Self { state, why, held_back: false, at_once: false, level, team }
    }

    /// `None` = it is not in force.
    pub fn mode(&self) -> Option<Mode> {
        match (self.state, self.held_back) {
            (RuleState::Off, _) => None,
            (RuleState::DryRun | RuleState::On, true) => Some(Mode::Feeds),
            (RuleState::DryRun, false) => Some(Mode::DryRun),
            (RuleState::On, false) => Some(Mode::Alert),
        }
    }
}

/// Whether a rule is in force where nobody says otherwise.
pub fn on_by_default(header: &Header) -> bool {
    !matches!(&*header.status, "experimental" | "deprecated" | "unsupported")
}

/// How everything in a collection stands.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Standings {
    /// As the collection's rules.
    pub rules: Vec<Standing>,
    /// As the collection's correlations.
    pub correlations: Vec<Standing>,
}

impl Standings {
    pub fn of(collection: &Collection, settings: &BTreeMap<String, RuleSetting>, dry_run: bool) -> Self {
        let standing = |header: &Header| Standing::of(header, settings.get(&header.uid));
        let mut rules: Vec<Standing> = collection.rules.iter().map(|rule| standing(&rule.header)).collect();
        let mut correlations: Vec<Standing> = collection.correlations.iter().map(|one| standing(&one.header)).collect();
        // What correlations that are on look at, and whether one of them lets it alert.
        let mut fed: HashMap<Target, bool> = HashMap::new();
        let on = collection.correlations.iter().zip(&correlations).filter(|(_, one)| one.state == RuleState::On);
        for (correlation, _) in on {
            for input in &correlation.inputs {
                *fed.entry(input.target).or_default() |= correlation.generate;
            }
        }
        for (target, lets_alert) in fed {
            let standing = match target {
                Target::Rule(place) => rules.get_mut(place),
                Target::Correlation(place) => correlations.get_mut(place),
            };
            if let Some(standing) = standing {
                standing.held_back = !lets_alert;
            }
        }
        if dry_run {
            let on = rules.iter_mut().chain(&mut correlations).filter(|one| one.state == RuleState::On);
            for one in on {
                (one.state, one.why) = (RuleState::DryRun, Why::ServerDryRun);
            }
        }
        asked_at_once(collection, &mut rules, &mut correlations);
        Self { rules, correlations }
    }
}

/// Says of each whether it is asked at once.
fn asked_at_once(collection: &Collection, rules: &mut [Standing], correlations: &mut [Standing]) {
    let speaks = |header: &Header, standing: &Standing| {
        header.schedule.is_none() && matches!(standing.mode(), Some(Mode::Alert | Mode::DryRun))
    };
    for (rule, standing) in collection.rules.iter().zip(rules.iter_mut()) {
        standing.at_once = speaks(&rule.header, standing);
    }
    let all = collection.correlations.iter().zip(correlations.iter()).enumerate();
    let mut open: Vec<usize> =
        all.filter(|(_, (one, standing))| speaks(&one.header, standing)).map(|(place, _)| place).collect();
    while let Some(place) = open.pop() {
        let Some(standing) = correlations.get_mut(place).filter(|standing| !standing.at_once) else { continue };
        standing.at_once = true;
        for input in collection.correlations.get(place).into_iter().flat_map(|one| &one.inputs) {
            match input.target {
                Target::Correlation(lower) => open.push(lower),
                Target::Rule(rule) => rules.get_mut(rule).into_iter().for_each(|standing| standing.at_once = true),
            }
        }
    }
}
