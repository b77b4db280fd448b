//! Tokens by which agents come in, and the command that installs one.
//!
//! A token is `sm_<org>_<unix ms>_<secret>`: the secret is 160 random bits in 32 characters of base32. Where the gateway
//! has an authority of its own, `.` and the first half of its fingerprint follow, so that an agent knows whom to believe.

use crate::agent_downloads::INSTALLER;
use model::{OrgId, Timestamp};
use runtime::Secret;
use storage::catalog::users::Fingerprint;

/// Digits of the secret: none that look like another.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 160 bits.
const SECRET_BYTES: usize = 20;
/// By this name every gateway with an authority of its own can be called, wherever it is.
const GATEWAY_NAME: &str = "control-plane.muttd";

/// A new token. `authority`: 32 hex digits, the first half of the SHA-256 of the gateway's own root certificate.
pub fn generate(org: &OrgId, now: Timestamp, authority: Option<&str>) -> Result<Secret, getrandom::Error> {
    let mut bytes = [0u8; SECRET_BYTES];
    getrandom::fill(&mut bytes)?;
    let mut text = format!("sm_{org}_{}_{}", now.millis(), base32(&bytes));
    if let Some(authority) = authority {
        text.push('.');
        text.push_str(authority);
    }
    Ok(Secret::new(text))
}

/// What is kept of a token: the SHA-256 of its secret, without the authority, which may change.
pub fn fingerprint(token: &str) -> Fingerprint {
    Secret::fingerprint_of(runtime::trust::secret_part(token).as_bytes())
}

/// SHA-256 of the installer that this build serves, in hex: for who looks at it before running it.
pub fn installer_sha256() -> String {
    Secret::fingerprint_of(INSTALLER.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn base32(bytes: &[u8; SECRET_BYTES]) -> String {
    let mut text = String::with_capacity(SECRET_BYTES * 8 / 5);
    for five in bytes.chunks_exact(5) {
        let bits = five.iter().fold(0u64, |bits, byte| (bits << 8) | u64::from(*byte));
        for place in (0..8).rev() {
            let digit = (bits >> (place * 5)) & 31;
            text.push(char::from(DIGITS[digit as usize]));
        }
    }
    text
}

/// One line for the host that is to have an agent. Nothing is run that did not come from whom the token names, and the
/// token is on no command line. `gateway`: name or address and port.
pub fn install_command(token: &str, gateway: &str) -> String {
    let settings = format!("export SM_TOKEN='{token}' SM_INGEST_URL='{gateway}'");
    let run = "sudo --preserve-env=SM_TOKEN,SM_INGEST_URL sh";
    let Some(authority) = runtime::trust::look(token).ok().and_then(|found| found.fingerprint) else {
        let run = "sudo --preserve-env=SM_TOKEN,SM_INGEST_URL,SM_CA_FILE sh";
        return format!("{settings} SM_CA_FILE='system'; curl -fsS 'https://{gateway}/install.sh' | {run}");
    };
    let port = gateway.rsplit_once(':').map_or("9002", |(_, port)| port);
    // The authority's certificate comes from whoever answers, and is believed when it is the one of the token.
    let fetch = format!("curl -fsSk 'https://{gateway}/ca.pem' -o \"$ca\"");
    let sum = "$(sed '/END/q' \"$ca\" | grep -v -e '-' | base64 -d | sha256sum | cut -c1-32)";
    let check = format!("{{ [ \"{sum}\" = {authority} ] || {{ echo 'not the gateway of the token' >&2; false; }}; }}");
    let install = format!(
        "curl -fsS --cacert \"$ca\" --connect-to '{GATEWAY_NAME}:{port}:{gateway}' \
         'https://{GATEWAY_NAME}:{port}/install.sh'"
    );
    format!("{settings}; ca=$(mktemp) && {fetch} && {check} && {install} | {run}")
}

/// Whether a text can be the name or address and the port of a gateway in a command line.
pub fn is_gateway(text: &str) -> bool {
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
    let port = text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0));
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    port && !host.is_empty() && host.len() <= 255 && !host.starts_with('-') && host.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_organisation_and_hides_160_bits() {
        let (org, now) = ("acme-2".parse().unwrap(), Timestamp::from_millis(1_795_348_800_123));
        let plain = generate(&org, now, None).unwrap();
        let parts: Vec<&str> = plain.expose().split('_').collect();
        assert_eq!(parts[..3], ["sm", "acme-2", "1795348800123"]);
        assert!(parts.len() == 4 && parts[3].len() == 32 && parts[3].bytes().all(|b| DIGITS.contains(&b)), "{parts:?}");
        assert_ne!(generate(&org, now, None).unwrap().expose(), plain.expose());
        let named = generate(&org, now, Some("00ff")).unwrap();
        assert!(named.expose().ends_with(".00ff"));
        assert_ne!(fingerprint(named.expose()), fingerprint(plain.expose()));
        assert_eq!(fingerprint(plain.expose()), plain.fingerprint());
    }

    #[test]
    fn base32_has_every_bit() {
        let mut bytes = [0u8; SECRET_BYTES];
        assert_eq!(base32(&bytes), "0".repeat(32));
        bytes[SECRET_BYTES - 1] = 1;
        assert_eq!(base32(&bytes), format!("{}1", "0".repeat(31)));
        assert_eq!(base32(&[0xff; SECRET_BYTES]), "z".repeat(32));
        bytes[0] = 0x80;
        assert!(base32(&bytes).starts_with("g0"));
    }

    #[test]
    fn a_gateway_in_a_command_is_a_name_and_a_port() {
        for good in ["localhost:9002", "10.0.0.7:443", "[2001:db8::1]:9002", "mutt-1.example.org:9002"] {
            assert!(is_gateway(good), "{good}");
        }
        for bad in ["", ":9002", "localhost", "a b:9002", "a';reboot;':9002", "-k:9002", "a:0", "a:99999", "$(x):1"] {
            assert!(!is_gateway(bad), "{bad}");
        }
    }

    /// Runs the command with a `curl` that answers as a gateway would, and a `sudo` that keeps two variables.
    #[test]
    fn the_command_runs_what_comes_from_the_gateway_of_the_token_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let program = |name: &str, text: &str| {
            use std::os::unix::fs::PermissionsExt;
            let file = dir.path().join(name);
            std::fs::write(&file, format!("#!/bin/sh\n{text}")).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        // "certificate" in base64, and another one behind it.
        let pem = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----");
        let chain = format!("{}\n{}", pem("Y2VydGlmaWNhdGU="), pem("b2xk"));
        program(
            "curl",
            &format!(
                "printf '%s\\n' \"$*\" >> log\ncase \"$*\" in\n*/ca.pem*) cat > \"$4\" <<E\n{chain}\nE\n;;\n\
                 *--cacert*install.sh) grep -q Y2VydGlmaWNhdGU= \"$3\" && echo 'echo got $SM_TOKEN $SM_INGEST_URL' ;;\n\
                 *install.sh) echo 'echo $SM_CA_FILE' ;;\nesac\n"
            ),
        );
        program(
            "sudo",
            "case $1 in --preserve-env=SM_TOKEN,SM_INGEST_URL*) ;; *) exit 1 ;; esac; shift && exec \"$@\"\n",
        );
        let run = |token: &str| {
            let path = format!("{}:/usr/bin:/bin", dir.path().display());
            let mut shell = std::process::Command::new("sh");
            shell.arg("-c").arg(install_command(token, "10.0.0.7:9002")).current_dir(dir.path()).env("PATH", path);
            let output = shell.output().unwrap();
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            (text(output.stdout), text(output.stderr))
        };
        let print: String = Secret::fingerprint_of(b"certificate")[..16].iter().map(|b| format!("{b:02x}")).collect();
        let token = format!("sm_acme_1_x.{print}");
        assert_eq!(run(&token).0, format!("got {token} 10.0.0.7:9002\n"));
        let (ran, said) = run("sm_acme_1_x.00112233445566778899aabbccddeeff");
        assert_eq!((ran.as_str(), said.contains("not the gateway of the token")), ("", true));
        assert_eq!(run("sm_acme_1_x").0, "system\n", "whom the system believes");
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
        assert!(!log.contains("sm_acme"), "no command line has the token: {log}");
    }
}
