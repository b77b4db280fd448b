//! Asking Prometheus what it measured of us (`GET /api/v1/query`).

use super::{LATENCIES, Measured, RATIOS, Reading, share};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::time::Duration;

/// All questions together.
const TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A Prometheus server. Its URL is shown to nobody: it may hold a password.
#[derive(Debug, Clone)]
pub struct Prometheus {
    http: reqwest::Client,
    query: reqwest::Url,
}

impl Prometheus {
    /// `url`: where its pages begin, `http://127.0.0.1:9090` for one. Nothing is asked yet.
    pub fn open(url: &str) -> Result<Self> {
        let base = reqwest::Url::parse(&format!("{}/", url.trim_end_matches('/')))
            .context("the URL of Prometheus cannot be read (setting webui.prometheus_url)")?;
        let query = base.join("api/v1/query").context("the URL of Prometheus cannot be used")?;
        let mut roots = rustls::RootCertStore::empty();
        if base.scheme() == "https" {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let tls = rustls::ClientConfig::builder_with_provider(runtime::tls::provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(TIMEOUT)
            .build()?;
        Ok(Self { http, query })
    }

    /// All objectives, each over its hours; the questions go out side by side. The error is a sentence
    /// that may be shown.
    pub async fn measure(
        &self,
        ratio_hours: &[u64; RATIOS.len()],
        latency_hours: &[u64; LATENCIES.len()],
    ) -> Result<Measured, String> {
        let mut questions = tokio::task::JoinSet::new();
        for (index, question) in questions_of(ratio_hours, latency_hours).into_iter().enumerate() {
            let prometheus = self.clone();
            questions.spawn(async move { (index, prometheus.ask(&question).await) });
        }
        let mut answers = vec![None; 3 * RATIOS.len() + 2 * LATENCIES.len()];
        let all = async {
            while let Some(joined) = questions.join_next().await {
                let (index, answer) = joined.map_err(|_| "a question broke off".to_owned())?;
                answers[index] = answer.map_err(|error| format!("{error:#}"))?;
            }
            Ok::<(), String>(())
        };
        tokio::time::timeout(TIMEOUT, all).await.map_err(|_| "no answer in time".to_owned())??;
        let mut measured = Measured::default();
        let mut answers = answers.into_iter();
        let mut next = || answers.next().flatten();
        for slot in &mut measured.ratios {
            let (is_there, good, bad) = (next(), next(), next());
            if is_there.is_some_and(|series| series > 0.0) {
                *slot = Reading::of(share(good.unwrap_or(0.0), bad.unwrap_or(0.0)));
            }
        }
        for slot in &mut measured.latencies {
            let (is_there, seconds) = (next(), next());
            if is_there.is_some_and(|series| series > 0.0) {
                *slot = Reading::of(seconds);
            }
        }
        Ok(measured)
    }

    /// The one number that a query gives; `None`: no data.
    async fn ask(&self, question: &str) -> Result<Option<f64>> {
        let mut url = self.query.clone();
        url.query_pairs_mut().append_pair("query", question);
        let mut response = self.http.get(url).send().await.map_err(unanswered)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unanswered)? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES_MAX {
                bail!("its answer is over {ANSWER_BYTES_MAX} bytes");
            }
        }
        if !status.is_success() {
            bail!("it answered HTTP {}", status.as_u16());
        }
        number_of(&body)
    }
}

/// What went wrong, without the URL.
fn unanswered(error: reqwest::Error) -> anyhow::Error {
    if error.is_connect() {
        anyhow::anyhow!("it cannot be reached")
    } else if error.is_timeout() {
        anyhow::anyhow!("no answer in time")
    } else {
        anyhow::anyhow!("it did not answer properly")
    }
}

/// For each ratio whether it was measured, the good and the bad; for each latency whether it was
/// measured, and the latency.
fn questions_of(ratio_hours: &[u64; RATIOS.len()], latency_hours: &[u64; LATENCIES.len()]) -> Vec<String> {
    let is_there = |metric: &str, hours: u64| format!("count(last_over_time({metric}[{hours}h]))");
    let count = |metric: &str, labels: &[&str], hours: u64| {
        let each: Vec<String> =
            labels.iter().map(|label| format!("(sum(increase({metric}{{{label}}}[{hours}h])) or vector(0))")).collect();
        each.join(" + ")
    };
    let mut questions = Vec::new();
    for (ratio, hours) in RATIOS.iter().zip(ratio_hours) {
        questions.push(is_there(ratio.metric, *hours));
        questions.push(count(ratio.metric, ratio.good, *hours));
        questions.push(count(ratio.metric, ratio.bad, *hours));
    }
    for (latency, hours) in LATENCIES.iter().zip(latency_hours) {
        let metric = latency.metric;
        questions.push(is_there(&format!("{metric}_count"), *hours));
        questions.push(format!("histogram_quantile(0.99, sum by (le) (rate({metric}_bucket[{hours}h])))"));
    }
    questions
}

fn number_of(body: &[u8]) -> Result<Option<f64>> {
    #[derive(Deserialize)]
    struct Answer {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        result: Vec<Sample>,
    }
    #[derive(Deserialize)]
    struct Sample {
        value: (f64, String),
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|_| anyhow::anyhow!("its answer cannot be read"))?;
    let number = answer.data.result.first().and_then(|sample| sample.value.1.parse::<f64>().ok());
    Ok(number.filter(|number| number.is_finite()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_number_no_data_or_an_error() {
        let answer =
            |result: &str| number_of(format!(r#"{{"status":"success","data":{{"result":[{result}]}}}}"#).as_bytes());
        assert_eq!(answer(r#"{"metric":{},"value":[1,"0.5"]}"#).unwrap(), Some(0.5));
        assert_eq!(answer(r#"{"metric":{},"value":[1,"NaN"]}"#).unwrap(), None);
        assert_eq!(answer("").unwrap(), None);
        assert!(number_of(b"<html>").is_err());
    }

    #[test]
    fn a_url_that_cannot_be_read_is_an_error_that_does_not_repeat_it() {
        for url in ["nowhere", "http://user:hunter2@", "http://[hunter2"] {
            let error = format!("{:#}", Prometheus::open(url).unwrap_err());
            assert!(error.contains("webui.prometheus_url") && !error.contains("hunter2"), "{error}");
        }
    }
}
