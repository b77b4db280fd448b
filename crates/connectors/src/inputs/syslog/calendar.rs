//! Days, months and years by arithmetic: a stamp costs a few nanoseconds to place and to write.

use model::Timestamp;

pub(super) const DAY: i64 = 86_400;

pub(super) fn days_in_month(year: i64, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar.
pub(super) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

pub(super) fn civil_from_days(days: i64) -> (i64, u8, u8) {
    let days = days.saturating_add(719_468);
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month as u8, day as u8)
}

/// Appends `2026-11-22T10:00:00.000000Z`, the product's fixed-width form ([`Timestamp::rfc3339`]).
pub(super) fn write_rfc3339(t: Timestamp, out: &mut Vec<u8>) {
    let secs = t.secs().clamp(-62_135_596_800, 253_402_300_799); // years 1 to 9999
    let micros = t.micros().rem_euclid(1_000_000);
    let (year, month, day) = civil_from_days(secs.div_euclid(DAY));
    let s = secs.rem_euclid(DAY);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let mut put = |range: std::ops::Range<usize>, mut value: i64| {
        for slot in text[range].iter_mut().rev() {
            *slot = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    put(0..4, year);
    put(5..7, i64::from(month));
    put(8..10, i64::from(day));
    put(11..13, s / 3_600);
    put(14..16, s / 60 % 60);
    put(17..19, s % 60);
    put(20..26, micros);
    out.extend_from_slice(&text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn written_stamps_are_the_ones_of_the_model(micros in -62_000_000_000_000_000i64..250_000_000_000_000_000) {
            let t = Timestamp::from_micros(micros);
            let mut out = Vec::new();
            write_rfc3339(t, &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), t.rfc3339());
        }

        #[test]
        fn a_day_survives_the_calendar(days in -700_000i64..2_900_000) {
            let (year, month, day) = civil_from_days(days);
            prop_assert!((1..=12).contains(&month) && day >= 1 && day <= days_in_month(year, month));
            prop_assert_eq!(days_from_civil(year, i64::from(month), i64::from(day)), days);
        }
    }
}
