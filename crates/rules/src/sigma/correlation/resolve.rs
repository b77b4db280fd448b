//! References of correlations → indices, after all documents have been read.

use super::condition::Names;
use super::read::{DraftCondition, Reference, hint};
use super::{Bound, CHAIN_MAX, Condition, Correlation, Draft, Expr, Input, Kind, Op, TERMS_MAX, Target, WAYS_MAX};
use crate::sigma::{Fault, Header};
use std::cell::Cell;
use std::collections::HashMap;

/// What is known about a document that was refused.
#[derive(Debug, Clone)]
pub(crate) struct Gone {
    pub header: Header,
}

/// What a name stands for among everything that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Rule(usize),
    Draft(usize),
    Filter,
    Gone,
    Several,
}

/// A draft that was refused, by its index, and why.
pub(crate) type Refused = Vec<(Draft, Fault)>;

/// The correlations that can be worked, those that cannot, and warnings about the former.
pub(crate) fn resolve<'h>(
    rules: impl Iterator<Item = &'h Header>,
    filters: impl Iterator<Item = &'h Header>,
    gone: &[Gone],
    drafts: Vec<Draft>,
) -> (Vec<Correlation>, Refused, Vec<(Header, Fault)>) {
    let mut names = Directory::default();
    for (index, header) in rules.enumerate() {
        names.add(header, Found::Rule(index));
    }
    for (index, draft) in drafts.iter().enumerate() {
        names.add(&draft.header, Found::Draft(index));
    }
    filters.for_each(|header| names.add(header, Found::Filter));
    // What was refused is known only by names that nothing else has.
    for gone in gone {
        for name in Directory::names(&gone.header) {
            names.exact.entry(name.to_owned()).or_insert(Found::Gone);
        }
        names.titles.entry(gone.header.title.clone()).or_insert(Found::Gone);
    }

    let mut warnings = Vec::new();
    let mut faults: Vec<Option<Fault>> = Vec::with_capacity(drafts.len());
    let mut resolved = Vec::with_capacity(drafts.len());
    for draft in &drafts {
        let mut own = Vec::new();
        match one(draft, &names, &mut own) {
            Ok(correlation) => {
                warnings.push(own);
                faults.push(None);
                resolved.push(Some(correlation));
            }
            Err(fault) => {
                warnings.push(Vec::new());
                faults.push(Some(fault));
                resolved.push(None);
            }
        }
    }
    refuse_dependents(&drafts, &resolved, &mut faults);

    // Those that stay move together; references follow.
    let mut place = vec![0; drafts.len()];
    let mut kept = 0;
    for (index, fault) in faults.iter().enumerate() {
        place[index] = kept;
        kept += usize::from(fault.is_none());
    }
    let (mut correlations, mut refused, mut told) = (Vec::with_capacity(kept), Vec::new(), Vec::new());
    let all = drafts.into_iter().zip(resolved).zip(faults).zip(warnings);
    for (((draft, correlation), fault), warnings) in all {
        match (correlation, fault) {
            (Some(mut correlation), None) => {
                for input in &mut correlation.inputs {
                    if let Target::Correlation(index) = &mut input.target {
                        *index = place[*index];
                    }
                }
                told.extend(warnings.into_iter().map(|warning| (correlation.header.clone(), warning)));
                correlations.push(correlation);
            }
            (_, Some(fault)) => refused.push((draft, fault)),
            (None, None) => {}
        }
    }
    (correlations, refused, told)
}

#[derive(Default)]
struct Directory {
    /// Ids and names.
    exact: HashMap<String, Found>,
    titles: HashMap<String, Found>,
    /// Names that were not found.
    misses: Cell<usize>,
}

/// So many names that are not found are compared with all others for a suggestion.
const HINTS_MAX: usize = 64;

impl Directory {
    fn names(header: &Header) -> impl Iterator<Item = &str> {
        header.id.iter().chain(&header.name).map(String::as_str)
    }

    fn add(&mut self, header: &Header, found: Found) {
        for name in Self::names(header) {
            // An id of one may be the name of another.
            self.exact.entry(name.to_owned()).and_modify(|other| *other = several(*other, found)).or_insert(found);
        }
        self.titles.entry(header.title.clone()).and_modify(|other| *other = several(*other, found)).or_insert(found);
    }

    fn find(&self, reference: &Reference, at: &str) -> Result<Target, Fault> {
        let name = &reference.name;
        let fault = |message: String| Fault::new(reference.line, message).at(at.to_owned());
        match self.exact.get(name).or_else(|| self.titles.get(name)) {
            Some(Found::Rule(index)) => Ok(Target::Rule(*index)),
            Some(Found::Draft(index)) => Ok(Target::Correlation(*index)),
            Some(Found::Filter) => Err(fault(format!("`{name}` is a filter, and filters match nothing by themselves"))),
            Some(Found::Gone) => Err(fault(format!("the rule `{name}` that it refers to was refused"))),
            Some(Found::Several) => {
                Err(fault(format!("`{name}` is what several rules are called")).suggest("refer to the rule by its id"))
            }
            None => {
                let fault = fault(format!("there is no rule `{name}`"));
                self.misses.set(self.misses.get() + 1);
                if self.misses.get() > HINTS_MAX {
                    return Err(fault);
                }
                let mut known: Vec<&str> = self.exact.keys().chain(self.titles.keys()).map(String::as_str).collect();
                known.sort_unstable();
                Err(hint(fault, name, &known))
            }
        }
    }
}

fn several(one: Found, other: Found) -> Found {
    if one == other { one } else { Found::Several }
}

/// Looks its references up; targets among correlations are still indices of drafts.
fn one(draft: &Draft, names: &Directory, warnings: &mut Vec<Fault>) -> Result<Correlation, Fault> {
    let mut inputs: Vec<Input> = Vec::with_capacity(draft.rules.len());
    for reference in &draft.rules {
        let target = names.find(reference, "correlation.rules")?;
        if let Some(other) = inputs.iter().find(|input| input.target == target) {
            let message = format!("`{}` and `{}` are one rule", other.name, reference.name);
            let fault = Fault::new(reference.line, message).at("correlation.rules");
            if draft.kind == Kind::TemporalOrdered {
                return Err(fault.suggest("correlate over an `event_count` of it to see it several times"));
            }
            warnings.push(fault);
            continue;
        }
        let (group_fields, value_fields) = (Vec::new(), Vec::new());
        inputs.push(Input { name: reference.name.clone(), target, group_fields, value_fields, aliases: Vec::new() });
    }
    for alias in &draft.aliases {
        let at = format!("correlation.aliases.{}", alias.name);
        let mut covered = vec![false; inputs.len()];
        for (reference, field) in &alias.fields {
            let Some(input) = input(&inputs, reference, names, &at)? else {
                warnings.push(Fault::new(reference.line, unlisted(reference)).at(&*at));
                continue;
            };
            covered[input] = true;
            inputs[input].aliases.push((alias.name.clone(), field.clone()));
        }
        if let Some(missing) = covered.iter().position(|covered| !covered) {
            let (name, rule) = (&alias.name, &inputs[missing].name);
            let message = format!("no field is named for `{rule}`, whose field `{name}` is used as it is");
            warnings.push(Fault::new(alias.line, message).at(at));
        }
    }
    for input in &mut inputs {
        input.group_fields = draft.group_by.iter().map(|name| input.field(name).to_owned()).collect();
        input.value_fields = draft.value_fields.iter().map(|name| input.field(name).to_owned()).collect();
    }
    let condition = match &draft.condition {
        DraftCondition::Compare(bounds) => Condition::Compare(bounds.clone()),
        DraftCondition::All => Condition::Compare(vec![Bound { op: Op::Gte, value: inputs.len() as f64 }]),
        DraftCondition::Rules(written) => {
            let expr = expression(written, &inputs, names, draft.condition_line)?;
            judge(&expr, draft, &inputs)?;
            Condition::Rules(expr)
        }
    };
    Ok(Correlation {
        header: draft.header.clone(),
        kind: draft.kind,
        inputs,
        group_by: draft.group_by.clone(),
        value_fields: draft.value_fields.clone(),
        percentile: draft.percentile,
        timespan: draft.timespan.clone(),
        condition,
        generate: draft.generate,
    })
}

/// The input that a reference means, by the same word or by another word for the same rule; none
/// where it means a rule that is not listed.
fn input(inputs: &[Input], reference: &Reference, names: &Directory, at: &str) -> Result<Option<usize>, Fault> {
    if let Some(index) = inputs.iter().position(|input| input.name == reference.name) {
        return Ok(Some(index));
    }
    let target = names.find(reference, at).map_err(|fault| {
        let words: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        if fault.suggestion.is_some() { fault } else { hint(fault, &reference.name, &words) }
    })?;
    Ok(inputs.iter().position(|input| input.target == target))
}

fn unlisted(reference: &Reference) -> String {
    format!("`{}` is not among the rules of this correlation", reference.name)
}

fn expression(written: &Names, inputs: &[Input], names: &Directory, line: u64) -> Result<Expr, Fault> {
    let all = |parts: &[Names]| -> Result<Vec<Expr>, Fault> {
        parts.iter().map(|part| expression(part, inputs, names, line)).collect()
    };
    Ok(match written {
        Names::Name(name) => {
            let reference = Reference { name: name.clone(), line };
            let at = "correlation.condition";
            let input = input(inputs, &reference, names, at)?;
            Expr::Input(input.ok_or_else(|| Fault::new(line, unlisted(&reference)).at(at))?)
        }
        Names::All(parts) => Expr::All(all(parts)?),
        Names::Any(parts) => Expr::Any(all(parts)?),
        Names::Not(part) => Expr::Not(Box::new(expression(part, inputs, names, line)?)),
    })
}

/// Refuses expressions that leave an input out, can never hold, or are too large.
fn judge(expr: &Expr, draft: &Draft, inputs: &[Input]) -> Result<(), Fault> {
    let fault = |message: String| Fault::new(draft.condition_line, message).at("correlation.condition");
    let mut used = 0;
    mark(expr, &mut used);
    if let Some(input) = inputs.iter().enumerate().find(|(index, _)| used & (1 << index) == 0) {
        return Err(fault(format!("the condition does not speak of `{}`", input.1.name))
            .suggest("name every rule of `rules` in it, or leave the rule out"));
    }
    let Some(terms) = expr.terms() else {
        return Err(fault(format!("the condition has more than {TERMS_MAX} ways to hold"))
            .suggest("split it into several correlations"));
    };
    if terms.is_empty() {
        return Err(fault("this condition can never hold".to_owned()));
    }
    // A window has a member, which some rule matched: it takes a rule to occur that is not forbidden.
    let every = if inputs.len() == 64 { u64::MAX } else { (1 << inputs.len()) - 1 };
    if terms.iter().all(|term| term.present == 0 && term.absent == every) {
        return Err(fault("only groups in which nothing happens would match, and nobody can see those".to_owned())
            .suggest("add a rule that does occur: `heartbeat and not answer`"));
    }
    Ok(())
}

fn mark(expr: &Expr, used: &mut u64) {
    match expr {
        Expr::Input(input) => *used |= 1 << input,
        Expr::All(parts) | Expr::Any(parts) => parts.iter().for_each(|part| mark(part, used)),
        Expr::Not(part) => mark(part, used),
    }
}

/// Refuses what depends on something refused, goes in circles, or is too long a chain.
fn refuse_dependents(drafts: &[Draft], resolved: &[Option<Correlation>], faults: &mut [Option<Fault>]) {
    let mut above: Vec<Vec<(usize, u64)>> = vec![Vec::new(); drafts.len()];
    let mut waits = vec![0; drafts.len()];
    for (index, correlation) in resolved.iter().enumerate() {
        for input in correlation.iter().flat_map(|correlation| &correlation.inputs) {
            if let Target::Correlation(lower) = input.target {
                let reference = drafts[index].rules.iter().find(|reference| reference.name == input.name);
                above[lower].push((index, reference.map_or(drafts[index].header.place.line, |found| found.line)));
                waits[index] += 1;
            }
        }
    }
    // From the bottom up: what stands on settled correlations only is settled.
    let (mut height, mut ways) = (vec![1; drafts.len()], vec![1_usize; drafts.len()]);
    let mut ready: Vec<usize> = (0..drafts.len()).filter(|index| waits[*index] == 0).collect();
    let mut settled = 0;
    while let Some(lower) = ready.get(settled).copied() {
        settled += 1;
        for (upper, line) in above[lower].iter().copied() {
            let fault = |message: String| Some(Fault::new(line, message).at("correlation.rules"));
            height[upper] = height[upper].max(height[lower] + 1);
            ways[upper] = ways[upper].saturating_add(ways[lower]);
            if faults[upper].is_none() {
                if faults[lower].is_some() {
                    let title = &drafts[lower].header.title;
                    faults[upper] = fault(format!("the correlation {title:?} that it refers to was refused"));
                } else if height[upper] > CHAIN_MAX {
                    faults[upper] = fault(format!("more than {CHAIN_MAX} correlations stand above each other"));
                } else if ways[upper] > WAYS_MAX {
                    faults[upper] = fault(format!("more than {WAYS_MAX} ways lead through correlations to this one"));
                }
            }
            waits[upper] -= 1;
            if waits[upper] == 0 {
                ready.push(upper);
            }
        }
    }
    for index in (0..drafts.len()).filter(|index| waits[*index] > 0) {
        let line = drafts[index].rules.first().map_or(drafts[index].header.place.line, |rule| rule.line);
        let fault = || Fault::new(line, "its rules lead in a circle").at("correlation.rules");
        faults[index].get_or_insert_with(fault);
    }
}
