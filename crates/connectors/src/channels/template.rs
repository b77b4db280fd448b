//! Templates (Jinja's language) of what channels say about an alert.
//!
//! Always true here:
//! * A template that names something there is not is refused when it is read, with its name, the
//!   line and the wrong name; so is one that fails on an alert of any kind or severity, and one of
//!   JSON that does not give JSON. What a single alert lacks is an empty text.
//! * What an alert says is escaped for where it goes; a template's own text is not.
//! * Rendering is bounded, in steps and in bytes, and a template can reach nothing but its alert: no
//!   file, no other template.

use super::facts;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Output, State, UndefinedBehavior};
use model::Alert;
use runtime::config::nearest;
use std::borrow::Cow;
use std::io;

/// Of one rendering: a step, or 64 bytes that are made. More than enough for the largest alert there can
/// be (`facts.rs`).
const FUEL: u64 = 300_000;
/// Of one rendered text.
const OUTPUT_BYTES_MAX: usize = 4 << 20;
/// Of one template.
const SOURCE_BYTES_MAX: usize = 64 * 1024;
/// Functions that need no alert.
const FUNCTIONS: [&str; 3] = ["range", "dict", "namespace"];
const SLACK: &str = "slack";

/// Where the rendered text goes, and so how values are escaped in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// Plain text: not at all.
    Text,
    Html,
    /// Values are written as JSON: texts with their quotes. The whole must be JSON.
    Json,
    /// `&`, `<` and `>`, which make mentions and links there.
    Slack,
}

/// A template that has been tried.
#[derive(Debug)]
pub(super) struct Template {
    name: &'static str,
    environment: Environment<'static>,
    escape: Escape,
    uses_event: bool,
}

impl Template {
    /// Reads and tries it. The error is a sentence about `name`, which is the setting's.
    pub fn parse(name: &'static str, source: &str, escape: Escape) -> Result<Self, String> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(format!("the template `{name}` is longer than {SOURCE_BYTES_MAX} bytes"));
        }
        let mut environment = environment(escape);
        let wrong = |e: minijinja::Error| format!("the template `{name}` is wrong: {}", said(&e));
        environment.add_template_owned(name, source.to_owned()).map_err(wrong)?;
        let asked = environment.get_template(name).map_err(wrong)?.undeclared_variables(true);
        let mut asked: Vec<&str> = asked.iter().map(String::as_str).collect();
        asked.sort_unstable();
        if let Some((unknown, hint)) = asked.iter().find_map(|path| unknown(path)) {
            let line = line_of(source, &unknown).map_or(String::new(), |line| format!(", line {line}"));
            return Err(format!("the template `{name}` is wrong{line}: there is no `{unknown}`{hint}"));
        }
        let uses_event = asked.iter().any(|path| *path == "alert" || path.starts_with("alert.event"));
        let template = Self { name, environment, escape, uses_event };
        for sample in facts::samples() {
            template.render(&sample, "https://mutt.example.com/alerts/1")?;
        }
        Ok(template)
    }

    /// The text for an alert. The error is a sentence.
    pub fn render(&self, alert: &Alert, url: &str) -> Result<String, String> {
        let failed = |e: minijinja::Error| format!("the template `{}` failed: {}", self.name, said(&e));
        let template = self.environment.get_template(self.name).map_err(failed)?;
        let mut out = Bounded(Vec::new());
        template.render_captured_to(facts::context(alert, url, self.uses_event), &mut out).map_err(failed)?;
        let text = String::from_utf8(out.0).map_err(|_| format!("the template `{}` gave no text", self.name))?;
        if self.escape == Escape::Json
            && let Err(e) = serde_json::from_str::<serde::de::IgnoredAny>(&text)
        {
            return Err(format!("what the template `{}` gives is no JSON: {e}", self.name));
        }
        Ok(text)
    }
}

fn environment(escape: Escape) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(move |_| match escape {
        Escape::Text => AutoEscape::None,
        Escape::Html => AutoEscape::Html,
        Escape::Json => AutoEscape::Json,
        Escape::Slack => AutoEscape::Custom(SLACK.into()),
    });
    environment.set_formatter(format);
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(64);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the usual delimiters go together"));
    environment.add_filter("truncate", |text: Cow<'_, str>, max: usize| facts::clip(&text, max));
    environment
}

fn format(out: &mut Output, state: &mut State, value: &Value) -> Result<(), minijinja::Error> {
    if !matches!(state.auto_escape(), AutoEscape::Custom(_)) {
        return minijinja::escape_formatter(out, state, value);
    }
    let text = if value.is_undefined() || value.is_none() {
        String::new()
    } else if value.is_safe() {
        value.to_string()
    } else {
        slack_escaped(&value.to_string())
    };
    out.write_str(&text).map_err(minijinja::Error::from)
}

/// Text that chat programs take for text: no mention, no link, no markup of theirs. `@channel` would
/// call a whole channel in Mattermost, which knows no `<!channel>`; a sign without width keeps the
/// two apart. Addresses such as `root@host` stay as they are.
pub(super) fn slack_escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    let (mut before, mut first) = (' ', None);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '@' if !before.is_alphanumeric() && chars.peek().is_some_and(|next| next.is_alphanumeric()) => {
                out.push_str("@\u{200b}");
            }
            // The links and pictures of Markdown, which Mattermost and Rocket.Chat read.
            ']' if matches!(chars.peek(), Some('(' | '[')) || (first == Some('[') && chars.peek() == Some(&':')) => {
                out.push_str("]\u{200b}");
            }
            '\n' | '\t' => out.push(c),
            c if is_unprintable(c) => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
        before = c;
        first = if c == '\n' { None } else { first.or(Some(c).filter(|c| !c.is_whitespace())) };
    }
    out
}

/// Control characters, and those that turn the direction of what follows around, with which a text
/// shows something else than it says.
pub(super) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// What there is not of a dotted name, and a hint.
fn unknown(path: &str) -> Option<(String, String)> {
    let mut parts = path.split('.');
    let first = parts.next().unwrap_or_default();
    if FUNCTIONS.contains(&first) {
        return None;
    }
    if first != "alert" {
        let hint = match nearest(first, facts::NAMES.into_iter()) {
            Some(name) => format!("; did you mean `alert.{name}`?"),
            None => "; everything is below `alert`".to_owned(),
        };
        return Some((first.to_owned(), hint));
    }
    let name = parts.next()?;
    if !facts::NAMES.contains(&name) {
        let hint = match nearest(name, facts::NAMES.into_iter()) {
            Some(known) => format!("; did you mean `alert.{known}`?"),
            None => format!("; there are {}", facts::NAMES.join(", ")),
        };
        return Some((format!("alert.{name}"), hint));
    }
    let more = parts.next()?;
    let hint = format!("; `alert.{name}` has no parts");
    (!facts::OPEN.contains(&name)).then(|| (format!("alert.{name}.{more}"), hint))
}

/// The first line in which a name stands, by itself.
fn line_of(source: &str, name: &str) -> Option<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let stands = |line: &str| {
        line.match_indices(name).any(|(at, _)| {
            !line[..at].ends_with(|c| is_part(c) || c == '.') && !line[at + name.len()..].starts_with(is_part)
        })
    };
    source.lines().position(stands).map(|index| index + 1)
}

/// The engine's words, with the line first.
fn said(error: &minijinja::Error) -> String {
    let line = error.line().map_or(String::new(), |line| format!("line {line}: "));
    let detail = error.detail().map_or(String::new(), |detail| format!(": {detail}"));
    format!("{line}{}{detail}", error.kind())
}

struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(io::Error::other("the text is too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Detection, Level};
    use testkit::builders::alert;

    fn hostile() -> Alert {
        let text = "<!channel> <https://evil.example|ok> @here root@db \"q\" & \\ \u{202e}x\r\n{{ 7*7 }}";
        let detection = Detection {
            rule_uid: "r-1".into(),
            title: text.into(),
            level: Level::High,
            fields: vec![("zeta".into(), text.into()), ("a.b".into(), "1".into()), ("zeta".into(), "2".into())],
            events: 9,
            ..Detection::default()
        };
        alert().message(text).detection(detection).build()
    }

    fn render(source: &str, escape: Escape, alert: &Alert) -> String {
        Template::parse("text", source, escape).unwrap().render(alert, "").unwrap()
    }

    #[test]
    fn what_an_alert_says_is_escaped_for_where_it_goes() {
        let alert = hostile();
        assert_eq!(render("<b>{{ alert.title }}", Escape::Text, &alert), format!("<b>{}", facts::title(&alert)));
        let html = render("<b>{{ alert.message }}", Escape::Html, &alert);
        assert!(html.starts_with("<b>&lt;!channel&gt;") && html.ends_with("{{ 7*7 }}"), "{html}");
        let slack = render("<http://x|y> {{ alert.message }}", Escape::Slack, &alert);
        assert_eq!(
            slack,
            "<http://x|y> &lt;!channel&gt; &lt;https://evil.example|ok&gt; @\u{200b}here root@db \"q\" &amp; \\ \
             \u{fffd}x\u{fffd}\n{{ 7*7 }}"
        );
        let json = render(
            r#"{"m": {{ alert.message }}, "t": {{ alert.tags }}, "e": {{ alert.event }}}"#,
            Escape::Json,
            &alert,
        );
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((json["m"].as_str(), &json["t"]), (Some(alert.message.as_str()), &serde_json::json!([])));
        assert_eq!(json["e"]["hostname"], "router-1");
    }

    #[test]
    fn fields_keep_their_order_and_what_an_alert_lacks_is_empty() {
        let alert = hostile();
        let each = "{% for name, value in alert.fields|items %}{{ name }}={{ value|truncate(3) }};{% endfor %}";
        assert_eq!(render(each, Escape::Text, &alert), "zeta=<!…;a.b=1;");
        let lacks = "[{{ alert.fields.none }}{{ alert.event.a.b.c }}{{ alert.fields['a.b'] }}{{ alert.count }}]";
        assert_eq!(render(lacks, Escape::Text, &alert), "[19]");
        assert_eq!(render("{{ alert.fields.x|default('-') }}", Escape::Text, &alert), "-");
    }

    #[test]
    fn a_wrong_template_is_refused_with_its_name_the_line_and_the_wrong_name() {
        for (source, says) in [
            ("a\n{{ alert.titel }}", "line 2: there is no `alert.titel`; did you mean `alert.title`?"),
            ("{{ alert.titles }}{{ alert.title }}", "line 1: there is no `alert.titles`"),
            (
                "\n\n{% if severity == 'x' %}{% endif %}",
                "line 3: there is no `severity`; did you mean `alert.severity`?",
            ),
            ("{{ alert.host.name }}", "line 1: there is no `alert.host.name`; `alert.host` has no parts"),
            ("{{ config }}", "there is no `config`; everything is below `alert`"),
            ("x\n{{ alert.title ", "line 2: syntax error"),
            ("{% include 'x' %}", "line 1: syntax error"),
            ("{{ alert.title|nosuch }}", "line 1: unknown filter"),
            ("{% if alert.severity == 'Critical' %}\n{{ nosuch() }}{% endif %}", "line 2: there is no `nosuch`"),
            ("{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}", "fuel"),
            ("{{ 'x' * 5000000 }}", "failed"),
            ("{{ 'x' * 500000000 }}", "fuel"),
        ] {
            let error = Template::parse("subject", source, Escape::Text).map(drop).unwrap_err();
            assert!(error.starts_with("the template `subject` ") && error.contains(says), "{source}: {error}");
        }
        let error = Template::parse("body", r#"{"a": "{{ alert.title }}"}"#, Escape::Json).map(drop).unwrap_err();
        assert!(error.contains("is no JSON"), "{error}");
        let long = "x".repeat(SOURCE_BYTES_MAX + 1);
        assert!(Template::parse("body", &long, Escape::Text).unwrap_err().contains("longer than"));
    }

    #[test]
    fn every_name_of_the_list_is_there_and_no_other() {
        let context = facts::context(&facts::samples()[1], "u", true).get_attr("alert").unwrap();
        let mut there: Vec<String> = context.try_iter().unwrap().map(|key| key.to_string()).collect();
        let mut listed = facts::NAMES.map(str::to_owned).to_vec();
        there.sort();
        listed.sort();
        assert_eq!(there, listed);
        let documented = include_str!("../../../../docs/channels.md");
        for name in facts::NAMES {
            assert!(documented.contains(&format!("| `alert.{name}`")), "docs/channels.md does not tell `alert.{name}`");
        }
    }
}
