//! Making certificates, and reading who one is of.

use super::kept::Kept;
use anyhow::{Context, Result};
use model::{OrgId, Timestamp};
use pipeline::fleet::Issued;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
const SERVER_LIFE: Duration = Duration::from_secs(90 * 86_400);
/// Clocks of hosts may be behind.
const BACK: Duration = Duration::from_secs(86_400);
/// In every certificate that is made here for a gateway: agents that know the root need no other name.
const GATEWAY_NAME: &str = "control-plane.muttd";
const AGENT_URI: &str = "urn:muttd:agent:";

fn at(time: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(time.secs()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn params(common_name: &str, now: Timestamp, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = at(now.minus(BACK));
    params.not_after = at(now.plus(life));
    params.use_authority_key_identifier_extension = true;
    params
}

fn root_params(name: &str, now: Timestamp) -> CertificateParams {
    let mut params = params(name, now, ROOT_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params
}

/// A key and its root certificate. No two roots have the same name.
pub(super) fn make_root(now: Timestamp) -> Result<(KeyPair, CertificateDer<'static>)> {
    let key = KeyPair::generate().context("failed to make a key")?;
    let digest = Sha256::digest(key.public_key_raw());
    let number: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let root = root_params(&format!("muttd agents {} {number}", now.day()), now).self_signed(&key)?;
    Ok((key, root.der().clone()))
}

/// The same root, signed by the one before.
pub(super) fn cross_sign(
    root: &CertificateDer<'_>,
    key: &KeyPair,
    before: &Issuer<'_, KeyPair>,
    now: Timestamp,
) -> Result<CertificateDer<'static>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(root).context("the root cannot be read")?;
    let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let cross = root_params(name.context("the root has no name")?, now).signed_by(key, before)?;
    Ok(cross.der().clone())
}

/// When a certificate ends.
pub(super) fn ends_at(der: &[u8]) -> Result<Timestamp> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).context("a certificate cannot be read")?;
    Ok(Timestamp::from_secs(parsed.validity().not_after.timestamp()))
}

/// See [`super::Authority::certify`].
pub(super) fn certify(
    kept: &Kept,
    request_der: &[u8],
    (org, agent): (&OrgId, &str),
    now: Timestamp,
    life: Duration,
) -> Result<Issued> {
    let request = CertificateSigningRequestParams::from_der(&request_der.into())
        .context("the request for a certificate is not sound")?;
    let mut params = params(agent, now, life);
    params.distinguished_name.push(DnType::OrganizationName, org.as_str());
    let uri = format!("{AGENT_URI}{org}:{agent}");
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&request.public_key, &kept.issuer()?)?;
    Ok(Issued {
        chain_der: vec![certificate.der().to_vec()],
        bundle_der: kept.roots().map(|root| root.to_vec()).collect(),
        ends_at: now.plus(life),
        // Half of its time is for trying.
        renew_at: now.plus(life / 2),
    })
}

/// SHA-256 of the key in a request, if the request proves that its maker has the key.
pub(super) fn key_of_request(request_der: &[u8]) -> Option<[u8; 32]> {
    let (_, request) = X509CertificationRequest::from_der(request_der).ok()?;
    request.verify_signature().ok()?;
    Some(Sha256::digest(request.certification_request_info.subject_pki.raw).into())
}

/// Organisation and id of the agent that a certificate of ours is of, and the SHA-256 of its key.
pub(super) fn agent_of(der: &[u8]) -> Option<(OrgId, String, [u8; 32])> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).ok()?;
    let names = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(names),
        _ => None,
    })?;
    let [GeneralName::URI(uri)] = names.general_names.as_slice() else { return None };
    let (org, agent) = uri.strip_prefix(AGENT_URI)?.split_once(':')?;
    Some((org.parse().ok()?, agent.to_owned(), Sha256::digest(parsed.public_key().raw).into()))
}

/// By what a gateway is found.
pub(super) struct Names(BTreeSet<String>);

impl Names {
    /// Those that are configured, and what this machine knows of itself.
    pub fn of(configured: &[String]) -> Self {
        let mut names: BTreeSet<String> = configured.iter().map(|name| name.trim().to_owned()).collect();
        names.extend([GATEWAY_NAME.to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()]);
        names.extend(rustix::system::uname().nodename().to_str().ok().map(str::to_owned));
        names.extend(addresses().iter().map(ToString::to_string));
        // Of a machine with very many addresses, not all: a handshake carries them.
        Self(names.into_iter().filter(|name| !name.is_empty()).take(64).collect())
    }
}

/// Addresses of this machine, as far as the kernel's files say.
fn addresses() -> BTreeSet<IpAddr> {
    let mut found = BTreeSet::new();
    let trie = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let mut before = None;
    for line in trie.lines() {
        let line = line.trim_start();
        if let Some(address) = line.strip_prefix("|-- ") {
            before = address.trim().parse::<IpAddr>().ok();
        } else if line.starts_with("/32 host LOCAL") {
            found.extend(before);
        }
    }
    let six = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    for line in six.lines() {
        let digits = line.get(..32).and_then(|digits| u128::from_str_radix(digits, 16).ok());
        // Not of a link alone: those have no meaning elsewhere.
        found.extend(digits.map(std::net::Ipv6Addr::from).filter(|a| !a.is_unicast_link_local()).map(IpAddr::V6));
    }
    found
}

/// What the gateway shows.
pub(super) struct Server {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// Where it was made here.
    pub ends_at: Option<Timestamp>,
}

/// A certificate for the gateway, by the root.
pub(super) fn certify_server(kept: &Kept, names: &Names, now: Timestamp) -> Result<Server> {
    let key = KeyPair::generate().context("failed to make a key")?;
    let mut params = params(GATEWAY_NAME, now, SERVER_LIFE);
    // A name that no certificate can carry is of no use to agents either.
    params.subject_alt_names = names
        .0
        .iter()
        .filter_map(|name| match name.parse::<IpAddr>() {
            Ok(address) => Some(SanType::IpAddress(address)),
            Err(_) => Some(SanType::DnsName(name.as_str().try_into().ok()?)),
        })
        .collect();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = params.signed_by(&key, &kept.issuer()?)?;
    let mut chain = vec![leaf.der().clone()];
    chain.extend(kept.previous.iter().flat_map(|previous| [previous.cross.clone(), previous.root.clone()]));
    // Agents that know no more than its fingerprint find it here.
    chain.push(kept.root.clone());
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    Ok(Server { chain, key, ends_at: Some(now.plus(SERVER_LIFE)) })
}

impl Server {
    #[cfg(test)]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// From files of others.
    pub fn read(cert: &Path, key: &Path) -> Result<Self> {
        let chain = CertificateDer::pem_file_iter(cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(|| format!("failed to read the gateway's certificate `{}`", cert.display()))?;
        anyhow::ensure!(!chain.is_empty(), "`{}` holds no certificate", cert.display());
        let key = PrivateKeyDer::from_pem_file(key)
            .with_context(|| format!("failed to read the gateway's key `{}`", key.display()))?;
        Ok(Self { chain, key, ends_at: None })
    }

    /// TLS 1.3, certificates of agents welcome and checked, none of the sessions resumed: each connection proves anew.
    pub fn config(self, kept: &Kept) -> Result<Arc<rustls::ServerConfig>> {
        let mut roots = rustls::RootCertStore::empty();
        for root in kept.roots() {
            roots.add(root.clone())?;
        }
        let provider = runtime::tls::provider();
        let agents = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(agents)
            .with_single_cert(self.chain, self.key)?;
        connectors::inputs::grpc::harden(&mut config);
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_knows_its_addresses() {
        let Names(names) = Names::of(&["agents.example".to_owned()]);
        for name in ["agents.example", "127.0.0.1", "::1", "localhost", GATEWAY_NAME] {
            assert!(names.contains(name), "{name} is not in {names:?}");
        }
        assert!(addresses().contains(&IpAddr::from([127, 0, 0, 1])));
    }

    #[test]
    fn nothing_but_one_uri_of_ours_names_an_agent() {
        let key = KeyPair::generate().unwrap();
        let of = |names: Vec<SanType>| {
            let mut params = params("x", Timestamp::from_secs(1_800_000_000), BACK);
            params.subject_alt_names = names;
            agent_of(params.self_signed(&key).unwrap().der()).map(|(org, agent, _)| (org.to_string(), agent))
        };
        let uri = |text: &str| SanType::URI(text.try_into().unwrap());
        let good = "urn:muttd:agent:acme:agt_1";
        assert_eq!(of(vec![uri(good)]), Some(("acme".to_owned(), "agt_1".to_owned())));
        assert_eq!(of(vec![]), None);
        assert_eq!(of(vec![uri("urn:muttd:agent:ac/me:agt_1")]), None);
        assert_eq!(of(vec![uri("https://example/acme:agt_1")]), None);
        assert_eq!(of(vec![uri(good), uri("urn:muttd:agent:other:agt_1")]), None, "two answers are none");
        assert_eq!(agent_of(b"no certificate"), None);
    }
}
