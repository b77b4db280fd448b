//! Case, by the same rules on every version of ClickHouse: `lower` for ASCII, and `translateUTF8` for
//! the characters outside it that can become one of the pattern's.

use super::{literal, unsupported};
use crate::operators::text::fold_char;
use crate::sql::SqlError;
use crate::sql::walk::Case;

/// Where the characters outside ASCII are that have a lower case; a test looks at all others.
const CASED: [(u32, u32); 14] = [
    (0xC0, 0x587),
    (0x10A0, 0x10FF),
    (0x13A0, 0x13FF),
    (0x1C80, 0x1FFF),
    (0x2126, 0x2183),
    (0x24B6, 0x2D2D),
    (0xA640, 0xA7FF),
    (0xFF21, 0xFF3A),
    (0x10400, 0x105FF),
    (0x10C80, 0x10CFF),
    (0x10D50, 0x10D8F),
    (0x118A0, 0x118DF),
    (0x16E40, 0x16EFF),
    (0x1E900, 0x1E943),
];

fn cased_chars() -> impl Iterator<Item = char> {
    CASED.into_iter().flat_map(|(first, last)| first..=last).filter_map(char::from_u32)
}

fn folded() -> impl Iterator<Item = (char, char)> {
    cased_chars().map(|c| (c, fold_char(c))).filter(|(c, lower)| c != lower)
}

/// `v` as it has to be compared with these texts, which are folded themselves unless as they are.
pub(super) fn to_compare(case: Case, texts: &[&str]) -> String {
    match case {
        Case::AsIs => "v".to_owned(),
        Case::Ascii => "lower(v)".to_owned(),
        Case::Folded => {
            let wanted = |c: char| texts.iter().any(|text| text.contains(c));
            translate("lower(v)", folded().filter(|(_, lower)| wanted(*lower)))
        }
    }
}

/// `v` folded whatever is in it.
pub(super) fn any_text(v: &str) -> String {
    translate(&format!("lower({v})"), folded())
}

/// The message `v` in lower case by Unicode's full rules, as far as this needle can tell.
pub(super) fn lower_for(needle: &str) -> Result<String, SqlError> {
    if needle.contains(['σ', 'ς']) {
        return Err(unsupported("a substring with a Greek sigma, whose lower case depends on where a word ends"));
    }
    // The only character whose lower case is two; the needle can see both, the first, or the second.
    let dotted = needle.ends_with('i') || needle.contains("i\u{307}") || needle.starts_with('\u{307}');
    let lower = if dotted { "replaceAll(lower(v), 'İ', 'i̇')" } else { "lower(v)" };
    let single = |c: char| {
        let mut lower = c.to_lowercase();
        (lower.len() == 1).then(|| lower.next()).flatten()
    };
    let pairs = cased_chars().filter_map(|c| single(c).map(|lower| (c, lower))).filter(|(c, lower)| c != lower);
    Ok(translate(lower, pairs.filter(|(_, lower)| needle.contains(*lower))))
}

fn translate(text: &str, pairs: impl Iterator<Item = (char, char)>) -> String {
    let (from, to): (String, String) = pairs.unzip();
    if from.is_empty() {
        return text.to_owned();
    }
    format!("translateUTF8({text}, {}, {})", literal(&from), literal(&to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outside_ascii() -> impl Iterator<Item = char> {
        (0x80..=0x10FFFF).filter_map(char::from_u32)
    }

    #[test]
    fn no_other_character_has_a_lower_case() {
        let known: std::collections::BTreeSet<char> = cased_chars().collect();
        for c in outside_ascii().filter(|c| !known.contains(c)) {
            assert!(c.to_lowercase().eq([c]), "{c:?} {:x}", u32::from(c));
        }
        let several: Vec<char> = outside_ascii().filter(|c| c.to_lowercase().len() > 1).collect();
        assert_eq!(several, ['İ']);
        assert_eq!('İ'.to_lowercase().collect::<String>(), "i\u{307}");
    }

    #[test]
    fn what_is_folded_stays() {
        for c in outside_ascii() {
            assert_eq!(fold_char(fold_char(c)), fold_char(c), "{c:?}");
        }
    }

    #[test]
    fn only_the_characters_that_count_are_translated() {
        assert_eq!(to_compare(Case::Folded, &["été", "x"]), "translateUTF8(lower(v), 'É', 'é')");
        assert_eq!(to_compare(Case::Folded, &["日本"]), "lower(v)");
        assert_eq!(to_compare(Case::Folded, &["å"]), "translateUTF8(lower(v), 'Å\u{212B}', 'åå')");
        assert_eq!(lower_for("down"), Ok("lower(v)".to_owned()));
        assert_eq!(lower_for("link"), Ok("translateUTF8(lower(v), '\u{212A}', 'k')".to_owned()));
        assert!(lower_for("σ").is_err());
    }
}
