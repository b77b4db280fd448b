//! Rules → the engine: names, nodes and atoms numbered, keys chosen, automata built.

use super::evaluate::Atom;
use super::keys::{self, Key, Place, Uses};
use super::search::{self, Search, Where};
use super::{Engine, FieldPlan, Node, RuleIndex, RulePlan, TextPlan, sources};
use crate::operators::Operator;
use crate::operators::text::Part;
use crate::sigma::LogSource;
use crate::{Field, Predicate};
use std::collections::HashMap;

pub(super) fn compile<'r>(rules: impl IntoIterator<Item = (&'r LogSource, &'r Predicate)>) -> Engine {
    let rules: Vec<(&LogSource, &Predicate)> = rules.into_iter().collect();
    let mut builder = Builder::default();
    let groups: Vec<Vec<Vec<Key<'_>>>> = rules.iter().map(|(_, predicate)| keys::groups(predicate)).collect();
    let mut uses = Uses::new();
    for key in groups.iter().flatten().flatten() {
        *uses.entry(key.clone()).or_default() += 1;
    }
    for (rule, ((source, predicate), groups)) in (0..).zip(rules.into_iter().zip(groups)) {
        let root = builder.node(predicate);
        let source = builder.engine.sources.number(source);
        builder.engine.rules.push(RulePlan { root, source });
        match keys::best(groups, &uses) {
            Some(group) => group.into_iter().for_each(|key| builder.post(key, rule, source)),
            None => builder.engine.always.push(rule),
        }
    }
    builder.finish()
}

/// Texts of one field on their way into a [`TextPlan`].
#[derive(Default)]
struct Texts {
    texts: search::Texts,
    /// Log sources of the rules that they serve.
    sources: sources::Set,
}

/// Equal for equal questions.
#[derive(PartialEq, Eq, Hash)]
enum Question<'r> {
    /// A pattern of texts, by far the most frequent.
    Text(Option<u32>, bool, &'r [Part]),
    Other(String),
}

#[derive(Default)]
struct Builder<'r> {
    engine: Engine,
    nodes: HashMap<Node, u32>,
    atoms: HashMap<Question<'r>, u32>,
    texts: HashMap<u32, Texts>,
    everywhere: Texts,
}

impl<'r> Builder<'r> {
    fn field(&mut self, name: &str) -> u32 {
        if let Some(number) = self.engine.names.get(name) {
            return number;
        }
        let number = self.engine.fields.len() as u32;
        self.engine.fields.push(FieldPlan::default());
        self.engine.names.insert(name, number);
        number
    }

    fn node(&mut self, predicate: &'r Predicate) -> u32 {
        let node = match predicate {
            Predicate::All(parts) => Node::All(parts.iter().map(|part| self.node(part)).collect()),
            Predicate::Any(parts) => Node::Any(parts.iter().map(|part| self.node(part)).collect()),
            Predicate::Not(part) => Node::Not(self.node(part)),
            Predicate::Present(field) => self.atom(Atom::Present(field.clone())),
            Predicate::Test(Field::Named(name), operator) => {
                let field = self.field(name);
                self.test(Some(field), operator)
            }
            Predicate::Test(field @ (Field::Message | Field::Severity | Field::TrapOid), operator) => {
                self.atom(Atom::Mutt(field.clone(), operator.clone()))
            }
            Predicate::AnyField(operator) => self.test(None, operator),
            Predicate::Exists(name) => {
                let field = self.field(name);
                self.atom(Atom::Exists(field))
            }
            Predicate::Null(name) => {
                let field = self.field(name);
                self.atom(Atom::Null(field))
            }
            Predicate::Related { field, relation, other, cased } => {
                let (field, other) = (self.field(field), self.field(other));
                self.atom(Atom::Related { field, relation: *relation, other, cased: *cased })
            }
        };
        if let Some(number) = self.nodes.get(&node) {
            return *number;
        }
        let number = self.engine.nodes.len() as u32;
        self.engine.nodes.push(node.clone());
        self.nodes.insert(node, number);
        number
    }

    fn test(&mut self, field: Option<u32>, operator: &'r Operator) -> Node {
        let question = match operator {
            Operator::Text(op) => Question::Text(field, op.cased(), op.compared()),
            other => Question::Other(Atom::test(field, other).identity()),
        };
        self.numbered(question, || Atom::test(field, operator))
    }

    fn atom(&mut self, atom: Atom) -> Node {
        self.numbered(Question::Other(atom.identity()), || atom)
    }

    /// Equal questions are one atom.
    fn numbered(&mut self, question: Question<'r>, atom: impl FnOnce() -> Atom) -> Node {
        let atoms = &mut self.engine.atoms;
        let number = *self.atoms.entry(question).or_insert_with(|| {
            atoms.push(atom());
            atoms.len() as u32 - 1
        });
        Node::Atom(number)
    }

    fn post(&mut self, key: Key<'_>, rule: RuleIndex, source: u32) {
        let (name, text, place) = match key {
            Key::Present(name) => return self.ask_always(Some(name), rule),
            Key::Part(name, text, Place::Anywhere) if text.len() < search::ANYWHERE_BYTES_MIN => {
                return self.ask_always(name, rule);
            }
            Key::Whole(name, text) => (name, text, Where::Whole),
            Key::Part(name, text, Place::Start) => (name, text, Where::Start),
            Key::Part(name, text, Place::End) => (name, text, Where::End),
            Key::Part(name, text, Place::Anywhere) => (name, text, Where::Anywhere),
        };
        let texts = match name {
            Some(name) => {
                let field = self.field(name);
                self.texts.entry(field).or_default()
            }
            None => &mut self.everywhere,
        };
        texts.sources.add(source);
        push_once(texts.texts.entry((place, text.to_owned())).or_default(), rule);
    }

    /// Makes the rule a candidate wherever the field (any field) has a value.
    fn ask_always(&mut self, name: Option<&str>, rule: RuleIndex) {
        let rules = match name {
            Some(name) => {
                let field = self.field(name);
                &mut self.engine.fields[field as usize].present
            }
            None => &mut self.engine.always,
        };
        push_once(rules, rule);
    }

    fn finish(self) -> Engine {
        let mut engine = self.engine;
        for (field, texts) in self.texts {
            engine.fields[field as usize].texts = texts.finish();
        }
        engine.everywhere = self.everywhere.finish();
        engine
    }
}

fn push_once(rules: &mut Vec<RuleIndex>, rule: RuleIndex) {
    if rules.last() != Some(&rule) {
        rules.push(rule);
    }
}

impl Texts {
    fn finish(self) -> TextPlan {
        TextPlan { search: Search::build(self.texts), sources: self.sources }
    }
}
