//! A table of events in a ClickHouse server, by HTTP; dropped when the hunt is over.

use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::time::Duration;
use storage::hunt::Row;
use tokio::runtime::Runtime;

const TIMEOUT: Duration = Duration::from_secs(600);
/// What ClickHouse says about an error, at most, in characters.
const ERROR_CHARS_MAX: usize = 600;

/// The table.
pub struct Table {
    runtime: Runtime,
    client: reqwest::Client,
    url: String,
    user: Option<String>,
    password: Option<String>,
    name: String,
}

impl Table {
    /// Makes the table in the default database of the server at `url` (`http://host:8123`).
    pub fn open(url: &str, user: Option<String>, password: Option<String>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = crate::commands::http_client(TIMEOUT)?;
        let name = format!("mutt_hunt_{}", uuid::Uuid::new_v4().simple());
        let table = Self { runtime, client, url: url.trim_end_matches('/').to_owned(), user, password, name };
        table.send(
            &format!(
                "CREATE TABLE {} (n UInt64, ts Int64, source Map(String, Array(String)), fields Map(String, Array(String))) \
                 ENGINE = MergeTree ORDER BY n",
                table.name
            ),
            None,
        )?;
        Ok(table)
    }

    /// Its name in queries.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn add(&self, rows: &[Row]) -> Result<()> {
        let mut body = String::new();
        for Row { number, micros, source, fields } in rows {
            let _ = writeln!(body, "{{\"n\":{number},\"ts\":{micros},\"source\":{source},\"fields\":{fields}}}");
        }
        self.send(&format!("INSERT INTO {} FORMAT JSONEachRow", self.name), Some(body))?;
        Ok(())
    }

    /// Numbers of the events that a condition holds for, ascending.
    pub fn numbers(&self, condition: &str) -> Result<Vec<u64>> {
        let answer =
            self.send("", Some(format!("SELECT n FROM {} WHERE {condition} ORDER BY n FORMAT TSV", self.name)))?;
        answer.lines().map(|line| line.parse().context("ClickHouse answers no number")).collect()
    }

    /// Answers of a query whose columns are all texts but the last, a number: firings of correlations.
    pub fn firings(&self, query: &str) -> Result<Vec<(Vec<String>, i64)>> {
        let answer = self.send("", Some(format!("{query}\nFORMAT JSONCompactStringsEachRow")))?;
        let row = |line: &str| {
            let mut key: Vec<String> = serde_json::from_str(line).context("ClickHouse answers no JSON")?;
            let at = key.pop().and_then(|text| text.parse().ok()).context("ClickHouse answers no time")?;
            Ok((key, at))
        };
        answer.lines().map(row).collect()
    }

    /// A statement in the URL with a body of data, or a statement in the body.
    fn send(&self, statement: &str, body: Option<String>) -> Result<String> {
        let (query, body) = match body {
            Some(body) => (statement, body),
            None => ("", statement.to_owned()),
        };
        let mut url = reqwest::Url::parse(&self.url).context("the address of ClickHouse is no URL")?;
        if !query.is_empty() {
            url.query_pairs_mut().append_pair("query", query);
        }
        url.query_pairs_mut().append_pair("max_query_size", "16777216").append_pair("max_ast_elements", "5000000");
        url.query_pairs_mut().append_pair("max_expanded_ast_elements", "5000000");
        let mut request = self.client.post(url).body(body);
        if let Some(user) = &self.user {
            request = request.header("X-ClickHouse-User", user);
        }
        if let Some(password) = &self.password {
            request = request.header("X-ClickHouse-Key", password);
        }
        self.runtime.block_on(async {
            let answer = request.send().await.context("ClickHouse cannot be reached")?;
            let status = answer.status();
            let text = answer.text().await.context("ClickHouse's answer ended early")?;
            if !status.is_success() {
                let said: String = text.chars().take(ERROR_CHARS_MAX).collect();
                bail!("ClickHouse refused ({status}): {}", said.trim());
            }
            Ok(text)
        })
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // Nobody can be told any more; the table's name says what it was.
        let _ = self.send(&format!("DROP TABLE IF EXISTS {}", self.name), None);
    }
}
