//! Whether a control plane is who it should be.
//!
//! There are two kinds of authorities. Those of the control plane itself (the one whose fingerprint is in the token,
//! those that were given at enrolment) speak for nobody else, so a certificate of theirs may carry the server's real
//! name or [`OWN_NAME`]. Those of a file or of the system speak for many, so only the real name will do.

mod token;

pub use token::{Fingerprint, Found, look, secret_part};

use crate::tls::{TlsError, client_roots};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::path::Path;
use std::sync::Arc;

/// What a control plane is called in certificates of its own authority, wherever it runs.
pub const OWN_NAME: &str = "control-plane.muttd";

/// By whose word a server is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The authority whose fingerprint is in the token.
    Fingerprint,
    /// An authority that was given at enrolment.
    Enrolment,
    /// One of those that were named, or of the system's.
    Named,
}

/// Nothing that the server shows is what the token names.
#[derive(Debug, thiserror::Error)]
#[error("the server shows no certificate with the fingerprint in the token ({0})")]
struct OtherAuthority(Fingerprint);

/// Whom to believe.
#[derive(Debug, Clone)]
pub struct Judge {
    /// What the token says of the authority.
    pub fingerprint: Option<Fingerprint>,
    /// Given at enrolment.
    pub enrolment: RootCertStore,
    /// Those of a file, or of the system.
    pub named: RootCertStore,
    /// What signatures are checked with.
    pub provider: Arc<CryptoProvider>,
}

impl Judge {
    /// For somebody who was never enrolled: by the fingerprint, else by the file, else by the system.
    pub fn new(fingerprint: Option<Fingerprint>, ca_file: Option<&Path>) -> Result<Self, TlsError> {
        let named = match (fingerprint, ca_file) {
            (Some(_), None) => RootCertStore::empty(),
            (_, ca_file) => client_roots(ca_file)?,
        };
        Ok(Self { fingerprint, enrolment: RootCertStore::empty(), named, provider: crate::tls::provider() })
    }

    /// Looks for somebody to believe; else says why the nearest was not.
    pub fn judge(
        &self,
        server: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<Word, Error> {
        let certificate = ParsedCertificate::try_from(server)?;
        let signed = |roots: &RootCertStore| {
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, others, now, algorithms)
        };
        let own_name = ServerName::try_from(OWN_NAME).expect("a name");
        let of_its_own = |roots: &RootCertStore| {
            signed(roots)?;
            verify_server_name(&certificate, name).or_else(|error| {
                // The real name is what an operator looks for.
                verify_server_name(&certificate, &own_name).map_err(|_| error)
            })
        };
        let mut why = None;
        if !self.enrolment.is_empty() {
            match of_its_own(&self.enrolment) {
                Ok(()) => return Ok(Word::Enrolment),
                Err(error) => why = Some(error),
            }
        }
        if let Some(fingerprint) = self.fingerprint {
            // The only root: what else the server shows proves nothing.
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(
                others.iter().filter(|der| Fingerprint::of(der) == fingerprint).map(|der| der.clone().into_owned()),
            );
            let judged = if roots.is_empty() {
                Err(CertificateError::Other(OtherError(Arc::new(OtherAuthority(fingerprint)))).into())
            } else {
                of_its_own(&roots)
            };
            match judged {
                Ok(()) => return Ok(Word::Fingerprint),
                Err(error) => why = why.or(Some(error)),
            }
        }
        if !self.named.is_empty() {
            match signed(&self.named).and_then(|()| verify_server_name(&certificate, name)) {
                Ok(()) => return Ok(Word::Named),
                Err(error) => why = why.or(Some(error)),
            }
        }
        Err(why.unwrap_or_else(|| CertificateError::UnknownIssuer.into()))
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(server, others, name, now).map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, Certificate, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

    /// An authority; several certificates can be of its key.
    struct Authority {
        key: KeyPair,
        params: CertificateParams,
        root: Certificate,
    }

    impl Authority {
        fn new(name: &str) -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
            let root = params.self_signed(&key).unwrap();
            Self { key, params, root }
        }

        fn issuer(&self) -> Issuer<'_, &KeyPair> {
            Issuer::from_params(&self.params, &self.key)
        }

        fn root(&self) -> CertificateDer<'static> {
            self.root.der().clone()
        }

        /// This authority, by the word of another.
        fn signed_by(&self, other: &Self) -> CertificateDer<'static> {
            self.params.signed_by(&self.key, &other.issuer()).unwrap().der().clone()
        }

        fn leaf_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            change(&mut params);
            params.signed_by(&KeyPair::generate().unwrap(), &self.issuer()).unwrap().der().clone()
        }

        fn leaf(&self, name: &str) -> CertificateDer<'static> {
            self.leaf_with(name, |_| {})
        }

        fn fingerprint(&self) -> Option<Fingerprint> {
            Some(Fingerprint::of(self.root.der()))
        }
    }

    fn store(authorities: &[&Authority]) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority.root()).unwrap();
        }
        roots
    }

    fn judge(fingerprint: Option<Fingerprint>, enrolment: &[&Authority], named: &[&Authority]) -> Judge {
        let (enrolment, named) = (store(enrolment), store(named));
        Judge { fingerprint, enrolment, named, provider: crate::tls::provider() }
    }

    fn said(judge: &Judge, chain: &[CertificateDer<'static>]) -> Result<Word, String> {
        let name = ServerName::try_from("real.example").unwrap();
        let (server, others) = chain.split_first().unwrap();
        judge.judge(server, others, &name, UnixTime::now()).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn a_server_is_believed_by_the_authority_that_the_token_names() {
        let (ours, other) = (Authority::new("ours"), Authority::new("other"));
        let pinned = judge(ours.fingerprint(), &[], &[]);
        for name in ["real.example", OWN_NAME] {
            assert_eq!(said(&pinned, &[ours.leaf(name), ours.root()]), Ok(Word::Fingerprint), "{name}");
        }
        let odd = |chain: &[CertificateDer<'static>], why: &str| {
            let found = said(&pinned, chain).unwrap_err();
            assert!(found.contains(why), "{found} is not {why}");
        };
        odd(&[ours.leaf("elsewhere.example"), ours.root()], "NotValidForName");
        odd(&[other.leaf(OWN_NAME), other.root()], "OtherAuthority");
        odd(&[other.leaf(OWN_NAME), other.root(), ours.root()], "UnknownIssuer");
        odd(&[ours.leaf(OWN_NAME)], "OtherAuthority");
        odd(&[ours.root()], "OtherAuthority");
        let expired = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        odd(&[ours.leaf_with(OWN_NAME, expired), ours.root()], "Expired");
        // What agents have is no certificate of a server.
        let agents =
            |params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        odd(&[ours.leaf_with(OWN_NAME, agents), ours.root()], "InvalidPurpose");
        assert!(said(&pinned, &[CertificateDer::from(vec![1, 2, 3])]).is_err());
    }

    #[test]
    fn who_is_named_by_a_file_speaks_for_the_real_name_only() {
        let (ours, public) = (Authority::new("ours"), Authority::new("public"));
        let named = judge(None, &[], &[&public]);
        assert_eq!(said(&named, &[public.leaf("real.example")]), Ok(Word::Named));
        assert!(said(&named, &[public.leaf(OWN_NAME)]).unwrap_err().contains("NotValidForName"));
        // Beside the control plane's own authority it is another way, with its own rule.
        let both = judge(ours.fingerprint(), &[], &[&public]);
        assert_eq!(said(&both, &[public.leaf("real.example")]), Ok(Word::Named));
        assert!(said(&both, &[public.leaf(OWN_NAME), ours.root()]).is_err());
        assert_eq!(said(&both, &[ours.leaf(OWN_NAME), ours.root()]), Ok(Word::Fingerprint));
        assert!(said(&judge(None, &[], &[]), &[ours.leaf("real.example"), ours.root()]).is_err());
    }

    #[test]
    fn who_was_given_at_enrolment_is_believed_without_a_fingerprint() {
        let (ours, other) = (Authority::new("ours"), Authority::new("other"));
        let enrolled = judge(None, &[&ours], &[]);
        for name in ["real.example", OWN_NAME] {
            assert_eq!(said(&enrolled, &[ours.leaf(name)]), Ok(Word::Enrolment), "{name}");
        }
        assert!(said(&enrolled, &[other.leaf(OWN_NAME), other.root(), ours.root()]).is_err());
        assert!(said(&enrolled, &[ours.leaf("elsewhere.example")]).is_err());
    }

    #[test]
    fn while_the_authority_changes_both_the_old_and_the_new_are_enough() {
        let (old, new) = (Authority::new("old"), Authority::new("new"));
        let (leaf, cross) = (new.leaf(OWN_NAME), new.signed_by(&old));
        let chain = [leaf.clone(), cross.clone(), old.root()];
        let whole = [leaf, cross, old.root(), new.root()];
        for (who, judge, chain, word) in [
            ("old, by the token", judge(old.fingerprint(), &[], &[]), &chain[..], Word::Fingerprint),
            ("old, by the token, of all", judge(old.fingerprint(), &[], &[]), &whole[..], Word::Fingerprint),
            ("new, by the token", judge(new.fingerprint(), &[], &[]), &whole[..], Word::Fingerprint),
            ("old, by enrolment", judge(None, &[&old], &[]), &chain[..], Word::Enrolment),
            ("new, by enrolment", judge(None, &[&new], &[]), &chain[..], Word::Enrolment),
            ("both, by enrolment", judge(None, &[&old, &new], &[]), &chain[..], Word::Enrolment),
        ] {
            assert_eq!(said(&judge, chain), Ok(word), "{who}");
        }
    }
}
