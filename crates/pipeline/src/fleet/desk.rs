//! What the gateway asks, answered.

use super::events::{self, About};
use super::registry::{SessionNumber, Standing};
use super::{AWAY, Fleet, Inner, Issued, away};
use async_trait::async_trait;
use connectors::inputs::grpc::{Desk, Identity, Login, Refusal, Session};
use model::{AgentId, ErrorKind, Timestamp};
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use storage::catalog::fleet::{Agent, Enrolled, Enrolment, Fingerprint, HostFacts, TokenLogin};
use tokio::sync::mpsc;
use wire::{
    AuthRequest, BatchAck, EnrollRequest, EnrollResponse, Hello, MitigateRequest, MitigateResponse, Status, Welcome,
};

/// The one sentence for all that is wrong with a token (contract security-manager §2.1).
const BAD_TOKEN: Refusal = Refusal::Credentials("Invalid org_id or token");
/// Told to whoever has such a token, and to nobody else.
const FOR_ENROLMENT: Refusal =
    Refusal::Credentials("this token is for enrolment: use it over TLS, or make one that old agents may use");
const BAD_CERTIFICATE: Refusal = Refusal::Credentials("this certificate is not one of an agent here");
const REVOKED: Refusal = Refusal::Credentials("this agent was revoked");
const TOKEN_BYTES_MAX: usize = 512;
const STATUS_BYTES_MAX: usize = 16 * 1024;
const FACT_CHARS_MAX: usize = 128;
const CAPABILITIES_MAX: usize = 64;

#[async_trait]
impl Desk for Fleet {
    async fn authenticate(&self, request: AuthRequest, _peer: SocketAddr) -> Result<Login, Refusal> {
        let fleet = &*self.0;
        let (login, now) = fleet.token(&request.token).await?;
        let org = &login.token.org;
        let is_named = request.org_id.is_empty() || request.org_id == org.as_str();
        if !is_named {
            return Err(BAD_TOKEN);
        }
        if !login.token.legacy {
            return Err(FOR_ENROLMENT);
        }
        let facts = facts_of_login(&request);
        // What is behind the organisation and the time: old agents call their host so.
        let tail = request.token.strip_prefix("sm_").and_then(|rest| rest.splitn(3, '_').nth(2));
        let registers = !facts.hostname.is_empty() && !facts.ip_address.is_empty();
        let mut identity = Identity {
            org: org.clone(),
            agent: format!("token-{}", login.token.id).into(),
            host: login.token.host.as_deref().unwrap_or(&facts.hostname).into(),
            alias: tail.map(Arc::from),
            any_host: login.token.host.is_none() && (facts.hostname.is_empty() || org.as_str() == events::DEMO_ORG),
        };
        let mut registered = false;
        if registers {
            let enrolment = fleet.enrolment(&login, None, facts, None, now)?;
            match fleet.store()?.enrol(enrolment).await.map_err(|error| away(&error))? {
                Enrolled::New { agent, instead_of } => {
                    fleet.tell_new(&agent, instead_of.as_deref()).await;
                    identity.host = agent.host.as_str().into();
                    identity.agent = agent.id.into();
                    registered = true;
                }
                Enrolled::Again(agent) => {
                    identity.host = agent.host.as_str().into();
                    identity.agent = agent.id.into();
                    registered = true;
                }
                Enrolled::BadToken => return Err(BAD_TOKEN),
                Enrolled::Revoked => return Err(REVOKED),
                // It is let in as it always was, only the fleet does not list it.
                Enrolled::TooMany => {}
            }
        } else if let Err(error) = fleet.store()?.token_used(login.token.id, now).await {
            tracing::debug!(%error, "the use of a token could not be noted");
        }
        let mut registry = fleet.registry();
        registry.know(&identity, None, Some(login.fingerprint));
        registry.seen(&identity, now);
        Ok(Login { identity, registered })
    }

    async fn enrol(&self, request: EnrollRequest, peer: SocketAddr) -> Result<EnrollResponse, Refusal> {
        let fleet = &*self.0;
        let (login, now) = fleet.token(&request.token).await?;
        let Some(key) = fleet.issuer.key_of(&request.csr_der) else {
            return Err(Refusal::Invalid("the request for a certificate does not prove that you have its key"));
        };
        let facts = facts_of_enrolment(&request);
        if facts.hostname.is_empty() {
            return Err(Refusal::Invalid("the request names no host"));
        }
        let ends_at = now.plus(fleet.issuer.life());
        let enrolment = fleet.enrolment(&login, Some(key), facts, Some(ends_at), now)?;
        let (agent, is_new) = match fleet.store()?.enrol(enrolment).await.map_err(|error| away(&error))? {
            Enrolled::New { agent, instead_of } => {
                fleet.tell_new(&agent, instead_of.as_deref()).await;
                (agent, true)
            }
            Enrolled::Again(agent) => (agent, false),
            Enrolled::BadToken => return Err(BAD_TOKEN),
            Enrolled::Revoked => return Err(REVOKED),
            Enrolled::TooMany => {
                return Err(Refusal::Credentials("this organisation has as many agents as it may have"));
            }
        };
        let issued = fleet.issuer.certify(&request.csr_der, &agent.org, &agent.id).ok_or(AWAY)?;
        fleet.registry().know(&identity_of(&agent), Some(key), None);
        tracing::info!(org = %agent.org, agent = agent.id, host = agent.host, is_new, peer.address = %peer, "an agent was enrolled");
        Ok(response(&agent.id, issued))
    }

    async fn renew(&self, who: &Identity, csr_der: &[u8]) -> Result<EnrollResponse, Refusal> {
        let fleet = &*self.0;
        self.check(who)?;
        let proven = fleet.issuer.key_of(csr_der);
        let known = fleet.registry().get(&who.org, &who.agent).and_then(|entry| entry.key);
        // Whoever holds the connection has the old key; another would be another agent.
        if proven.is_none() || proven != known {
            return Err(Refusal::Invalid("a certificate is renewed for the key that the connection shows"));
        }
        let issued = fleet.issuer.certify(csr_der, &who.org, &who.agent).ok_or(AWAY)?;
        match fleet.store()?.renewed(&who.org, &who.agent, issued.ends_at).await {
            Ok(()) => Ok(response(&who.agent, issued)),
            Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::NotFound) => {
                fleet.bar(&who.org, &who.agent);
                Err(REVOKED)
            }
            Err(error) => Err(away(&error)),
        }
    }

    async fn identify(&self, certificate_der: &[u8]) -> Result<Identity, Refusal> {
        let fleet = &*self.0;
        let (org, id, key) = fleet.issuer.agent_of(certificate_der).ok_or(BAD_CERTIFICATE)?;
        let known = fleet.registry().get(&org, &id).filter(|entry| entry.key == Some(key)).map(|e| e.identity.clone());
        if let Some(identity) = known {
            self.check(&identity)?;
            return Ok(identity);
        }
        let agent = match fleet.store()?.agent(&org, &id).await {
            Ok(agent) => agent,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(BAD_CERTIFICATE),
            Err(error) => return Err(away(&error)),
        };
        if agent.revoked_at.is_some() {
            fleet.bar(&org, &id);
            return Err(REVOKED);
        }
        if agent.key != Some(key) {
            return Err(BAD_CERTIFICATE);
        }
        let identity = identity_of(&agent);
        self.check(&identity)?;
        let mut registry = fleet.registry();
        registry.know(&identity, Some(key), None);
        registry.remember_spool(&identity, agent.epoch, agent.acked_seq);
        Ok(identity)
    }

    fn check(&self, who: &Identity) -> Result<(), Refusal> {
        if self.0.is_barred(&who.org, &who.agent) { Err(REVOKED) } else { Ok(()) }
    }

    fn open(&self, who: &Identity, hello: &Hello, peer: SocketAddr) -> Box<dyn Session> {
        let fleet = &self.0;
        let mut facts = facts_of_greeting(hello);
        if facts.ip_address.is_empty() {
            facts.ip_address = peer.ip().to_string();
        }
        let now = fleet.clock.now();
        let opened = fleet.registry().open(who, hello, facts, now);
        let acked = match opened.spool {
            Standing::Acked(acked) => acked,
            Standing::Copied { is_news } => {
                if is_news {
                    let (fleet, who) = (Arc::clone(fleet), who.clone());
                    tokio::spawn(async move { fleet.tell_copied(&who).await });
                }
                tracing::warn!(org = %who.org, agent = %who.agent, "a copy of a host must take another name for its spool");
                // Beyond every number that it can have: so it does.
                Some(u64::MAX)
            }
        };
        let is_copied = matches!(opened.spool, Standing::Copied { .. });
        let acked = acked.map(|through_seq| BatchAck { epoch: hello.spool_epoch, through_seq });
        let welcome = Welcome {
            server_time_unix_ms: now.millis(),
            heartbeat_interval_seconds: i64::try_from(fleet.config.heartbeat.as_secs()).unwrap_or(30),
            acked,
            policy: None,
        };
        Box::new(OpenSession { fleet: Arc::clone(fleet), who: who.clone(), number: opened.number, welcome, is_copied })
    }

    fn heard(&self, who: &Identity) {
        let now = self.0.clock.now();
        self.0.registry().seen(who, now);
    }

    fn commands(&self, who: &Identity) -> mpsc::Receiver<MitigateRequest> {
        let now = self.0.clock.now();
        self.0.registry().take_commands(who, now)
    }

    fn answered(&self, who: &Identity, response: MitigateResponse) {
        tracing::info!(
            org = %who.org,
            agent = %who.agent,
            request = %bounded(&response.request_id),
            success = response.success,
            "an agent answered a command"
        );
    }
}

impl Fleet {
    /// Gives a command to the agent of a host, now or within ten minutes when it comes. `false`: too many wait.
    pub fn command(&self, who: &Identity, command: MitigateRequest) -> bool {
        let now = self.0.clock.now();
        self.0.registry().command(who, command, now)
    }
}

impl Inner {
    /// The token, if it counts now.
    async fn token(&self, token: &str) -> Result<(TokenLogin, Timestamp), Refusal> {
        let now = self.clock.now();
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return Err(BAD_TOKEN);
        }
        // What follows the point names the authority: no secret, and another after a change of it.
        let secret = token.split_once('.').map_or(token, |(secret, _)| secret);
        let fingerprint: Fingerprint = Sha256::digest(secret.as_bytes()).into();
        let found = self.store()?.token_login(&fingerprint).await.map_err(|error| away(&error))?;
        let login = found.filter(|login| counts(login, now)).ok_or(BAD_TOKEN)?;
        Ok((login, now))
    }

    fn enrolment(
        &self,
        login: &TokenLogin,
        key: Option<Fingerprint>,
        facts: HostFacts,
        certificate_ends_at: Option<Timestamp>,
        at: Timestamp,
    ) -> Result<Enrolment, Refusal> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|_| AWAY)?;
        let id = AgentId::from_u128(u128::from_le_bytes(bytes)).to_string();
        let token = &login.token;
        Ok(Enrolment { org: token.org.clone(), token: token.id, id, key, facts, certificate_ends_at, at })
    }

    async fn tell_new(&self, agent: &Agent, instead_of: Option<&str>) {
        self.tell(agent, About::Enrolled).await;
        if let Some(old) = instead_of {
            self.bar(&agent.org, old);
            self.tell(agent, About::Replaced { old }).await;
        }
    }
}

/// Whether a token counts.
pub(super) fn counts(login: &TokenLogin, now: Timestamp) -> bool {
    !login.org_disabled && login.token.revoked_at.is_none() && now < login.token.expires_at
}

fn identity_of(agent: &Agent) -> Identity {
    Identity {
        org: agent.org.clone(),
        agent: agent.id.as_str().into(),
        host: agent.host.as_str().into(),
        alias: None,
        any_host: false,
    }
}

fn response(agent_id: &str, issued: Issued) -> EnrollResponse {
    EnrollResponse {
        agent_id: agent_id.to_owned(),
        certificate_chain_der: issued.chain_der,
        ca_bundle_der: issued.bundle_der,
        not_after_unix_s: issued.ends_at.secs(),
        renew_after_unix_s: issued.renew_at.secs(),
    }
}

/// A text of a host for people to read: no control characters, not without end.
fn bounded(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(FACT_CHARS_MAX).collect::<String>().trim().to_owned()
}

fn capabilities(all: &[String]) -> Vec<String> {
    all.iter().take(CAPABILITIES_MAX).map(|capability| bounded(capability)).collect()
}

fn facts_of_login(request: &AuthRequest) -> HostFacts {
    HostFacts {
        hostname: bounded(&request.hostname),
        machine_id: String::new(),
        boot_id: String::new(),
        version: bounded(&request.agent_version),
        os_type: bounded(&request.os_type),
        os_version: bounded(&request.os_version),
        ip_address: bounded(&request.ip_address),
        capabilities: capabilities(&request.capabilities),
    }
}

fn facts_of_enrolment(request: &EnrollRequest) -> HostFacts {
    HostFacts {
        hostname: bounded(&request.hostname),
        machine_id: bounded(&request.machine_id),
        boot_id: bounded(&request.boot_id),
        version: bounded(&request.agent_version),
        os_type: bounded(&request.os_type),
        os_version: bounded(&request.os_version),
        ip_address: bounded(&request.ip_address),
        capabilities: capabilities(&request.capabilities),
    }
}

fn facts_of_greeting(hello: &Hello) -> HostFacts {
    HostFacts {
        hostname: bounded(&hello.hostname),
        machine_id: bounded(&hello.machine_id),
        boot_id: bounded(&hello.boot_id),
        version: bounded(&hello.version),
        os_type: bounded(&hello.os_type),
        os_version: bounded(&hello.os_version),
        ip_address: bounded(&hello.ip_address),
        capabilities: capabilities(&hello.capabilities),
    }
}

struct OpenSession {
    fleet: Arc<Inner>,
    who: Identity,
    number: SessionNumber,
    welcome: Welcome,
    is_copied: bool,
}

impl Session for OpenSession {
    fn welcome(&self) -> Welcome {
        self.welcome.clone()
    }

    fn heard(&mut self) -> Result<(), Refusal> {
        if self.fleet.is_barred(&self.who.org, &self.who.agent) {
            return Err(REVOKED);
        }
        if self.is_copied {
            return Err(Refusal::Later {
                after: Duration::from_secs(1),
                reason: "another host sends from the same spool: take another name for yours",
            });
        }
        let now = self.fleet.clock.now();
        self.fleet.registry().seen(&self.who, now);
        Ok(())
    }

    fn acked(&mut self, ack: BatchAck) {
        self.fleet.registry().acked(&self.who, ack.epoch, ack.through_seq);
    }

    fn status(&mut self, status: Status) {
        let status = events::status_text(&status, STATUS_BYTES_MAX);
        self.fleet.registry().status(&self.who, status);
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.fleet.registry().close(&self.who, self.number);
    }
}
