//! Calls that are one message and one answer.

use super::Refusal;
use super::connection::Line;
use super::messages::{Answer, Broken, Messages, Next, WORDS_BYTES_MAX};
use super::status::{Code, Status};
use std::borrow::Cow;
use tokio::time::{Instant, timeout};
use wire::{AuthRequest, AuthResponse, Bounded, EnrollRequest, EnrollResponse, RenewRequest};

impl Line {
    /// Binds an identity to the connection. A refusal is an answer, whatever the reason: old agents take an error of
    /// the call for the end of the world.
    pub(super) async fn authenticate(&self, messages: Messages, mut answer: Answer) {
        let request = match self.only::<AuthRequest>(messages).await {
            Ok(request) => request,
            Err(Broken::Gone) => return,
            Err(Broken::Wrong(status)) => return answer.end(&status),
        };
        let org = request.org_id.clone();
        let response = match self.admitted(|| self.hub.desk.authenticate(request, self.peer)).await {
            Ok(login) => {
                self.hub.observer.login(true);
                let identity = login.identity;
                tracing::debug!(org = %identity.org, host = %identity.host, peer.address = %self.peer, "an agent logged in");
                let agent_id = if login.registered { identity.agent.as_ref().to_owned() } else { String::new() };
                self.logged_in(identity);
                AuthResponse {
                    authenticated: true,
                    error_message: String::new(),
                    heartbeat_interval_seconds: i64::try_from(self.hub.config.heartbeat.as_secs()).unwrap_or(i64::MAX),
                    registered: login.registered,
                    agent_id,
                }
            }
            Err(refusal) => {
                self.hub.observer.login(false);
                // The organisation is what a stranger wrote: quoted, cut, and never with its token.
                let org: String = org.chars().take(64).collect();
                tracing::debug!(?org, peer.address = %self.peer, %refusal, "a login was refused");
                AuthResponse { error_message: refusal.to_string(), ..AuthResponse::default() }
            }
        };
        if answer.send(&response).await.is_ok() {
            answer.end(&Status::OK);
        }
    }

    /// A token for a certificate.
    pub(super) async fn enrol(&self, messages: Messages, answer: Answer) {
        let response = match self.only::<EnrollRequest>(messages).await {
            Ok(request) => {
                let response = self.admitted(|| self.hub.desk.enrol(request, self.peer)).await;
                self.hub.observer.login(response.is_ok());
                response.map_err(Broken::from)
            }
            Err(broken) => Err(broken),
        };
        certificate(answer, response).await;
    }

    /// A certificate for the one that the connection shows.
    pub(super) async fn renew(&self, messages: Messages, answer: Answer) {
        let response = match (self.only::<RenewRequest>(messages).await, self.certified().await) {
            (Err(broken), _) => Err(broken),
            (Ok(_), None) => {
                Err(Broken::Wrong(Status::new(Code::Unauthenticated, "this connection shows no certificate to renew")))
            }
            (Ok(_), Some(Err(status))) => Err(Broken::Wrong(status)),
            (Ok(request), Some(Ok(who))) => self.hub.desk.renew(&who, &request.csr_der).await.map_err(Broken::from),
        };
        certificate(answer, response).await;
    }

    /// Asks, unless this address was wrong too often; counts whether it is.
    async fn admitted<T, F>(&self, ask: impl FnOnce() -> F) -> Result<T, Refusal>
    where
        F: Future<Output = Result<T, Refusal>>,
    {
        let ip = self.peer.ip();
        self.hub
            .throttle()
            .ask(ip, Instant::now())
            .map_err(|after| Refusal::Later { after, reason: "too many wrong tokens from this address" })?;
        let answer = ask().await;
        if let Err(Refusal::Credentials(_)) = answer {
            self.hub.throttle().wrong(ip, Instant::now());
        }
        answer
    }

    /// The one message of the call.
    async fn only<M: Bounded>(&self, mut messages: Messages) -> Result<M, Broken> {
        let wrong = |code, text: Cow<'static, str>| Err(Broken::Wrong(Status::new(code, text)));
        messages.bound(WORDS_BYTES_MAX);
        match timeout(self.hub.config.message_timeout, messages.next()).await {
            Ok(Ok(Next::Message(message))) => Ok(message),
            Ok(Ok(Next::Bad(error, _))) => wrong(Code::InvalidArgument, error.to_string().into()),
            Ok(Ok(Next::End)) => wrong(Code::InvalidArgument, "the call came without its message".into()),
            Ok(Err(broken)) => Err(broken),
            Err(_) => wrong(Code::DeadlineExceeded, "the message did not come in time".into()),
        }
    }
}

impl From<Refusal> for Broken {
    fn from(refusal: Refusal) -> Self {
        Self::Wrong(refusal.into())
    }
}

async fn certificate(mut answer: Answer, response: Result<EnrollResponse, Broken>) {
    match response {
        Ok(response) => {
            if answer.send(&response).await.is_ok() {
                answer.end(&Status::OK);
            }
        }
        Err(Broken::Gone) => {}
        Err(Broken::Wrong(status)) => answer.end(&status),
    }
}
