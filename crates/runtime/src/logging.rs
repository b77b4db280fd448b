//! Logs: one line an event, as text for people or as JSON for machines (contract mutt §8.5).
//!
//! Text: `time - LEVEL - [correlation id] - message key=value …`; the id is the line's own, or that of
//! the work it belongs to: of the innermost span with a field `correlation_id`. JSON: the contract's keys
//! (`timestamp, level, message, logger, service, version, pod_name, correlation_id`) and the
//! fields of the line. Line breaks in values are escaped in both: one event is one line, whatever an
//! attacker sends.

use crate::Clock;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// How logs look and where the line is drawn.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,pipeline=debug`.
    pub level: String,
    pub json: bool,
    pub service: String,
    pub pod_name: String,
}

type SetLevel = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// Changes the level while running.
#[derive(Clone)]
pub struct LevelHandle(Arc<SetLevel>);

impl LevelHandle {
    pub fn set(&self, level: &str) -> Result<(), String> {
        (self.0)(level)
    }
}

/// Checks a level or filter text.
pub fn check_level(level: &str) -> Result<(), String> {
    filter(level).map(drop)
}

fn filter(level: &str) -> Result<tracing_subscriber::EnvFilter, String> {
    let lower = level.trim().to_ascii_lowercase();
    let word = match lower.as_str() {
        "warning" => "warn",
        "critical" | "fatal" => "error",
        other => other,
    };
    tracing_subscriber::EnvFilter::builder().parse(word).map_err(|e| format!("`{level}` is not a log level: {e}"))
}

/// Makes this the process's log, on standard error. Only a binary's `main` calls it.
pub fn init(config: &LogConfig, clock: Arc<dyn Clock>) -> Result<LevelHandle, String> {
    use tracing_subscriber::util::SubscriberInitExt;
    let (subscriber, handle) = lines_to(config, clock, std::io::stderr)?;
    subscriber.try_init().map_err(|e| format!("logging is set up already: {e}"))?;
    Ok(handle)
}

/// The same log, written elsewhere.
pub fn lines_to<W>(
    config: &LogConfig,
    clock: Arc<dyn Clock>,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync + 'static, LevelHandle), String>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    use tracing_subscriber::layer::SubscriberExt;
    let (level, handle) = tracing_subscriber::reload::Layer::new(filter(&config.level)?);
    let format = Lines { config: config.clone(), clock };
    let subscriber = tracing_subscriber::registry()
        .with(level)
        .with(Correlations)
        .with(tracing_subscriber::fmt::layer().with_writer(writer).event_format(format));
    let handle = LevelHandle(Arc::new(move |level: &str| {
        let new = filter(level)?;
        handle.reload(new).map_err(|e| e.to_string())
    }));
    Ok((subscriber, handle))
}

/// Keeps the correlation id of a span for the lines within it.
struct Correlations;

struct CorrelationId(String);

impl<S> Layer<S> for Correlations
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let (Some(correlation_id), Some(span)) = (fields.correlation_id, context.span(id)) {
            span.extensions_mut().insert(CorrelationId(correlation_id));
        }
    }
}

struct Lines {
    config: LogConfig,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Fields {
    message: String,
    correlation_id: Option<String>,
    rest: serde_json::Map<String, serde_json::Value>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, serde_json::Value::String(format!("{value:?}")));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, serde_json::Value::String(value.to_owned()));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

impl Fields {
    fn put(&mut self, field: &Field, value: serde_json::Value) {
        match (field.name(), value) {
            ("message", serde_json::Value::String(text)) => self.message = text,
            ("correlation_id", serde_json::Value::String(text)) => self.correlation_id = Some(text),
            (name, value) => {
                self.rest.insert(name.to_owned(), value);
            }
        }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if fields.correlation_id.is_none() {
            fields.correlation_id = context.event_scope().and_then(|mut spans| {
                spans.find_map(|span| span.extensions().get::<CorrelationId>().map(|id| id.0.clone()))
            });
        }
        let line = self.line(event.metadata().level().as_str(), event.metadata().target(), fields);
        writeln!(writer, "{line}")
    }
}

impl Lines {
    fn line(&self, level: &str, target: &str, fields: Fields) -> String {
        let now = self.clock.now().rfc3339();
        if self.config.json {
            let mut object = fields.rest;
            object.insert("timestamp".into(), now.into());
            object.insert("level".into(), level.into());
            object.insert("message".into(), fields.message.into());
            object.insert("logger".into(), target.into());
            object.insert("service".into(), self.config.service.as_str().into());
            object.insert("version".into(), env!("CARGO_PKG_VERSION").into());
            object.insert("pod_name".into(), self.config.pod_name.as_str().into());
            if let Some(id) = fields.correlation_id {
                object.insert("correlation_id".into(), id.into());
            }
            return serde_json::Value::Object(object).to_string();
        }
        let id = fields.correlation_id.as_deref().unwrap_or("-");
        let mut line = format!("{now} - {level} - [{}] - {}", one_line(id), one_line(&fields.message));
        for (key, value) in &fields.rest {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c == '"') {
                let _ = write!(line, " {key}={}", serde_json::Value::String(text));
            } else {
                let _ = write!(line, " {key}={}", one_line(&text));
            }
        }
        line
    }
}

fn one_line(text: &str) -> String {
    if text.contains(char::is_control) {
        text.chars()
            .flat_map(|c| {
                if c.is_control() { c.escape_default().collect::<String>() } else { c.to_string() }
                    .chars()
                    .collect::<Vec<_>>()
            })
            .collect()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ManualClock;
    use model::Timestamp;

    fn lines(json: bool) -> Lines {
        Lines {
            config: LogConfig { level: "info".into(), json, service: "muttd".into(), pod_name: "p".into() },
            clock: Arc::new(ManualClock::new(Timestamp::from_secs(1_767_225_600))),
        }
    }

    fn hostile() -> Fields {
        let mut rest = serde_json::Map::new();
        rest.insert("host".into(), "a\n2026 - ERROR - forged".into());
        Fields { message: "got\nit".into(), correlation_id: Some("c-1".into()), rest }
    }

    #[test]
    fn one_event_is_one_line_whatever_it_holds() {
        for json in [false, true] {
            assert_eq!(lines(json).line("INFO", "t", hostile()).lines().count(), 1);
        }
    }

    #[test]
    fn both_forms_are_the_contracts() {
        let text = lines(false).line("INFO", "t", hostile());
        assert!(text.starts_with("2026-01-01T00:00:00.000000Z - INFO - [c-1] - got\\nit host="), "{text}");
        let json: serde_json::Value = serde_json::from_str(&lines(true).line("WARN", "t", hostile())).unwrap();
        for key in ["timestamp", "level", "message", "logger", "service", "version", "pod_name", "correlation_id"] {
            assert!(json.get(key).is_some(), "{key}");
        }
    }

    /// What was written, for a look at it.
    #[derive(Clone, Default)]
    struct Written(Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_has_the_correlation_id_of_the_work_it_belongs_to_at_every_level() {
        for (level, json) in [("error", false), ("info", false), ("info", true)] {
            let written = Written::default();
            let writer = written.clone();
            let config = LogConfig { level: level.into(), ..lines(json).config };
            let (subscriber, _) = lines_to(&config, lines(json).clock, move || writer.clone()).unwrap();
            tracing::subscriber::with_default(subscriber, || {
                let request = tracing::error_span!("request", correlation_id = "c-7\n");
                request.in_scope(|| {
                    tracing::error!("outer");
                    tracing::error_span!("step").in_scope(|| tracing::error!("inner"));
                    tracing::error!(correlation_id = "c-8", "own");
                });
                tracing::error!("none");
            });
            let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
            let seen: Vec<&str> = text.lines().collect();
            let ids = ["c-7\\n", "c-7\\n", "c-8", "-"];
            assert_eq!(seen.len(), ids.len(), "{text}");
            for (line, id) in seen.iter().zip(ids) {
                let expected = match (json, id) {
                    (false, id) => line.contains(&format!(" - [{id}] - ")),
                    (true, "-") => !line.contains("correlation_id"),
                    (true, id) => line.contains(&format!("\"correlation_id\":\"{id}\"")),
                };
                assert!(expected, "{id}: {line}");
            }
        }
    }

    #[test]
    fn levels_of_the_original_are_understood() {
        for level in ["INFO", "WARNING", "debug", "info,wal=trace"] {
            assert!(check_level(level).is_ok(), "{level}");
        }
        assert!(check_level("loud=very=much").is_err());
    }
}
