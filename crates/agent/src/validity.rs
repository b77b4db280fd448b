//! From when and until when a certificate is good, read out of its DER.
//!
//! Only for showing: whether a certificate is to be believed is judged by rustls.

use model::Timestamp;

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// Takes one element off the front: its tag and what is in it. The rest stays.
fn element<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&[tag, first], mut tail) = rest.split_first_chunk::<2>()?;
    let len = match first {
        0..=0x7f => usize::from(first),
        0x81..=0x84 => {
            let (digits, after) = tail.split_at_checked(usize::from(first & 0x7f))?;
            tail = after;
            digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit))
        }
        _ => return None,
    };
    let (inside, after) = tail.split_at_checked(len)?;
    *rest = after;
    Some((tag, inside))
}

fn expect<'a>(rest: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    element(rest).filter(|(found, _)| *found == tag).map(|(_, inside)| inside)
}

/// Not before and not after; `None` for what is no certificate.
pub fn validity(mut der: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let mut certificate = expect(&mut der, SEQUENCE)?;
    let mut signed = expect(&mut certificate, SEQUENCE)?;
    if signed.first() == Some(&VERSION) {
        element(&mut signed)?;
    }
    expect(&mut signed, INTEGER)?;
    // The algorithm of the signature, and by whom it is.
    expect(&mut signed, SEQUENCE)?;
    expect(&mut signed, SEQUENCE)?;
    let mut times = expect(&mut signed, SEQUENCE)?;
    Some((time(element(&mut times)?)?, time(element(&mut times)?)?))
}

/// `YYMMDDhhmmssZ`, where years from 50 on are of the last century, or `YYYYMMDDhhmmssZ`.
fn time((tag, text): (u8, &[u8])) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let text = match tag {
        UTC_TIME if text.get(..2)? < "50" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let part = |from: usize, to: usize| text.get(from..to);
    let (date, of_day) = ((part(0, 4)?, part(4, 6)?, part(6, 8)?), (part(8, 10)?, part(10, 12)?, part(12, 14)?));
    Timestamp::parse(&format!("{}-{}-{}T{}:{}:{}Z", date.0, date.1, date.2, of_day.0, of_day.1, of_day.2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    #[test]
    fn times_are_read_in_both_forms() {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(1999, 12, 31), date_time_ymd(2061, 2, 3));
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        let (from, to) = validity(&der).unwrap();
        assert_eq!((&*from.rfc3339(), &*to.rfc3339()), ("1999-12-31T00:00:00.000000Z", "2061-02-03T00:00:00.000000Z"));
    }

    #[test]
    fn what_is_no_certificate_has_no_times() {
        let der = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        for end in 0..der.len() {
            assert_eq!(validity(&der[..end]), None);
        }
        for at in 0..der.len() {
            let mut odd = der.clone();
            odd[at] ^= 0xff;
            // Any answer, and an end.
            let _ = validity(&odd);
        }
        for odd in [&b""[..], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0x30, 0x80], &[0x30, 0x85, 1, 1, 1, 1, 1]] {
            assert_eq!(validity(odd), None);
        }
    }
}
