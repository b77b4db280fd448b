//! Spans of time as people write them: `90s`, `15m`, `4h`, `1d`, `1h30m`.

use std::fmt::Write as _;
use std::time::Duration;

const UNITS: [(char, u64); 5] = [('w', 604_800), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];
const SECONDS_MAX: u64 = 10 * 365 * 86_400;

/// Reads one, at most ten years; `0s` is none at all. `Err` is a sentence without its subject.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let refused =
        || format!("`{}` is not a time such as 90s, 15m, 4h or 1d", text.chars().take(40).collect::<String>());
    let mut seconds: u64 = 0;
    let mut number: Option<u64> = None;
    for c in text.trim().chars() {
        if let Some(digit) = c.to_digit(10) {
            let so_far = number.unwrap_or(0).checked_mul(10).and_then(|n| n.checked_add(u64::from(digit)));
            number = Some(so_far.ok_or_else(refused)?);
        } else {
            let (_, unit) = UNITS.into_iter().find(|(name, _)| *name == c).ok_or_else(refused)?;
            let part = number.take().and_then(|n| n.checked_mul(unit)).ok_or_else(refused)?;
            seconds = seconds.checked_add(part).ok_or_else(refused)?;
        }
    }
    if number.is_some() || text.trim().is_empty() || seconds > SECONDS_MAX {
        return Err(refused());
    }
    Ok(Duration::from_secs(seconds))
}

/// The text that [`parse_span`] reads, in the largest units.
pub fn span_text(span: Duration) -> String {
    let mut left = span.as_secs();
    let mut text = String::new();
    for (name, unit) in UNITS {
        if left >= unit {
            let _ = write!(text, "{}{name}", left / unit);
            left %= unit;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_written() {
        for (text, seconds, shown) in [
            ("90s", 90, "1m30s"),
            ("15m", 900, "15m"),
            (" 4h ", 14_400, "4h"),
            ("1d", 86_400, "1d"),
            ("1h30m", 5_400, "1h30m"),
            ("2w", 1_209_600, "2w"),
            ("0s", 0, "0s"),
        ] {
            let span = parse_span(text).unwrap();
            assert_eq!((span.as_secs(), span_text(span).as_str()), (seconds, shown), "{text}");
        }
        for bad in ["", "4", "h", "-1h", "1.5h", "4 hours", "11000d", "99999999999999999999s", "9999999999999999999w"] {
            assert!(parse_span(bad).unwrap_err().contains("is not a time such as"), "{bad}");
        }
    }
}
