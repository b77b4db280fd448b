//! Slack's incoming webhooks, and those of Mattermost and Rocket.Chat, which take the older of the two
//! forms.
//!
//! The URL is the whole credential, so it is a secret and may change while we run. What an alert says
//! is text there: it cannot mention anybody, link anywhere or load a picture. Everything is cut to
//! Slack's bounds (150 characters of a header, 3000 of a section, 50 blocks, 40000 in all).

use super::client::{HttpClient, internal, invalid};
use super::facts::{self, clip};
use super::template::{Escape, Template, slack_escaped};
use super::{Channel, DeliveryError, HttpTarget, IDEMPOTENCY_KEY, Receipt, key_header};
use async_trait::async_trait;
use http::HeaderMap;
use model::{Alert, AlertSeverity, ErrorKind, Timestamp};
use runtime::{KeyRing, Secret};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};

/// Title of the message, and what notifications show.
const TITLE: &str =
    "[{{ alert.severity }}] {{ alert.title }}{% if alert.host %} on {{ alert.host|truncate(80) }}{% endif %}";
const TEXT: &str = "{{ alert.message|truncate(2000) }}\n{{ alert.description }}";

const HEADER_CHARS_MAX: usize = 150;
const SECTION_CHARS_MAX: usize = 3000;
const FIELD_NAME_CHARS_MAX: usize = 75;
const FIELD_CHARS_MAX: usize = 500;
/// Of one section.
const FIELDS_PER_SECTION: usize = 10;
const FIELDS_MAX: usize = 20;
const REFERENCES_MAX: usize = 5;
const URL_CHARS_MAX: usize = 500;

/// How a message is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlackFormat {
    /// Slack's blocks.
    #[default]
    Blocks,
    /// The older attachments, which Mattermost and Rocket.Chat understand too.
    Attachments,
}

/// An incoming webhook.
#[derive(Debug, Clone)]
pub struct SlackConfig {
    /// Its URL counts where `urls` has none.
    pub target: HttpTarget,
    /// URLs that may change while we run, the preferred one first.
    pub urls: KeyRing,
    /// `#alerts` or `@person`, where the webhook lets one choose; empty: the webhook's own.
    pub channel: String,
    pub format: SlackFormat,
    /// Templates instead of ours.
    pub title: Option<String>,
    pub text: Option<String>,
    /// Where people see an alert, with `{id}` where its id goes; empty: nowhere.
    pub alert_url: String,
}

pub(super) struct Slack {
    config: SlackConfig,
    title: Template,
    text: Template,
    /// Those of the URLs in use.
    clients: Mutex<Vec<(Secret, Arc<HttpClient>)>>,
}

impl Slack {
    pub fn open(config: SlackConfig) -> Result<Self, DeliveryError> {
        super::check_alert_url(&config.alert_url)?;
        let template = |name, own: &Option<String>, ours: &str| {
            Template::parse(name, own.as_deref().unwrap_or(ours), Escape::Slack).map_err(invalid)
        };
        let (title, text) = (template("title", &config.title, TITLE)?, template("text", &config.text, TEXT)?);
        let slack = Self { config, title, text, clients: Mutex::default() };
        for url in slack.urls() {
            slack.client(&url)?;
        }
        Ok(slack)
    }

    fn urls(&self) -> Vec<Secret> {
        let urls = self.config.urls.keys();
        if urls.is_empty() { vec![Secret::new(self.config.target.url.as_str())] } else { urls }
    }

    fn client(&self, url: &Secret) -> Result<Arc<HttpClient>, DeliveryError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = clients.iter().find(|(of, _)| of == url) {
            return Ok(Arc::clone(client));
        }
        let target = HttpTarget { url: url.expose().to_owned(), ..self.config.target.clone() };
        let client = Arc::new(HttpClient::open(&target, KeyRing::fixed(url.clone()))?);
        let current = self.urls();
        clients.retain(|(of, _)| current.contains(of));
        clients.push((url.clone(), Arc::clone(&client)));
        Ok(client)
    }

    fn body(&self, alert: &Alert) -> Value {
        let url = super::alert_url(&self.config.alert_url, alert);
        let rendered = |template: &Template, instead: &str| {
            template.render(alert, &url).unwrap_or_else(|reason| {
                tracing::warn!(alert.id = %alert.id, reason, "a template failed; the alert is sent without it");
                slack_escaped(instead)
            })
        };
        let title = rendered(&self.title, &facts::title(alert));
        let title = cut(title.split_whitespace().collect::<Vec<_>>().join(" ").as_str(), HEADER_CHARS_MAX);
        let title = if title.is_empty() { "alert".to_owned() } else { title };
        let text = cut(rendered(&self.text, &alert.message).trim(), SECTION_CHARS_MAX);
        let mut body = match self.config.format {
            SlackFormat::Blocks => blocks(alert, &title, &text, &url),
            SlackFormat::Attachments => attachments(alert, &title, &text, &url),
        };
        body["text"] = json!(title);
        // Nothing in what we send is to be looked up or previewed.
        for (name, value) in [("parse", json!("none")), ("link_names", json!(0)), ("unfurl_links", json!(false))] {
            body[name] = value;
        }
        body["unfurl_media"] = json!(false);
        if !self.config.channel.is_empty() {
            body["channel"] = json!(self.config.channel);
        }
        body
    }
}

#[async_trait]
impl Channel for Slack {
    fn name(&self) -> &str {
        &self.config.target.name
    }

    async fn deliver(&self, alert: &Alert, now: Timestamp) -> Result<Receipt, DeliveryError> {
        let body = serde_json::to_vec(&self.body(alert)).map_err(|e| internal(&e))?;
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY, key_header(alert)?);
        let mut refused = invalid("no URL of the webhook is known");
        for url in self.urls() {
            match self.client(&url)?.post_json(headers.clone(), body.clone(), now).await {
                // A webhook that was taken back; while it is being replaced the next may do.
                Err(error) if matches!(error.kind, ErrorKind::Denied | ErrorKind::Invalid) => refused = error,
                answered => return answered,
            }
        }
        Err(refused)
    }

    async fn probe(&self) -> Result<(), DeliveryError> {
        let url = self.urls().into_iter().next().unwrap_or_else(|| Secret::new(""));
        self.client(&url)?.probe().await
    }
}

fn color(severity: AlertSeverity) -> &'static str {
    match severity {
        AlertSeverity::Critical => "#a30200",
        AlertSeverity::Major => "#e8590c",
        AlertSeverity::Warning => "#daa038",
        AlertSeverity::Minor => "#f2c744",
        AlertSeverity::Info => "#439fe0",
        AlertSeverity::Clear => "#2eb886",
    }
}

fn blocks(alert: &Alert, title: &str, text: &str, url: &str) -> Value {
    // `verbatim`: bare URLs and names stay text.
    let mrkdwn = |text: String| json!({"type": "mrkdwn", "text": text, "verbatim": true});
    let section = |text: String| json!({"type": "section", "text": mrkdwn(text)});
    let mut blocks = Vec::new();
    if !text.is_empty() {
        blocks.push(section(text.to_owned()));
    }
    for fields in fields(alert).chunks(FIELDS_PER_SECTION) {
        let fields: Vec<Value> = fields.iter().map(|(name, value)| mrkdwn(format!("*{name}*\n{value}"))).collect();
        blocks.push(json!({"type": "section", "fields": fields}));
    }
    if let Some(notes) = notes(alert) {
        blocks.push(section(notes));
    }
    let footer = [footer(alert, url), slack_escaped(&alert.created_at.rfc3339())].join(" · ");
    blocks.push(json!({"type": "context", "elements": [mrkdwn(footer)]}));
    json!({
        "blocks": [{"type": "header", "text": {"type": "plain_text", "text": title, "emoji": false}}],
        "attachments": [{"color": color(alert.severity), "fallback": title, "blocks": blocks}],
    })
}

fn attachments(alert: &Alert, title: &str, text: &str, url: &str) -> Value {
    let fields: Vec<Value> = fields(alert)
        .into_iter()
        .map(|(name, value)| json!({"title": name, "short": value.chars().count() <= 40, "value": value}))
        .collect();
    let text = [text.to_owned(), notes(alert).unwrap_or_default()].join("\n\n");
    let mut attachment = json!({
        "color": color(alert.severity),
        "fallback": title,
        "text": text.trim(),
        "fields": fields,
        "footer": slack_escaped(&alert.id.to_string()),
        "ts": alert.created_at.secs(),
        "mrkdwn_in": ["text"],
    });
    if !url.is_empty() {
        attachment["title"] = json!(slack_escaped(&alert.id.to_string()));
        attachment["title_link"] = json!(url);
    }
    json!({ "attachments": [attachment] })
}

/// Name and value, both escaped and cut.
fn fields(alert: &Alert) -> Vec<(String, String)> {
    let mut fields = vec![
        ("Host".to_owned(), alert.host.clone()),
        ("Team".to_owned(), alert.team.clone()),
        ("Severity".to_owned(), alert.severity.as_str().to_owned()),
        ("Rule".to_owned(), facts::rule(alert)),
    ];
    if let Some(detection) = alert.detection.as_deref() {
        fields.push(("Level".to_owned(), detection.level.as_str().to_owned()));
        if detection.events > 1 {
            fields.push(("Events".to_owned(), detection.events.to_string()));
        }
        fields.extend(facts::merged(&detection.fields));
    }
    fields.retain(|(_, value)| !value.trim().is_empty());
    fields.truncate(FIELDS_MAX);
    let shown = |text: &str, max| cut(&slack_escaped(text), max);
    fields
        .into_iter()
        .map(|(name, value)| (shown(&name, FIELD_NAME_CHARS_MAX), shown(&value, FIELD_CHARS_MAX)))
        .collect()
}

/// Tags, references and false positives of a detection.
fn notes(alert: &Alert) -> Option<String> {
    let detection = alert.detection.as_deref()?;
    let mut lines = Vec::new();
    if !detection.tags.is_empty() {
        lines.push(format!("Tags: {}", cut(&slack_escaped(&detection.tags.join(", ")), FIELD_CHARS_MAX)));
    }
    lines.extend(detection.references.iter().take(REFERENCES_MAX).map(|reference| link(reference)));
    if !detection.false_positives.is_empty() {
        let notes = slack_escaped(&detection.false_positives.join("; "));
        lines.push(format!("False positives: {}", cut(&notes, FIELD_CHARS_MAX)));
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn footer(alert: &Alert, url: &str) -> String {
    let id = alert.id.to_string();
    if url.is_empty() { id } else { format!("<{}|{id}>", link_target(url)) }
}

/// A link where the text is a URL of the web, else the text.
fn link(text: &str) -> String {
    let is_url = (text.starts_with("https://") || text.starts_with("http://"))
        && text.len() <= URL_CHARS_MAX
        && !text.contains(char::is_whitespace);
    if is_url { format!("<{}>", link_target(text)) } else { cut(&slack_escaped(text), URL_CHARS_MAX) }
}

fn link_target(url: &str) -> String {
    url.replace('&', "&amp;").replace('<', "%3C").replace('>', "%3E").replace('|', "%7C")
}

/// The first `max` characters of an escaped text, without a part of an escape at the end.
fn cut(text: &str, max: usize) -> String {
    let mut cut = clip(text, max);
    if cut.len() < text.len()
        && let Some(at) = cut.rfind('&')
        && !cut[at..].contains(';')
    {
        cut.truncate(at);
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Detection, Level};
    use testkit::builders::alert;

    fn slack(format: SlackFormat, url: &str) -> Slack {
        let target = HttpTarget {
            name: "slack".into(),
            url: "http://127.0.0.1:1/services/T/B/x".into(),
            timeout: std::time::Duration::from_secs(1),
            ca_file: None,
        };
        Slack::open(SlackConfig {
            target,
            urls: KeyRing::from(Vec::new()),
            channel: "#alerts".into(),
            format,
            title: None,
            text: None,
            alert_url: url.into(),
        })
        .unwrap()
    }

    fn detection(text: &str, many: usize) -> Detection {
        Detection {
            rule_uid: "uid-1".into(),
            name: "login_guessed".into(),
            title: text.into(),
            description: text.into(),
            level: Level::High,
            tags: vec!["attack.t1110".into(); many],
            references: vec!["https://e.example/a|b?x=1&y=<z>".into(), text.into()],
            false_positives: vec![text.into()],
            fields: (0..many).map(|n| (format!("f{n}{text}"), text.to_owned())).collect(),
            events: 12,
        }
    }

    #[test]
    fn a_detection_is_a_header_and_a_coloured_attachment() {
        let alert = alert()
            .detection(Detection { fields: vec![("src_ip".into(), "192.0.2.7".into())], ..detection("Guessed", 1) });
        let body = slack(SlackFormat::Blocks, "https://m.example/a/{id}").body(&alert.build());
        assert_eq!(body["text"], "[Major] Guessed on router-1");
        assert_eq!(body["channel"], "#alerts");
        assert_eq!(body["blocks"][0]["text"]["text"], body["text"]);
        let attachment = &body["attachments"][0];
        assert_eq!(attachment["color"], "#e8590c");
        let blocks = attachment["blocks"].as_array().unwrap();
        assert_eq!(blocks[0]["text"]["text"], "Interface Gi0/1 changed state to down\nGuessed");
        let fields: Vec<&str> =
            blocks[1]["fields"].as_array().unwrap().iter().map(|f| f["text"].as_str().unwrap()).collect();
        assert_eq!(
            fields,
            [
                "*Host*\nrouter-1",
                "*Team*\nNETOPS",
                "*Severity*\nMajor",
                "*Rule*\nuid-1",
                "*Level*\nhigh",
                "*Events*\n12",
                "*src_ip*\n192.0.2.7"
            ]
        );
        assert!(
            blocks[2]["text"]["text"].as_str().unwrap().contains("\n<https://e.example/a%7Cb?x=1&amp;y=%3Cz%3E>\n")
        );
        assert!(blocks[3]["elements"][0]["text"].as_str().unwrap().starts_with("<https://m.example/a/alr_"));
    }

    #[test]
    fn nobody_is_called_and_nothing_linked_by_what_an_alert_says() {
        let sly = "<!channel> <!here|x> <@U1> <https://evil.example|bank> @here @all [a](http://e) ![a](http://e)\n[a]: http://e";
        let alert = alert().message(sly).host(sly).team(sly).detection(detection(sly, 3)).build();
        for format in [SlackFormat::Blocks, SlackFormat::Attachments] {
            let body = slack(format, "").body(&alert).to_string();
            for forbidden in ["<!", "<@", "evil.example|bank>", "@here", "@all", "](", "\\n[a]: "] {
                assert!(!body.contains(forbidden), "{forbidden} in {body}");
            }
            assert_eq!(body.matches("<http").count(), 1, "the rule's own reference only: {body}");
        }
    }

    #[test]
    fn every_bound_of_slack_is_kept() {
        for long in ["&".repeat(20_000), "ü<".repeat(20_000), "x".repeat(100_000)] {
            let alert = alert().message(&long).host(&long).team(&long).detection(detection(&long, 60)).build();
            for format in [SlackFormat::Blocks, SlackFormat::Attachments] {
                let body = slack(format, "").body(&alert);
                assert!(body.to_string().chars().count() < 40_000);
                check_texts(&body);
                let attachment = &body["attachments"][0];
                assert!(attachment["blocks"].as_array().is_none_or(|blocks| blocks.len() < 50));
            }
        }
    }

    fn check_texts(value: &Value) {
        match value {
            Value::String(text) => {
                assert!(text.chars().count() <= 6_100, "{} characters", text.chars().count());
                let amps = text.matches('&').count();
                let whole = ["&amp;", "&lt;", "&gt;"].iter().map(|e| text.matches(e).count()).sum::<usize>();
                assert_eq!(amps, whole, "no escape is cut");
            }
            Value::Array(items) => {
                items.iter().for_each(check_texts);
                for item in items {
                    if item["type"] == "section" && item["text"]["text"].is_string() {
                        assert!(item["text"]["text"].as_str().unwrap().chars().count() <= SECTION_CHARS_MAX);
                    }
                }
            }
            Value::Object(members) => members.values().for_each(check_texts),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}
