//! How many syslog lines a core parses and encodes: `cargo run --release --example syslog_parse`.
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use connectors::inputs::syslog::parse::{ParseContext, encode, parse};
use jiff::tz::TimeZone;
use model::Timestamp;
use std::time::{Duration, Instant};

fn main() {
    let filler = "Failed password for invalid user admin from 203.0.113.7 port 51234 ssh2; ";
    let rfc3164 = format!("<38>Nov 22 09:59:58 web-01.example.com sshd[12345]: {}", filler.repeat(3));
    let rfc5424 = format!(
        "<38>1 2026-11-22T09:59:58.123456+01:00 web-01.example.com sshd 12345 ID47 [origin@32473 ip=\"10.0.0.1\" software=\"sshd\"] {}",
        filler.repeat(3)
    );
    let cisco = "<189>45: router1: 000123: Nov 22 09:59:58.123 UTC: %LINEPROTO-5-UPDOWN: Line protocol on Interface GigabitEthernet0/1, changed state to up";
    let berlin = TimeZone::get("Europe/Berlin").unwrap_or(TimeZone::UTC);
    for (name, line, zone) in [
        ("RFC 3164, 250 bytes, UTC", &rfc3164[..250], &TimeZone::UTC),
        ("RFC 3164, 250 bytes, Europe/Berlin", &rfc3164[..250], &berlin),
        ("RFC 5424 with structured data, 300 bytes", &rfc5424[..300], &TimeZone::UTC),
        ("Cisco IOS", cisco, &TimeZone::UTC),
    ] {
        let rate = (0..5).map(|_| measure(line.as_bytes(), zone)).fold(0.0, f64::max);
        println!("{name}: {:.2} million lines/s", rate / 1e6);
    }
}

fn measure(line: &[u8], timezone: &TimeZone) -> f64 {
    const ROUND: u32 = 2_000;
    let ctx = ParseContext { received_at: Timestamp::from_secs(1_795_341_600), peer_ip: Some("10.1.2.3"), timezone };
    let mut out = Vec::with_capacity(2 << 20);
    let start = Instant::now();
    let mut lines = 0u32;
    while start.elapsed() < Duration::from_millis(300) {
        out.clear();
        for _ in 0..ROUND {
            encode(&parse(std::hint::black_box(line), &ctx), false, &mut out);
        }
        std::hint::black_box(&out);
        lines += ROUND;
    }
    f64::from(lines) / start.elapsed().as_secs_f64()
}
