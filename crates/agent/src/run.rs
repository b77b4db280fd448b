//! The agent's life: what happens is told to the core, what that says is done.

use crate::collectors::{self, Context, Started, files::Own, log_event, passing};
use crate::host::Host;
use crate::link::{Identity, News, Target, times};
use crate::report::{Certified as Shown, Report, Standing, Waiting};
use crate::settings::Settings;
use crate::spool::{Amount, Ask, Counts, Numbered, Sink, Spool, SpoolBounds, SpoolHandle};
use agent_core::{Config, Core, Failure, Input, Line, Now, Output, Restored, Sent, Trust};
use runtime::{Clock, Stop, SystemClock};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tonic::transport::Channel;
use wire::{AgentMessage, Batch, Hello, MitigateResponse, Record, Status, agent_message, record, server_message};

/// A server that takes nothing for so long is gone.
const SEND_MAX: Duration = Duration::from_secs(30);
/// A connection that was left for another has so long to end.
const LEAVE_MAX: Duration = Duration::from_secs(10);
/// The report is written no more often.
const REPORT_EVERY_MS: u64 = 3_000;

/// Why the agent cannot begin, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot use the data folder `{dir}`: name another with -data-dir or SM_DATA_DIR")]
    Data {
        dir: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    #[error("the spool could not be closed; what is in it stays")]
    Close(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Runs until the stop.
pub async fn run(settings: Settings, stop: Stop) -> Result<(), RunError> {
    let dir = settings.data_dir.clone();
    let data =
        |source: Box<dyn std::error::Error + Send + Sync>| RunError::Data { dir: dir.display().to_string(), source };
    // What hosts say is for nobody else on the host.
    let made =
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).recursive(true).create(&dir);
    made.map_err(|e| data(e.into()))?;
    let epoch = random().map_err(|e| data(e.into()))?;
    let bounds = SpoolBounds { bytes_max: settings.spool_bytes_max, ..SpoolBounds::default() };
    let fs = Arc::new(wal::OsFilesystem);
    let spool = Spool::open(fs, &dir.join("spool"), bounds, epoch).map_err(|e| data(e.into()))?;
    let identity = Identity::open(&dir).map_err(|e| data(e.into()))?;
    let (restored, waiting) = (spool.restored(), spool.waiting());
    let bookmarks = Arc::new(spool.bookmarks().clone());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (handle, sink, worker) = crate::spool::start(spool, clock.clone());

    let own = Arc::new(Own::new(&dir));
    let context = Context { sink: sink.clone(), stop: stop.clone(), clock: clock.clone(), bookmarks, own };
    let Started { threads, mut tasks, not_running, capabilities } =
        collectors::start(&settings, &context).map_err(RunError::Thread)?;
    drop(context);

    let ingest = settings.ingest.clone();
    let host = tokio::task::spawn_blocking(move || Host::read(&ingest));
    // A resolver that does not answer keeps nobody: the address is for show.
    let host = match tokio::time::timeout(Duration::from_secs(2), host).await {
        Ok(Ok(host)) => host,
        Ok(Err(_)) | Err(_) => Host::read_offline(),
    };
    let host = Arc::new(host);
    let trust = if settings.tls {
        let current = identity.current().map(|current| times(&current));
        Trust::Certificate { current, has_token: !settings.token.is_empty() }
    } else {
        tracing::warn!("without -tls, the token and all records are readable on their way");
        Trust::Token
    };
    let config = Config { seed: random().unwrap_or(epoch), ..Config::default() };
    tracing::info!(
        "⇢ streaming logs as {}/{} ➜ {} (TLS: {}) …",
        settings.org,
        settings.host,
        settings.ingest,
        settings.tls
    );
    let report = Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started_unix_ms: clock.now().millis(),
        since_unix_ms: clock.now().millis(),
        org: settings.org.clone(),
        host: settings.host.clone(),
        ingest: settings.ingest.clone(),
        tls: settings.tls,
        running: capabilities.clone(),
        not_running,
        ..Report::default()
    };
    let settings = Arc::new(settings);
    let target = Target { settings: settings.clone(), host, capabilities: Arc::new(capabilities), identity };
    let (news, heard) = mpsc::channel(16);
    let core = Core::new(config, trust, restored.clone());
    let agent = Agent {
        core,
        has_certificate: matches!(trust, Trust::Certificate { .. }),
        epoch: restored.epoch,
        target,
        spool: handle,
        sink,
        clock,
        begin: Instant::now(),
        news,
        connection: Connection::default(),
        tasks: JoinSet::new(),
        counted: Counts::default(),
        wake_ms: u64::MAX,
        ahead: None,
        report,
        report_at_ms: 0,
        reported_ms: None,
        spool_used: (0, 0),
    };
    agent.live(heard, waiting, stop).await;
    // Collectors end by the stop; what they handed in is written before the spool closes.
    while tasks.join_next().await.is_some() {}
    for thread in threads {
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
    match worker.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(RunError::Close(error.into())),
        Err(error) => Err(RunError::Close(error.into())),
    }
}

fn random() -> Result<u64, getrandom::Error> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

#[derive(Default)]
struct Connection {
    /// Counts up, so that news of earlier ones are known.
    number: u64,
    task: Option<AbortHandle>,
    out: Option<mpsc::Sender<AgentMessage>>,
    channel: Option<Channel>,
}

type Certified = Result<agent_core::Certificate, (Failure, String)>;

struct Agent {
    core: Core,
    has_certificate: bool,
    epoch: u64,
    target: Target,
    spool: SpoolHandle,
    sink: Sink,
    clock: Arc<dyn Clock>,
    begin: Instant,
    news: mpsc::Sender<(u64, News)>,
    connection: Connection,
    /// Enrolments and renewals under way, and connections (which say nothing at their end).
    tasks: JoinSet<Option<Certified>>,
    counted: Counts,
    wake_ms: u64,
    /// Records of the batch that was cut last, and its end.
    ahead: Option<(u64, Vec<Numbered>)>,
    /// For people; written when it says something new, not all the time.
    report: Report,
    report_at_ms: u64,
    reported_ms: Option<u64>,
    /// Used and all, in bytes, as last seen.
    spool_used: (u64, u64),
}

impl Agent {
    fn now(&self) -> Now {
        let mono_ms = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { mono_ms, unix_ms: self.clock.now().millis() }
    }

    async fn live(mut self, mut heard: mpsc::Receiver<(u64, News)>, waiting: Amount, stop: Stop) {
        self.step(Input::Start).await;
        self.step(Input::Spooled { records: waiting.records, bytes: waiting.bytes }).await;
        loop {
            // Within a day something is looked at in any case.
            let next_ms = self.wake_ms.min(self.report_at_ms);
            let wait_ms = next_ms.saturating_sub(self.now().mono_ms).min(86_400_000);
            tokio::select! {
                () = stop.requested() => break,
                Some((number, news)) = heard.recv() => {
                    if number == self.connection.number {
                        self.take(news).await;
                    }
                }
                Some(done) = self.tasks.join_next() => {
                    if let Ok(Some(certified)) = done {
                        self.certified(certified).await;
                    }
                }
                Ok(()) = self.spool.counts.changed() => {
                    let counts = *self.spool.counts.borrow_and_update();
                    let records = counts.records - self.counted.records;
                    let bytes = counts.bytes - self.counted.bytes;
                    self.counted = counts;
                    if records > 0 {
                        self.step(Input::Spooled { records, bytes }).await;
                    }
                }
                () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {
                    if self.wake_ms <= self.now().mono_ms {
                        self.wake_ms = u64::MAX;
                        self.step(Input::Timer).await;
                    }
                    if self.report_at_ms <= self.now().mono_ms {
                        self.write_report().await;
                    }
                }
            }
        }
        self.stand(Standing::Stopped);
        self.write_report().await;
        self.step(Input::Stop).await;
    }

    fn stand(&mut self, standing: Standing) {
        if self.report.standing != standing {
            self.report.standing = standing;
            self.report.since_unix_ms = self.clock.now().millis();
        }
        self.report_soon();
    }

    fn report_soon(&mut self) {
        let at_ms = self.reported_ms.map_or(0, |last| last.saturating_add(REPORT_EVERY_MS));
        self.report_at_ms = self.report_at_ms.min(at_ms);
    }

    async fn write_report(&mut self) {
        self.report_at_ms = u64::MAX;
        self.reported_ms = Some(self.now().mono_ms);
        let status = self.status().await;
        let (now_ms, current) = (self.clock.now().millis(), self.target.identity.current());
        let report = &mut self.report;
        report.written_unix_ms = now_ms;
        report.certificate = current.filter(|_| self.has_certificate).map(|current| Shown {
            agent_id: current.agent_id.clone(),
            not_after_unix_s: current.not_after_unix_s,
            renew_after_unix_s: times(&current).renew_after_unix_s,
        });
        report.rss_bytes = status.rss_bytes;
        report.waiting = Waiting {
            records: status.spool_records,
            bytes: status.spool_bytes,
            lag_ms: status.lag_ms,
            used_bytes: self.spool_used.0,
            max_bytes: self.spool_used.1,
            dropped: status.dropped,
        };
        if let Err(error) = report.write(&self.target.settings.data_dir) {
            tracing::debug!(%error, "cannot write what `sm-agent status` shows");
        }
    }

    async fn take(&mut self, news: News) {
        match news {
            News::Up(out, channel) => {
                self.connection.out = Some(out);
                self.connection.channel = Some(channel);
                self.step(Input::Connected).await;
            }
            News::Down(failure, why) => {
                tracing::warn!(why, "no connection to {}: {why}", self.target.settings.ingest);
                self.report.last_failure = Some(why);
                self.connection = Connection { number: self.connection.number, ..Connection::default() };
                self.step(Input::Disconnected(failure)).await;
            }
            News::Message(message) => match message.body {
                Some(server_message::Body::Welcome(welcome)) => {
                    self.step(Input::Welcome(welcome)).await;
                    self.report.clock_ahead_ms = Some(self.core.offset_ms());
                }
                Some(server_message::Body::Ack(ack)) => self.step(Input::Ack(ack)).await,
                Some(server_message::Body::Policy(policy)) => self.step(Input::Policy(policy)).await,
                Some(server_message::Body::RetryLater(later)) => {
                    tracing::warn!(reason = later.reason, "the server asks to come back later");
                    self.step(Input::RetryLater { after_ms: later.after_ms }).await;
                }
                Some(server_message::Body::MitigateRequest(request)) => {
                    // Of the words that every agent knows. Nothing is done here yet.
                    let answer = MitigateResponse {
                        request_id: request.request_id,
                        success: false,
                        error_message: "Unknown mitigation action".to_owned(),
                    };
                    self.send(agent_message::Body::MitigateResponse(answer)).await;
                }
                // Of a server that knows more.
                None => {}
            },
        }
    }

    async fn certified(&mut self, certified: Certified) {
        let result = certified.map_err(|(failure, why)| {
            tracing::warn!(why, "no certificate: {why}");
            self.report.last_failure = Some(why);
            failure
        });
        self.report_soon();
        if result == Err(Failure::Unsupported) {
            self.has_certificate = false;
        }
        self.step(Input::Certified(result)).await;
    }

    /// Tells the core, does what it says, and tells it what came of that.
    async fn step(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for output in self.core.step(self.now(), input) {
                if let Some(input) = self.perform(output, &mut inputs).await {
                    inputs.push_back(input);
                }
            }
        }
    }

    async fn perform(&mut self, output: Output, more: &mut VecDeque<Input>) -> Option<Input> {
        match output {
            Output::Enrol => {
                let target = self.target.clone();
                self.tasks.spawn(async move { Some(target.enrol().await) });
            }
            Output::Renew => match self.connection.channel.clone() {
                Some(channel) => {
                    let target = self.target.clone();
                    self.tasks.spawn(async move { Some(target.renew(channel).await) });
                }
                None => return Some(Input::Certified(Err(Failure::Unreachable))),
            },
            Output::Connect => {
                self.leave();
                let (target, number) = (self.target.clone(), self.connection.number);
                let (with_certificate, news) = (self.has_certificate, self.news.clone());
                let task = async move {
                    target.run(number, with_certificate, news).await;
                    None
                };
                self.connection.task = Some(self.tasks.spawn(task));
            }
            Output::Disconnect => self.disconnect(),
            Output::Hello { first_unacked } => {
                let host = &self.target.host;
                let given = self.target.identity.current().map(|current| current.agent_id);
                let given = given.filter(|id| self.has_certificate && !id.is_empty());
                let hello = Hello {
                    agent_id: given.unwrap_or_default(),
                    machine_id: host.machine_id.clone(),
                    boot_id: host.boot_id.clone(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    capabilities: self.target.capabilities.to_vec(),
                    os_type: host.os_type.clone(),
                    os_version: host.os_version.clone(),
                    hostname: self.target.settings.host.clone(),
                    ip_address: host.ip_address.clone(),
                    spool_epoch: self.epoch,
                    first_unacked,
                };
                self.send(agent_message::Body::Hello(hello)).await;
            }
            Output::Cut { from_seq, records_max, bytes_max, sent_unix_ms } => {
                let ask = Ask { from_seq, records_max, bytes_max, sent_unix_ms };
                let (cut, records) = self.spool.cut(ask).await.unzip();
                self.ahead = cut.zip(records).map(|(cut, records)| (cut.through_seq, records));
                return Some(Input::Cut(cut));
            }
            Output::Send(sent) => return self.send_batch(sent).await,
            Output::SendStatus => {
                let status = self.status().await;
                self.send(agent_message::Body::Status(status)).await;
            }
            Output::Heartbeat => {
                let event = log_event(self.clock.now(), "heartbeat", "agent alive".to_owned(), &[]);
                if !self.sink.offer(vec![passing("heartbeat", event)]) {
                    tracing::debug!("no room for a heartbeat");
                }
                self.report_soon();
            }
            Output::Forget { through_seq } => self.spool.forget(through_seq).await,
            Output::NewEpoch => {
                let epoch = random().unwrap_or_else(|_| self.epoch.wrapping_add(1));
                tracing::warn!("this spool is an old copy of one that went on: it takes another name");
                self.ahead = None;
                if let Some((restored, Amount { records, bytes })) = self.spool.rename(epoch).await {
                    let Restored { epoch, .. } = restored;
                    self.epoch = epoch;
                    more.push_back(Input::Renamed(restored));
                    return Some(Input::Spooled { records, bytes });
                }
            }
            Output::Wake { mono_ms } => self.wake_ms = mono_ms,
            Output::Log(line) => self.log(line),
        }
        None
    }

    /// What was handed to the connection goes on its way, then the server ends it, or we do.
    fn leave(&mut self) {
        if let Some(task) = self.connection.task.take().filter(|task| !task.is_finished()) {
            self.tasks.spawn(async move {
                tokio::time::sleep(LEAVE_MAX).await;
                task.abort();
                None
            });
        }
        self.connection = Connection { number: self.connection.number + 1, ..Connection::default() };
    }

    fn disconnect(&mut self) {
        if let Some(task) = self.connection.task.take() {
            task.abort();
        }
        self.connection = Connection { number: self.connection.number + 1, ..Connection::default() };
    }

    /// Hands a message to the connection, if there is one. A server that takes nothing is left.
    async fn send(&mut self, body: agent_message::Body) {
        let Some(out) = &self.connection.out else { return };
        let message = AgentMessage { body: Some(body) };
        if !matches!(tokio::time::timeout(SEND_MAX, out.send(message)).await, Ok(Ok(()))) {
            // The task says why, if it is not this.
            self.connection.out = None;
            let number = self.connection.number;
            let down = News::Down(Failure::Unreachable, "the server takes nothing".to_owned());
            let _ = self.news.try_send((number, down));
        }
    }

    async fn send_batch(&mut self, sent: Sent) -> Option<Input> {
        // A batch that was just cut came with its records.
        let ahead = self.ahead.take().filter(|(through_seq, _)| *through_seq == sent.through_seq);
        let records = match ahead {
            Some((_, records)) if records.first().is_some_and(|first| first.seq == sent.first_seq) => records,
            Some(_) | None => match self.spool.read(sent).await {
                Some(records) => records,
                // They are there: nothing of it may be taken for given up.
                None => {
                    self.disconnect();
                    return Some(Input::Disconnected(Failure::Unreachable));
                }
            },
        };
        let last = records.last().map(|numbered| numbered.seq);
        // Numbers without a record cut it in two: a batch counts up without a hole.
        let mut run: Vec<Numbered> = Vec::new();
        let mut runs = Vec::new();
        for numbered in records {
            if run.last().is_some_and(|before| before.seq + 1 != numbered.seq) {
                runs.push(std::mem::take(&mut run));
            }
            run.push(numbered);
        }
        runs.push(run);
        for run in runs {
            let Some(first_seq) = run.first().map(|numbered| numbered.seq) else { continue };
            let records = run.into_iter().map(numbered).collect();
            let batch = Batch { epoch: self.epoch, first_seq, sent_unix_ms: sent.sent_unix_ms, records };
            self.send(agent_message::Body::Batch(batch)).await;
        }
        (last != Some(sent.through_seq)).then_some(Input::Left { sent, last })
    }

    async fn status(&mut self) -> Status {
        let look = self.spool.look().await;
        self.spool_used = (look.used_bytes, look.max_bytes);
        let lag_ms = look.oldest_unix_ms.map_or(0, |oldest| self.clock.now().millis().saturating_sub(oldest));
        Status {
            spool_records: look.held.records,
            spool_bytes: look.held.bytes,
            lag_ms: lag_ms.try_into().unwrap_or(0),
            dropped: look.dropped,
            collectors: self.report.not_running.clone(),
            rss_bytes: rss_bytes(),
        }
    }

    fn log(&mut self, line: Line) {
        match line {
            Line::Online => {
                self.stand(Standing::Connected);
                tracing::info!("the session stands");
            }
            Line::Offline { failure, retry_ms } => {
                self.stand(Standing::Apart);
                tracing::warn!(?failure, retry_ms, "not connected; trying again");
            }
            Line::NothingToShow => {
                self.stand(Standing::Apart);
                tracing::error!("no certificate and no token: set SM_TOKEN; records are kept meanwhile");
            }
            Line::Certified { not_after_unix_s } => tracing::info!(not_after_unix_s, "a certificate was given"),
            Line::NotCertified { failure, retry_ms } => {
                self.report_soon();
                tracing::warn!(?failure, retry_ms, "no certificate was given; trying again");
            }
            Line::ImpossibleAck { through_seq } => {
                tracing::error!(through_seq, "the server acknowledged what it was never sent");
            }
            Line::Silent => tracing::warn!("no acknowledgement in time"),
        }
    }
}

/// With its number. Whose it is the server knows by the connection, so organisation and host stay empty.
fn numbered(numbered: Numbered) -> Record {
    let Numbered { seq, mut record } = numbered;
    match &mut record.body {
        Some(record::Body::Log(log)) => log.seq = seq,
        Some(record::Body::Metric(metric)) => metric.seq = seq,
        None => {}
    }
    record
}

/// Resident memory of this process.
fn rss_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident = pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    resident.saturating_mul(rustix::param::page_size() as u64)
}
