//! Keys, digests and ciphers of the User-based Security Model: RFC 3414 (MD5, SHA-1, DES), RFC 3826
//! (AES-128), RFC 7860 (SHA-2), and the two ways in which devices stretch keys for AES-192 and
//! AES-256, which no RFC has. Pure; the old algorithms are here because old devices have no others.

use aes::cipher::{AsyncStreamCipher, BlockDecryptMut, BlockEncryptMut, KeyIvInit, block_padding::NoPadding};
use aes::{Aes128, Aes192, Aes256};
use hmac::{Mac, SimpleHmac};
use md5::Md5;
use md5::digest::{Digest, KeyInit, core_api::BlockSizeUser};
use sha1::Sha1;
use sha2::{Sha224, Sha256, Sha384, Sha512};

/// How a user's messages are authenticated. In brackets: what RFCs and devices call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthProtocol {
    /// HMAC-MD5-96 (`usmHMACMD5AuthProtocol`).
    Md5,
    /// HMAC-SHA-96 (`usmHMACSHAAuthProtocol`, "SHA").
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// How a user's messages are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrivProtocol {
    /// CBC-DES (RFC 3414 §8).
    Des,
    /// CFB128-AES-128 (RFC 3826).
    Aes128,
    /// Keys stretched as in draft-blumenthal-aes-usm-04, net-snmp's `AES-192`.
    Aes192,
    /// Keys stretched as in draft-blumenthal-aes-usm-04, net-snmp's `AES-256`.
    Aes256,
    /// Keys stretched as in draft-reeder-snmpv3-usm-3desede, as Cisco does; net-snmp's `AES-192-C`.
    Aes192Cisco,
    /// Keys stretched as in draft-reeder-snmpv3-usm-3desede, as Cisco does; net-snmp's `AES-256-C`.
    Aes256Cisco,
}

/// Runs `$body` with `$D` as the digest of `$protocol`.
macro_rules! with_digest {
    ($protocol:expr, $D:ident => $body:expr) => {
        match $protocol {
            AuthProtocol::Md5 => {
                type $D = Md5;
                $body
            }
            AuthProtocol::Sha1 => {
                type $D = Sha1;
                $body
            }
            AuthProtocol::Sha224 => {
                type $D = Sha224;
                $body
            }
            AuthProtocol::Sha256 => {
                type $D = Sha256;
                $body
            }
            AuthProtocol::Sha384 => {
                type $D = Sha384;
                $body
            }
            AuthProtocol::Sha512 => {
                type $D = Sha512;
                $body
            }
        }
    };
}

impl AuthProtocol {
    pub const ALL: [Self; 6] = [Self::Md5, Self::Sha1, Self::Sha224, Self::Sha256, Self::Sha384, Self::Sha512];

    /// The name in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha224 => "sha224",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// Reads [`Self::as_str`], and net-snmp's names (`SHA`, `SHA-256`), in any case.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.trim().to_ascii_lowercase().replace('-', "");
        match plain.as_str() {
            "sha" => Some(Self::Sha1),
            other => Self::ALL.into_iter().find(|p| p.as_str() == other),
        }
    }

    /// Octets of the digest in a message.
    pub(super) const fn digest_len(self) -> usize {
        match self {
            Self::Md5 | Self::Sha1 => 12,
            Self::Sha224 => 16,
            Self::Sha256 => 24,
            Self::Sha384 => 32,
            Self::Sha512 => 48,
        }
    }
}

impl PrivProtocol {
    pub const ALL: [Self; 6] =
        [Self::Des, Self::Aes128, Self::Aes192, Self::Aes256, Self::Aes192Cisco, Self::Aes256Cisco];

    /// The name in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Des => "des",
            Self::Aes128 => "aes128",
            Self::Aes192 => "aes192",
            Self::Aes256 => "aes256",
            Self::Aes192Cisco => "aes192c",
            Self::Aes256Cisco => "aes256c",
        }
    }

    /// Reads [`Self::as_str`], and net-snmp's names (`AES`, `AES-256`, `AES-256-C`), in any case.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.trim().to_ascii_lowercase().replace('-', "");
        match plain.as_str() {
            "aes" => Some(Self::Aes128),
            other => Self::ALL.into_iter().find(|p| p.as_str() == other),
        }
    }

    const fn key_len(self) -> usize {
        match self {
            Self::Des | Self::Aes128 => 16,
            Self::Aes192 | Self::Aes192Cisco => 24,
            Self::Aes256 | Self::Aes256Cisco => 32,
        }
    }
}

/// A key made of a passphrase, or the one of it that belongs to an engine.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key(Vec<u8>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// The passphrase's own key: the digest of it, repeated to a megabyte (RFC 3414 §A.2). Takes
/// milliseconds. The passphrase must not be empty.
pub(super) fn passphrase_key(protocol: AuthProtocol, passphrase: &[u8]) -> Key {
    const MEGABYTE: usize = 1 << 20;
    let chunk: Vec<u8> = passphrase.iter().copied().cycle().take(passphrase.len().max(1) * 64).collect();
    Key(with_digest!(protocol, D => {
        let mut digest = D::new();
        let mut left = if passphrase.is_empty() { 0 } else { MEGABYTE };
        while left > 0 {
            let step = left.min(chunk.len());
            digest.update(&chunk[..step]);
            left -= step;
        }
        digest.finalize().to_vec()
    }))
}

/// The key of an engine (RFC 3414 §2.6).
pub(super) fn localise(protocol: AuthProtocol, key: &Key, engine_id: &[u8]) -> Key {
    Key(with_digest!(protocol, D => {
        D::new().chain_update(&key.0).chain_update(engine_id).chain_update(&key.0).finalize().to_vec()
    }))
}

/// The key of an engine, long enough for the cipher.
pub(super) fn localise_priv(auth: AuthProtocol, protocol: PrivProtocol, key: &Key, engine_id: &[u8]) -> Key {
    let mut localised = localise(auth, key, engine_id).0;
    while localised.len() < protocol.key_len() {
        let more = match protocol {
            PrivProtocol::Des | PrivProtocol::Aes128 | PrivProtocol::Aes192 | PrivProtocol::Aes256 => {
                with_digest!(auth, D => D::digest(&localised).to_vec())
            }
            PrivProtocol::Aes192Cisco | PrivProtocol::Aes256Cisco => {
                localise(auth, &passphrase_key(auth, &localised), engine_id).0
            }
        };
        localised.extend_from_slice(&more);
    }
    localised.truncate(protocol.key_len());
    Key(localised)
}

/// Whether `digest` is the message's under `key`, in a time that does not depend on where they
/// differ. The digest's own place in the message, `at`, counts as zeros.
pub(super) fn verify(protocol: AuthProtocol, key: &Key, message: &[u8], at: usize, digest: &[u8]) -> bool {
    with_digest!(protocol, D => {
        digest.len() == protocol.digest_len() && mac::<D>(key, message, at, digest.len()).verify_truncated_left(digest).is_ok()
    })
}

/// Writes the message's digest at `at`, where zeros are.
pub(super) fn sign(protocol: AuthProtocol, key: &Key, message: &mut [u8], at: usize) {
    let len = protocol.digest_len();
    let digest = with_digest!(protocol, D => mac::<D>(key, message, at, len).finalize().into_bytes().to_vec());
    message[at..at + len].copy_from_slice(&digest[..len]);
}

fn mac<D: Digest + BlockSizeUser>(key: &Key, message: &[u8], at: usize, len: usize) -> SimpleHmac<D> {
    const ZEROS: [u8; 48] = [0; 48];
    let mac = <SimpleHmac<D> as KeyInit>::new_from_slice(&key.0).expect("HMAC takes keys of any length");
    mac.chain_update(&message[..at]).chain_update(&ZEROS[..len]).chain_update(&message[at + len..])
}

/// The cipher text is not of the protocol's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadCipherText;

/// Decrypts. A wrong key gives noise, not an error.
pub(super) fn decrypt(
    protocol: PrivProtocol,
    key: &Key,
    (boots, time): (u32, u32),
    salt: &[u8],
    cipher_text: &[u8],
) -> Result<Vec<u8>, BadCipherText> {
    let salt: [u8; 8] = salt.try_into().map_err(|_| BadCipherText)?;
    let mut text = cipher_text.to_vec();
    match protocol {
        PrivProtocol::Des => {
            if text.is_empty() || !text.len().is_multiple_of(8) {
                return Err(BadCipherText);
            }
            let cipher = cbc::Decryptor::<des::Des>::new_from_slices(&key.0[..8], &des_iv(key, salt));
            cipher.expect("DES key and IV").decrypt_padded_mut::<NoPadding>(&mut text).map_err(|_| BadCipherText)?;
        }
        PrivProtocol::Aes128 => {
            let cipher = cfb_mode::Decryptor::<Aes128>::new_from_slices(&key.0, &aes_iv(boots, time, salt));
            cipher.expect("AES-128 key and IV").decrypt(&mut text);
        }
        PrivProtocol::Aes192 | PrivProtocol::Aes192Cisco => {
            let cipher = cfb_mode::Decryptor::<Aes192>::new_from_slices(&key.0, &aes_iv(boots, time, salt));
            cipher.expect("AES-192 key and IV").decrypt(&mut text);
        }
        PrivProtocol::Aes256 | PrivProtocol::Aes256Cisco => {
            let cipher = cfb_mode::Decryptor::<Aes256>::new_from_slices(&key.0, &aes_iv(boots, time, salt));
            cipher.expect("AES-256 key and IV").decrypt(&mut text);
        }
    }
    Ok(text)
}

/// Encrypts with a salt that no other message of this key has.
pub(super) fn encrypt(
    protocol: PrivProtocol,
    key: &Key,
    (boots, time): (u32, u32),
    salt: [u8; 8],
    mut text: Vec<u8>,
) -> Vec<u8> {
    match protocol {
        PrivProtocol::Des => {
            text.resize(text.len().next_multiple_of(8), 0);
            let len = text.len();
            let cipher = cbc::Encryptor::<des::Des>::new_from_slices(&key.0[..8], &des_iv(key, salt));
            cipher
                .expect("DES key and IV")
                .encrypt_padded_mut::<NoPadding>(&mut text, len)
                .expect("padded to whole blocks");
        }
        PrivProtocol::Aes128 => {
            let cipher = cfb_mode::Encryptor::<Aes128>::new_from_slices(&key.0, &aes_iv(boots, time, salt));
            cipher.expect("AES-128 key and IV").encrypt(&mut text);
        }
        PrivProtocol::Aes192 | PrivProtocol::Aes192Cisco => {
            let cipher = cfb_mode::Encryptor::<Aes192>::new_from_slices(&key.0, &aes_iv(boots, time, salt));
            cipher.expect("AES-192 key and IV").encrypt(&mut text);
        }
        PrivProtocol::Aes256 | PrivProtocol::Aes256Cisco => {
            let cipher = cfb_mode::Encryptor::<Aes256>::new_from_slices(&key.0, &aes_iv(boots, time, salt));
            cipher.expect("AES-256 key and IV").encrypt(&mut text);
        }
    }
    text
}

/// RFC 3414 §8.1.1.1: the second half of the key, xor the salt.
fn des_iv(key: &Key, salt: [u8; 8]) -> [u8; 8] {
    let mut iv = salt;
    for (byte, pre) in iv.iter_mut().zip(&key.0[8..16]) {
        *byte ^= pre;
    }
    iv
}

/// RFC 3826 §3.1.2.1.
fn aes_iv(boots: u32, time: u32, salt: [u8; 8]) -> [u8; 16] {
    let mut iv = [0; 16];
    iv[..4].copy_from_slice(&boots.to_be_bytes());
    iv[4..8].copy_from_slice(&time.to_be_bytes());
    iv[8..].copy_from_slice(&salt);
    iv
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    /// RFC 3414 §A.3.1 and §A.3.2.
    #[test]
    fn keys_are_those_of_the_rfc() {
        let engine = hex("000000000000000000000002");
        let md5 = passphrase_key(AuthProtocol::Md5, b"maplesyrup");
        assert_eq!(md5.0, hex("9faf3283884e92834ebc9847d8edd963"));
        assert_eq!(localise(AuthProtocol::Md5, &md5, &engine).0, hex("526f5eed9fcce26f8964c2930787d82b"));
        let sha = passphrase_key(AuthProtocol::Sha1, b"maplesyrup");
        assert_eq!(sha.0, hex("9fb5cc0381497b3793528939ff788d5d79145211"));
        assert_eq!(localise(AuthProtocol::Sha1, &sha, &engine).0, hex("6695febc9288e36282235fc7151f128497b38f3f"));
        assert_eq!(format!("{sha:?}"), "***");
    }

    #[test]
    fn what_is_encrypted_decrypts_and_what_is_signed_verifies() {
        for auth in AuthProtocol::ALL {
            let key = localise(auth, &passphrase_key(auth, b"passphrase one"), b"engine");
            let mut message = vec![7u8; 200];
            message[20..20 + auth.digest_len()].fill(0);
            sign(auth, &key, &mut message, 20);
            let digest = message[20..20 + auth.digest_len()].to_vec();
            assert!(verify(auth, &key, &message, 20, &digest));
            message[199] ^= 1;
            assert!(!verify(auth, &key, &message, 20, &digest));
            assert!(!verify(auth, &key, &message, 20, &digest[1..]), "a shorter digest is none");
            for protocol in PrivProtocol::ALL {
                let key = localise_priv(auth, protocol, &passphrase_key(auth, b"passphrase two"), b"engine");
                assert_eq!(key.0.len(), protocol.key_len());
                let text: Vec<u8> = (0..77).collect();
                let cipher = encrypt(protocol, &key, (3, 4), [9; 8], text.clone());
                let back = decrypt(protocol, &key, (3, 4), &[9; 8], &cipher).unwrap();
                assert_eq!(back[..77], text[..], "{auth:?} {protocol:?}");
                assert_eq!(decrypt(protocol, &key, (3, 4), &[9; 7], &cipher), Err(BadCipherText));
            }
        }
    }

    #[test]
    fn protocols_are_read_as_people_write_them() {
        for (text, expected) in
            [("SHA", Some(AuthProtocol::Sha1)), ("SHA-256", Some(AuthProtocol::Sha256)), ("x", None)]
        {
            assert_eq!(AuthProtocol::parse(text), expected);
        }
        for (text, expected) in [
            ("AES", Some(PrivProtocol::Aes128)),
            ("aes-256-C", Some(PrivProtocol::Aes256Cisco)),
            ("DES", Some(PrivProtocol::Des)),
            ("3des", None),
        ] {
            assert_eq!(PrivProtocol::parse(text), expected);
        }
        for protocol in AuthProtocol::ALL {
            assert_eq!(AuthProtocol::parse(protocol.as_str()), Some(protocol));
        }
        for protocol in PrivProtocol::ALL {
            assert_eq!(PrivProtocol::parse(protocol.as_str()), Some(protocol));
        }
    }
}
