//! Conditions: `selection and not 1 of filter_main_*` → a predicate over the search identifiers.
//!
//! Binds as the specification says: `not`, then `and`, then `or`. `1 of`, `any of`, `all of` and
//! `N of` take a pattern of names with `*`, or `them`: all names that do not begin with `_`.

use super::Fault;
use crate::{Predicate, suggest};

/// Deepest nesting of a condition.
const DEPTH_MAX: usize = 64;
/// Largest number of words and signs of a condition.
const TOKENS_MAX: usize = 4_096;
/// Most ways in which `N of` may hold.
const COMBINATIONS_MAX: usize = 512;

/// Search identifiers by name, in the order of the document.
pub(crate) type Searches = [(String, Predicate)];

/// The predicate of a condition.
pub(crate) fn parse(text: &str, searches: &Searches, line: u64) -> Result<Predicate, Fault> {
    let tokens = tokens(text, line)?;
    let mut parser = Parser { tokens: &tokens, at: 0, searches, line, depth: 0 };
    let predicate = parser.any()?;
    match parser.next() {
        None => Ok(predicate),
        Some(Token::Close) => Err(parser.fault("a `)` has no `(`")),
        Some(token) => Err(parser.fault(format!("`{}` is not expected here: `and`, `or` or the end is", token.text()))),
    }
}

/// The names of searches that a condition speaks of.
pub(crate) fn mentions(text: &str, name: &str) -> bool {
    let words = text.split(|c: char| c.is_whitespace() || matches!(c, '(' | ')'));
    words.filter(|word| !word.is_empty()).any(|word| {
        (word.eq_ignore_ascii_case("them") && !name.starts_with('_'))
            || word == name
            || (word.contains('*') && fits(word, name))
    })
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    Word(String),
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Open => "(",
            Self::Close => ")",
            Self::Word(word) => word,
        }
    }
    fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(text) if text.eq_ignore_ascii_case(word))
    }
}

fn tokens(text: &str, line: u64) -> Result<Vec<Token>, Fault> {
    if let Some((_, aggregation)) = text.split_once('|') {
        let what = aggregation.split_whitespace().next().unwrap_or_default();
        return Err(Fault::new(line, format!("aggregations in a condition (`| {what} …`) are not part of Sigma 2"))
            .at("detection.condition")
            .suggest("write a correlation rule (type event_count, value_count, temporal …) over this rule"));
    }
    let mut tokens = Vec::new();
    let mut word = String::new();
    for c in text.chars().chain([' ']) {
        let sign = match c {
            '(' => Some(Token::Open),
            ')' => Some(Token::Close),
            c if c.is_whitespace() => None,
            c => {
                word.push(c);
                continue;
            }
        };
        if !word.is_empty() {
            tokens.push(Token::Word(std::mem::take(&mut word)));
        }
        tokens.extend(sign);
        if tokens.len() > TOKENS_MAX {
            return Err(
                Fault::new(line, format!("the condition has more than {TOKENS_MAX} words")).at("detection.condition")
            );
        }
    }
    Ok(tokens)
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    searches: &'a Searches,
    line: u64,
    depth: usize,
}

impl Parser<'_> {
    fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::new(self.line, message).at("detection.condition")
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn accepts(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.is(word));
        self.at += usize::from(found);
        found
    }

    fn any(&mut self) -> Result<Predicate, Fault> {
        let mut parts = vec![self.all()?];
        while self.accepts("or") {
            parts.push(self.all()?);
        }
        Ok(join(parts, Predicate::Any))
    }

    fn all(&mut self) -> Result<Predicate, Fault> {
        let mut parts = vec![self.not()?];
        while self.accepts("and") {
            parts.push(self.not()?);
        }
        Ok(join(parts, Predicate::All))
    }

    fn not(&mut self) -> Result<Predicate, Fault> {
        let mut negated = false;
        while self.accepts("not") {
            negated = !negated;
        }
        let one = self.one()?;
        Ok(if negated { Predicate::Not(Box::new(one)) } else { one })
    }

    fn one(&mut self) -> Result<Predicate, Fault> {
        match self.next() {
            None => Err(self.fault("the condition ends where a search identifier is expected")),
            Some(Token::Close) => Err(self.fault("a `)` stands where a search identifier is expected")),
            Some(Token::Open) => {
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    return Err(self.fault(format!("parentheses are nested more than {DEPTH_MAX} deep")));
                }
                let inner = self.any()?;
                self.depth -= 1;
                match self.next() {
                    Some(Token::Close) => Ok(inner),
                    Some(_) | None => Err(self.fault("a `(` is not closed")),
                }
            }
            Some(Token::Word(word)) => {
                if self.peek().is_some_and(|token| token.is("of")) {
                    self.at += 1;
                    return self.quantified(&word);
                }
                self.named(&word)
            }
        }
    }

    fn named(&self, name: &str) -> Result<Predicate, Fault> {
        if let Some((_, search)) = self.searches.iter().find(|(search, _)| search == name) {
            return Ok(search.clone());
        }
        if name.eq_ignore_ascii_case("near") {
            return Err(self
                .fault("`near` is not part of Sigma 2")
                .suggest("write a correlation rule of type temporal"));
        }
        if name.contains('*') || name.eq_ignore_ascii_case("them") {
            let fault = self.fault(format!("`{name}` names several search identifiers"));
            return Err(fault.suggest(format!("write `1 of {name}` or `all of {name}`")));
        }
        Err(self.unknown(name))
    }

    fn unknown(&self, name: &str) -> Fault {
        let names: Vec<&str> = self.searches.iter().map(|(name, _)| &**name).collect();
        let fault = self.fault(format!("the detection has no search identifier `{name}`"));
        match suggest::closest(name, &names) {
            Some(closest) => fault.suggest(format!("did you mean `{closest}`?")),
            None => fault,
        }
    }

    fn quantified(&mut self, quantifier: &str) -> Result<Predicate, Fault> {
        let Some(Token::Word(pattern)) = self.next() else {
            return Err(self.fault(format!("`{quantifier} of` needs `them` or a name with `*` behind it")));
        };
        let chosen: Vec<Predicate> = if pattern.eq_ignore_ascii_case("them") {
            self.searches.iter().filter(|(name, _)| !name.starts_with('_')).map(|(_, search)| search.clone()).collect()
        } else {
            self.searches.iter().filter(|(name, _)| fits(&pattern, name)).map(|(_, search)| search.clone()).collect()
        };
        if chosen.is_empty() {
            return Err(self.unknown(&pattern));
        }
        if quantifier.eq_ignore_ascii_case("all") {
            return Ok(join(chosen, Predicate::All));
        }
        if quantifier.eq_ignore_ascii_case("any") {
            return Ok(join(chosen, Predicate::Any));
        }
        match quantifier.parse::<usize>() {
            Ok(1) => Ok(join(chosen, Predicate::Any)),
            Ok(0) => Err(self.fault("`0 of` always holds").suggest(format!("write `not 1 of {pattern}`"))),
            Ok(count) if count > chosen.len() => {
                Err(self.fault(format!("`{count} of {pattern}` can never hold: there are {}", chosen.len())))
            }
            Ok(count) => {
                let ways = combinations(&chosen, count).ok_or_else(|| {
                    self.fault(format!("`{count} of {pattern}` can hold in more than {COMBINATIONS_MAX} ways"))
                })?;
                Ok(join(ways.into_iter().map(|way| join(way, Predicate::All)).collect(), Predicate::Any))
            }
            Err(_) => Err(self
                .fault(format!("`{quantifier} of` is no quantifier"))
                .suggest("write `1 of`, `any of`, `all of` or a number")),
        }
    }
}

/// A single part stands for itself.
fn join(mut parts: Vec<Predicate>, with: fn(Vec<Predicate>) -> Predicate) -> Predicate {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            with(parts)
        }
        None => with(parts),
    }
}

/// All choices of `count` out of the parts; `None` if there are too many.
fn combinations(parts: &[Predicate], count: usize) -> Option<Vec<Vec<Predicate>>> {
    let mut ways: Vec<(usize, Vec<Predicate>)> = vec![(0, Vec::new())];
    for _ in 0..count {
        let mut longer = Vec::new();
        for (from, way) in &ways {
            for (at, part) in parts.iter().enumerate().skip(*from) {
                let mut way = way.clone();
                way.push(part.clone());
                longer.push((at + 1, way));
                if longer.len() > COMBINATIONS_MAX {
                    return None;
                }
            }
        }
        ways = longer;
    }
    Some(ways.into_iter().map(|(_, way)| way).collect())
}

/// Whether a name fits a pattern with `*`.
fn fits(pattern: &str, name: &str) -> bool {
    use crate::operators::text::{Part, compile};
    let literals = pattern.split('*').map(|text| Part::Literal(text.to_owned()));
    let mut parts = Vec::new();
    for (index, literal) in literals.enumerate() {
        if index > 0 {
            parts.push(Part::Many);
        }
        parts.push(literal);
    }
    compile(parts, true).fits(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn searches() -> Vec<(String, Predicate)> {
        ["selection", "sel_a", "sel_b", "sel_c", "filter", "_hidden"]
            .into_iter()
            .map(|name| (name.to_owned(), Predicate::Exists(name.into())))
            .collect()
    }

    fn shown(predicate: &Predicate) -> String {
        let joined = |parts: &[Predicate], with| parts.iter().map(shown).collect::<Vec<_>>().join(with);
        match predicate {
            Predicate::All(parts) => format!("({})", joined(parts, " & ")),
            Predicate::Any(parts) => format!("({})", joined(parts, " | ")),
            Predicate::Not(part) => format!("!{}", shown(part)),
            Predicate::Exists(name) => name.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn conditions_bind_as_the_specification_says() {
        for (text, expected) in [
            ("selection", "selection"),
            ("selection and not filter", "(selection & !filter)"),
            ("sel_a or sel_b and sel_c", "(sel_a | (sel_b & sel_c))"),
            ("(sel_a or sel_b) and sel_c", "((sel_a | sel_b) & sel_c)"),
            ("not not selection", "selection"),
            ("NOT selection AND filter", "(!selection & filter)"),
            ("1 of sel_*", "(sel_a | sel_b | sel_c)"),
            ("all of sel_* and not 1 of filter*", "((sel_a & sel_b & sel_c) & !filter)"),
            ("2 of sel_*", "((sel_a & sel_b) | (sel_a & sel_c) | (sel_b & sel_c))"),
            ("1 of them", "(selection | sel_a | sel_b | sel_c | filter)"),
            ("any of *_b", "sel_b"),
            ("1 of selection", "selection"),
            ("_hidden", "_hidden"),
            ("selection and(sel_a or(sel_b))", "(selection & (sel_a | sel_b))"),
        ] {
            assert_eq!(shown(&parse(text, &searches(), 1).expect(text)), expected, "{text}");
        }
    }

    #[test]
    fn a_condition_that_means_nothing_says_why() {
        let deep = "(".repeat(100);
        for (text, said) in [
            ("", "ends where"),
            ("selection and", "ends where"),
            ("selction", "did you mean `selection`"),
            ("selection filter", "`filter` is not expected"),
            ("(selection", "not closed"),
            ("selection)", "has no `(`"),
            ("1 of nothing*", "no search identifier `nothing*`"),
            ("sel_*", "1 of sel_*"),
            ("selection | count() by x > 5", "correlation"),
            ("selection near filter", "not expected"),
            ("0 of sel_*", "not 1 of"),
            ("4 of sel_*", "can never hold"),
            ("few of sel_*", "quantifier"),
            (&deep, "nested"),
        ] {
            let fault = parse(text, &searches(), 1).expect_err(text);
            let all = format!("{} {}", fault.message, fault.suggestion.unwrap_or_default());
            assert!(all.contains(said), "{text}: {all}");
        }
    }
}
