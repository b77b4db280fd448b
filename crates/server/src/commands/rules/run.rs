//! `muttd rules run`: hunt in files, without a server.

use super::super::print_failure;
use crate::hunt::{self, Source, Summary};
use crate::{field_maps, sigma_files};
use anyhow::Result;
use clap::Args;
use rules::sigma::Options;
use rules::stream::Engine;
use std::collections::BTreeMap;
use std::io::{BufWriter, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use storage::hunt::EventTable;
use tokio::time::Instant;

/// How often the progress is drawn.
const PROGRESS: Duration = Duration::from_millis(150);

#[derive(Debug, Args)]
#[command(
    after_help = "A JSON object a match on standard output: rule_id, event (its number, from 0), title, level …\n\
    The last line of standard error is a JSON object with the summary.\n\n\
    Examples:\n  \
      muttd rules run --rules rules/security --events auth.jsonl\n  \
      zcat evtx/*.gz | muttd rules run --rules sigma/rules --events - | jq .title | sort | uniq -c"
)]
pub struct RunArgs {
    /// Files and folders of Sigma rules
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// Files and folders of events: a JSON object a line, or JSON as a whole; .gz, .zst; `-` is
    /// standard input
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    events: Vec<PathBuf>,
    /// How: the streaming engine, or the rules' SQL
    #[arg(long, value_enum, default_value_t)]
    via: Via,
    /// The server for `--via clickhouse`, by HTTP; a table is made there and dropped. The environment's
    /// CLICKHOUSE_USER and CLICKHOUSE_PASSWORD are used
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8123")]
    clickhouse_url: String,
    /// Threads that match, for `--via stream` [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    threads: Option<u16>,
    /// A value of a placeholder (`%name%`) in rules; again for more values
    #[arg(long = "placeholder", value_name = "NAME=VALUE", value_parser = placeholder)]
    placeholders: Vec<(String, String)>,
    /// Files and folders that say what the events call the fields of the taxonomy (docs/fields.md)
    #[arg(long, num_args = 1.., value_name = "PATH")]
    fields: Vec<PathBuf>,
    /// No progress, even on a terminal
    #[arg(long)]
    quiet: bool,
}

/// How events and rules come together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Via {
    #[default]
    Stream,
    Sqlite,
    #[value(name = "clickhouse")]
    ClickHouse,
}

impl Via {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Sqlite => "sqlite",
            Self::ClickHouse => "clickhouse",
        }
    }
}

/// What asks the rules.
enum How {
    Stream(Box<Engine>),
    Sql(hunt::sql::Engine),
}

pub(super) fn placeholder(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.trim_matches('%').to_owned(), value.to_owned())),
        Some(_) | None => Err("write NAME=VALUE".to_owned()),
    }
}

/// What rules are read with.
pub(super) fn options(placeholders: &[(String, String)]) -> Options {
    let mut options = Options::default();
    for (name, value) in placeholders {
        options.placeholders.entry(name.clone()).or_default().push(value.clone());
    }
    options
}

pub fn run(args: &RunArgs) -> ExitCode {
    match hunt(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => print_failure(&error),
    }
}

fn hunt(args: &RunArgs) -> Result<()> {
    let started = Instant::now();
    let collection = sigma_files::read(&args.rules, &options(&args.placeholders));
    let aliases = field_maps::read_and_tell(&args.fields);
    let engine = match args.via {
        Via::Stream => {
            let rules = collection.rules.iter().map(|rule| (&rule.source, &rule.predicate));
            How::Stream(Box::new(Engine::compile(rules)))
        }
        Via::Sqlite => How::Sql(hunt::sql::Engine::Sqlite(EventTable::open()?)),
        Via::ClickHouse => {
            let environment = runtime::config::environment();
            let value = |name: &str| environment.get(name).cloned();
            let (user, password) = (value("CLICKHOUSE_USER"), value("CLICKHOUSE_PASSWORD"));
            How::Sql(hunt::sql::Engine::ClickHouse(hunt::clickhouse::Table::open(
                &args.clickhouse_url,
                user,
                password,
            )?))
        }
    };
    let refused = hunt::refused(&collection);
    if collection.rules.is_empty() && refused.is_empty() {
        anyhow::bail!("there are no Sigma rules (*.yml, *.yaml) here");
    }
    let threads = args.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let mut summary = Summary {
        rules_loaded: collection.rules.len() + collection.correlations.len(),
        rules_refused: refused.len(),
        warnings: collection.problems.len() - refused.len(),
        refused,
        load_ms: started.elapsed().as_secs_f64() * 1e3,
        via: args.via.as_str(),
        threads: if args.via == Via::Stream { threads } else { 1 },
        events: 0,
        events_invalid: 0,
        invalid: Vec::new(),
        bytes: 0,
        seconds: 0.0,
        events_per_second: 0.0,
        matches: 0,
        matches_by_rule: BTreeMap::new(),
    };
    let files = hunt::input::files(&args.events)?;
    let total: u64 = files.iter().filter_map(|file| std::fs::metadata(file).ok()).map(|data| data.len()).sum();
    let mut bar =
        Bar { on: !args.quiet && std::io::stderr().is_terminal(), total, started: Instant::now(), drawn: None };
    let source = Source { files: &files, aliases: &aliases };
    let began = Instant::now();
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let progress = |so_far: &Summary| bar.draw(so_far);
    let hunted = match engine {
        How::Stream(engine) => {
            hunt::stream::hunt(&collection, &engine, source, threads, &mut out, progress, &mut summary)
        }
        How::Sql(engine) => hunt::sql::hunt(&collection, engine, source, &mut out, progress, &mut summary),
    };
    bar.end();
    summary.seconds = began.elapsed().as_secs_f64();
    summary.events_per_second = summary.events as f64 / summary.seconds.max(1e-9);
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "{}", serde_json::to_string(&summary)?);
    match hunted {
        Err(error) if closed(&error) => Ok(()),
        other => other,
    }
}

/// Whoever read the matches wants no more.
fn closed(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind));
    let json = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind));
    io.or(json) == Some(std::io::ErrorKind::BrokenPipe)
}

/// A line on the terminal that tells how far it is.
struct Bar {
    on: bool,
    total: u64,
    started: Instant,
    drawn: Option<Instant>,
}

impl Bar {
    fn draw(&mut self, so_far: &Summary) {
        if !self.on || self.drawn.is_some_and(|drawn| drawn.elapsed() < PROGRESS) {
            return;
        }
        self.drawn = Some(Instant::now());
        const WIDTH: usize = 30;
        let part = if self.total == 0 { 0.0 } else { (so_far.bytes as f64 / self.total as f64).min(1.0) };
        let filled = (part * WIDTH as f64) as usize;
        let rate = so_far.events as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
        let _ = write!(
            std::io::stderr(),
            "\r\x1b[K[{}{}] {:>3.0} %  {} events  {rate:.0}/s  {} matches",
            "#".repeat(filled),
            "-".repeat(WIDTH - filled),
            part * 100.0,
            so_far.events,
            so_far.matches
        );
    }

    fn end(&self) {
        if self.drawn.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
