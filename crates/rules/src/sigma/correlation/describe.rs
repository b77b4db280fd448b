//! Correlations in words.

use super::{Bound, Condition, Correlation, Expr, Kind, Op};

impl Correlation {
    /// When it fires, for readers: `5 or more events of failed_login within 5m, by SourceIp`.
    pub fn describe(&self) -> String {
        let names: Vec<&str> = self.inputs.iter().map(|input| input.name.as_str()).collect();
        let any = list(&names, "or");
        let fields: Vec<&str> = self.value_fields.iter().map(String::as_str).collect();
        let field = fields.first().copied().unwrap_or_default();
        let measured = |what: String, bounds: &[Bound]| {
            let bounds: Vec<String> = bounds.iter().map(|bound| is(*bound)).collect();
            format!("{what} of {field} in events of {any} is {}", bounds.join(" and "))
        };
        let what = match (&self.condition, self.kind) {
            (Condition::Rules(expr), _) => written(expr, &names),
            (Condition::Compare(bounds), Kind::EventCount) => format!("{} events of {any}", counts(bounds)),
            (Condition::Compare(bounds), Kind::ValueCount) => {
                let what = if fields.len() == 1 { "different values of" } else { "different combinations of" };
                format!("{} {what} {} in events of {any}", counts(bounds), list(&fields, "and"))
            }
            (Condition::Compare(bounds), Kind::Temporal | Kind::TemporalOrdered) => match bounds[..] {
                [Bound { op: Op::Gte, value }] if value == names.len() as f64 => {
                    format!("events of {}", list(&names, "and"))
                }
                _ => format!("events of {} of {}", counts(bounds), list(&names, "and")),
            },
            (Condition::Compare(bounds), Kind::ValueSum) => measured("the sum".to_owned(), bounds),
            (Condition::Compare(bounds), Kind::ValueAvg) => measured("the average".to_owned(), bounds),
            (Condition::Compare(bounds), Kind::ValueMedian) => measured("the median".to_owned(), bounds),
            (Condition::Compare(bounds), Kind::ValuePercentile) => {
                measured(format!("the percentile {}", self.percentile), bounds)
            }
        };
        let order = if self.kind == Kind::TemporalOrdered { ", in this order," } else { "" };
        let groups: Vec<&str> = self.group_by.iter().map(String::as_str).collect();
        let by = if groups.is_empty() { String::new() } else { format!(", by {}", list(&groups, "and")) };
        let end = if self.closing() { "; known when that time is over" } else { "" };
        format!("{what}{order} within {}{by}{end}", self.timespan.text)
    }
}

fn list(words: &[&str], join: &str) -> String {
    const WORDS_MAX: usize = 8;
    if words.len() > WORDS_MAX {
        let more = words.len() - WORDS_MAX;
        return format!("{} {join} {more} more", words[..WORDS_MAX].join(", "));
    }
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} {join} {last}", first.join(", ")),
    }
}

fn counts(bounds: &[Bound]) -> String {
    let one = |bound: &Bound| match bound.op {
        Op::Lt => format!("fewer than {}", bound.value),
        Op::Lte => format!("at most {}", bound.value),
        Op::Gt => format!("more than {}", bound.value),
        Op::Gte => format!("{} or more", bound.value),
        Op::Eq => format!("exactly {}", bound.value),
        Op::Neq => format!("not {}", bound.value),
    };
    bounds.iter().map(one).collect::<Vec<_>>().join(" and ")
}

fn is(bound: Bound) -> String {
    let words = match bound.op {
        Op::Lt => "less than",
        Op::Lte => "at most",
        Op::Gt => "more than",
        Op::Gte => "at least",
        Op::Eq => "exactly",
        Op::Neq => "anything but",
    };
    format!("{words} {}", bound.value)
}

fn written(expr: &Expr, names: &[&str]) -> String {
    let part = |part: &Expr| match part {
        Expr::Input(_) | Expr::Not(_) => written(part, names),
        Expr::All(_) | Expr::Any(_) => format!("({})", written(part, names)),
    };
    let all = |parts: &[Expr], join: &str| parts.iter().map(part).collect::<Vec<_>>().join(join);
    match expr {
        Expr::Input(input) => names.get(*input).copied().unwrap_or_default().to_owned(),
        Expr::All(parts) => all(parts, " and "),
        Expr::Any(parts) => all(parts, " or "),
        Expr::Not(inner) => format!("no {}", part(inner)),
    }
}
