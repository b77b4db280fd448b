//! The receiving side of Standard Webhooks 1.0, written apart from the sending side: HMAC by its
//! definition (RFC 2104), so that a mistake in one is not a mistake in both.

use crate::Request;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::Timestamp;
use sha2::{Digest, Sha256};

const TOLERANCE_SECS: u64 = 5 * 60;

/// Checks id, time and signature of a received webhook as a careful receiver does. `secret` is the
/// text both sides were configured with.
pub fn verify(secret: &str, request: &Request, now: Timestamp) -> Result<(), String> {
    let header = |name: &str| request.header(name).ok_or_else(|| format!("no `{name}` header"));
    let (id, sent, signatures) = (header("webhook-id")?, header("webhook-timestamp")?, header("webhook-signature")?);
    if id.is_empty() || id.contains('.') {
        return Err(format!("`{id}` cannot be a webhook id"));
    }
    let sent_secs: i64 = sent.parse().map_err(|_| format!("`{sent}` is no time"))?;
    if sent_secs.abs_diff(now.secs()) > TOLERANCE_SECS {
        return Err(format!("sent at {sent}, too far from {}", now.secs()));
    }
    let key = match secret.strip_prefix("whsec_") {
        Some(encoded) => STANDARD.decode(encoded).map_err(|e| e.to_string())?,
        None => secret.as_bytes().to_vec(),
    };
    let mut signed = format!("{id}.{sent}.").into_bytes();
    signed.extend_from_slice(&request.body);
    let expected = format!("v1,{}", STANDARD.encode(hmac_sha256(&key, &signed)));
    if signatures.split(' ').any(|s| s == expected) {
        Ok(())
    } else {
        Err(format!("`{signatures}` does not hold `{expected}`"))
    }
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let pad = |with: u8| block.map(|b| b ^ with);
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn hmac_agrees_with_rfc_4231() {
        assert_eq!(
            hex(&hmac_sha256(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        let long_key = [0xaa_u8; 131];
        assert_eq!(
            hex(&hmac_sha256(&long_key, b"Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }
}
