//! Conditions as readable text: what fits stays on one line, the rest is indented by two spaces.

/// Longest condition that stays on one line, in characters.
const LINE_MAX: usize = 100;
/// Most conditions that one chain of `AND` or `OR` joins. SQLite counts every link of a chain as a
/// level of nesting (at most 1,000), so longer chains are written in groups.
const CHAIN_MAX: usize = 16;

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Clause {
    /// A test that needs no brackets beside `AND`, `OR` and `NOT`.
    Text(String),
    All(Vec<Clause>),
    Any(Vec<Clause>),
    Not(Box<Clause>),
    /// A condition inside something: `open`, the condition, `close`.
    Within {
        open: String,
        part: Box<Clause>,
        close: String,
    },
}

impl Clause {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub fn within(open: impl Into<String>, part: Clause, close: impl Into<String>) -> Self {
        Self::Within { open: open.into(), part: Box::new(part), close: close.into() }
    }

    /// What never holds.
    pub fn never() -> Self {
        Self::text("0")
    }
}

pub(super) fn render(clause: &Clause) -> String {
    let mut out = String::new();
    write(clause, 0, true, &mut out);
    out
}

/// Appends the clause at this indentation; `top`: it stands alone, so a chain needs no brackets.
fn write(clause: &Clause, indent: usize, top: bool, out: &mut String) {
    match clause {
        Clause::Text(text) => out.push_str(text),
        Clause::All(parts) => chain(parts, "AND", "1", indent, top, out),
        Clause::Any(parts) => chain(parts, "OR", "0", indent, top, out),
        Clause::Not(part) => match only(part) {
            Clause::All(_) | Clause::Any(_) | Clause::Within { .. } => {
                out.push_str("NOT ");
                write(part, indent, false, out);
            }
            Clause::Text(_) | Clause::Not(_) => {
                out.push_str("NOT (");
                write(part, indent, true, out);
                out.push(')');
            }
        },
        Clause::Within { open, part, close } => {
            if fits(clause, indent) {
                out.push_str(open);
                write(part, indent, true, out);
            } else {
                out.push_str(open.trim_end());
                line(indent + 2, out);
                write(part, indent + 2, true, out);
                line(indent, out);
            }
            out.push_str(close);
        }
    }
}

/// The condition itself where it is alone in a chain.
fn only(clause: &Clause) -> &Clause {
    match clause {
        Clause::All(parts) | Clause::Any(parts) => match &**parts {
            [one] => only(one),
            _ => clause,
        },
        Clause::Text(_) | Clause::Not(_) | Clause::Within { .. } => clause,
    }
}

fn chain(parts: &[Clause], word: &str, none: &str, indent: usize, top: bool, out: &mut String) {
    match parts {
        [] => return out.push_str(none),
        [one] => return write(one, indent, top, out),
        _ => {}
    }
    if parts.len() > CHAIN_MAX {
        let groups: Vec<Clause> = parts
            .chunks(parts.len().div_ceil(CHAIN_MAX).max(CHAIN_MAX))
            .map(|group| if word == "AND" { Clause::All(group.to_vec()) } else { Clause::Any(group.to_vec()) })
            .collect();
        return chain(&groups, word, none, indent, top, out);
    }
    let short = parts.iter().map(|part| width(part) + word.len() + 2).sum::<usize>() + indent <= LINE_MAX;
    let inner = if top || short { indent } else { indent + 2 };
    if !top {
        out.push('(');
        if !short {
            line(inner, out);
        }
    }
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            if short {
                out.push(' ');
            } else {
                line(inner, out);
            }
            out.push_str(word);
            out.push(' ');
        }
        write(part, inner, false, out);
    }
    if !top {
        if !short {
            line(indent, out);
        }
        out.push(')');
    }
}

fn fits(clause: &Clause, indent: usize) -> bool {
    indent + width(clause) <= LINE_MAX
}

/// About how many characters it has on one line.
fn width(clause: &Clause) -> usize {
    match clause {
        Clause::Text(text) => text.len(),
        Clause::All(parts) | Clause::Any(parts) => parts.iter().map(|part| width(part) + 5).sum::<usize>() + 2,
        Clause::Not(part) => width(part) + 6,
        Clause::Within { open, part, close } => open.len() + width(part) + close.len(),
    }
}

fn line(indent: usize, out: &mut String) {
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', indent));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_bracketed_inside_others_and_cut_into_groups() {
        let text = |text: &str| Clause::text(text);
        let all = Clause::All(vec![
            text("a"),
            Clause::Any(vec![text("b"), text("c")]),
            Clause::Not(Box::new(Clause::Any(vec![text("d"), text("e")]))),
            Clause::Not(Box::new(text("f = 1"))),
            Clause::All(vec![]),
            Clause::Any(vec![]),
        ]);
        assert_eq!(render(&all), "a AND (b OR c) AND NOT (d OR e) AND NOT (f = 1) AND 1 AND 0");
        let wide = Clause::Any((0..1000).map(|n| text(&format!("n = {n}"))).collect());
        let sql = render(&wide);
        let (mut depth, mut links, mut links_max) = (0usize, vec![0usize], 0);
        for word in sql.replace('(', " ( ").replace(')', " ) ").split_whitespace() {
            match word {
                "(" => links.push(0),
                ")" => drop(links.pop()),
                "OR" => *links.last_mut().unwrap() += 1,
                _ => {}
            }
            depth = depth.max(links.len());
            links_max = links_max.max(links.iter().sum());
        }
        assert!(depth <= 4 && links_max < 60, "{depth} {links_max}");
        assert_eq!(sql.matches("n = ").count(), 1000);
    }

    #[test]
    fn what_is_long_is_indented() {
        let long = "x".repeat(60);
        let clause = Clause::within(
            "EXISTS (SELECT 1 WHERE ",
            Clause::Any(vec![Clause::text(&*long), Clause::text(&*long)]),
            ")",
        );
        let shown = render(&Clause::All(vec![Clause::text("a"), clause]));
        assert_eq!(shown, format!("a\nAND EXISTS (SELECT 1 WHERE\n  {long}\n  OR {long}\n)"));
    }
}
