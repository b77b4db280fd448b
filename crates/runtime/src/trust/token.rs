//! What a token says besides its secret: `sm_<organisation>_<milliseconds>_<secret>`, and after a full stop, where the
//! control plane is its own authority, the first half of the SHA-256 of that authority's root certificate.

use std::fmt;

/// The first 16 bytes of the SHA-256 of a root certificate in DER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// That of a certificate.
    pub fn of(der: &[u8]) -> Self {
        use sha2::Digest;
        let hash = sha2::Sha256::digest(der);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(hash.get(..16).expect("SHA-256 has 32 bytes"));
        Self(bytes)
    }

    fn parse(hex: &str) -> Option<Self> {
        let digits: Vec<u8> = hex.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
        let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |sum, d| sum << 4 | d)).collect();
        (hex.len() == 32).then(|| bytes.try_into().ok().map(Self)).flatten()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The part of a token that is secret: what follows is the authority's fingerprint, which is another after a change.
pub fn secret_part(token: &str) -> &str {
    match token.rsplit_once('.') {
        Some((secret, hex)) if Fingerprint::parse(hex).is_some() => secret,
        _ => token,
    }
}

/// What was found in a token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found<'a> {
    /// `None`: a token of another form, which is taken as it is.
    pub org: Option<&'a str>,
    /// Of the root of the control plane's own authority.
    pub fingerprint: Option<Fingerprint>,
}

/// Looks into a token. `Err`: what is wrong with it.
pub fn look(token: &str) -> Result<Found<'_>, &'static str> {
    let Some((org, secret)) = parts(token) else { return Ok(Found::default()) };
    // A token that lost its end must not be one that names no authority.
    let fingerprint = match secret.split_once('.') {
        None => None,
        Some((_, hex)) => {
            let why = "the token's end, after the full stop, is not 32 hexadecimal digits: copy the whole token";
            Some(Fingerprint::parse(hex).ok_or(why)?)
        }
    };
    Ok(Found { org: Some(org), fingerprint })
}

fn parts(token: &str) -> Option<(&str, &str)> {
    let (org, rest) = token.strip_prefix("sm_")?.split_once('_')?;
    let (digits, secret) = rest.split_once('_')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    (is_number && !org.is_empty() && !secret.is_empty()).then_some((org, secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_no_part_of_the_secret() {
        let hex = "00112233445566778899aabbccddeeff";
        assert_eq!(secret_part(&format!("sm_a_1_x.{hex}")), "sm_a_1_x");
        for whole in ["sm_a_1_x", "sm_a_1_x.y", "sm_tok_demo123", "", "."] {
            assert_eq!(secret_part(whole), whole);
        }
    }

    #[test]
    fn a_token_names_its_organisation_and_its_servers_authority() {
        let hex = "00112233445566778899aabbccddeeff";
        let with = |end: &str| format!("sm_acme-2_1751700000000_0123456789abcdefghjkmnpqrstvwxyz{end}");
        assert_eq!(look(&with("")), Ok(Found { org: Some("acme-2"), fingerprint: None }));
        for hex in [hex.to_owned(), hex.to_uppercase()] {
            let token = with(&format!(".{hex}"));
            let found = look(&token).unwrap();
            assert_eq!(found.fingerprint.map(|f| f.to_string()).as_deref(), Some("00112233445566778899aabbccddeeff"));
        }
        for end in [".", ".0011", &format!(".{hex}0"), ".0011223344556677_899aabbccddeeff", &format!(".{hex}.{hex}")] {
            assert!(look(&with(end)).is_err(), "{end}");
        }
        for odd in ["", "sm_a_b", "sm__1_x", "sm_a_1_", "sm_a__x", "xm_a_1_b", "sm_a_1x_b", "a.b", "sm_tok_demo123"] {
            assert_eq!(look(odd), Ok(Found::default()), "{odd}");
        }
    }

    #[test]
    fn a_fingerprint_is_the_first_half_of_the_hash() {
        assert_eq!(Fingerprint::of(b"abc").to_string(), "ba7816bf8f01cfea414140de5dae2223");
        assert_eq!(Fingerprint::parse("ba7816bf8f01cfea414140de5dae2223"), Some(Fingerprint::of(b"abc")));
    }
}
