//! Patterns with `*` (any characters) and `?` (one), any case.

/// A pattern that a text fits whole or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glob {
    written: String,
    pattern: Vec<char>,
}

/// Characters of a pattern at most, so that fitting stays cheap for whatever text comes.
pub(super) const GLOB_CHARS_MAX: usize = 256;
/// Of a text only so many characters are looked at; what is longer fits as its beginning does.
const TEXT_CHARS_MAX: usize = 1_024;

impl Glob {
    pub fn new(written: &str) -> Result<Self, String> {
        if written.is_empty() {
            return Err("is empty".to_owned());
        }
        if written.chars().count() > GLOB_CHARS_MAX {
            return Err(format!("is longer than {GLOB_CHARS_MAX} characters"));
        }
        Ok(Self { written: written.to_owned(), pattern: written.chars().flat_map(char::to_lowercase).collect() })
    }

    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// Whether the whole text fits. At most pattern times text steps, both bounded.
    pub fn fits(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().take(TEXT_CHARS_MAX).flat_map(char::to_lowercase).collect();
        let (mut p, mut t) = (0, 0);
        // Where the last star was, and how much of the text it has swallowed.
        let mut star: Option<(usize, usize)> = None;
        while t < text.len() {
            match self.pattern.get(p) {
                Some('*') => {
                    star = Some((p, t));
                    p += 1;
                }
                Some(c) if *c == '?' || *c == text[t] => {
                    p += 1;
                    t += 1;
                }
                Some(_) | None => match &mut star {
                    Some((at, swallowed)) => {
                        *swallowed += 1;
                        (p, t) = (*at + 1, *swallowed);
                    }
                    None => return false,
                },
            }
        }
        self.pattern[p..].iter().all(|c| *c == '*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_texts_in_any_case() {
        for (pattern, text, fits) in [
            ("attack.t1110", "ATTACK.T1110", true),
            ("attack.t1110", "attack.t1110.001", false),
            ("attack.t1110*", "attack.t1110.001", true),
            ("*", "", true),
            ("?", "", false),
            ("web-??", "web-01", true),
            ("web-??", "web-1", false),
            ("*db*-prod", "my-db-7-prod", true),
            ("*db*-prod", "my-db-7-prod-x", false),
            ("a*b*c", "aXbXbYc", true),
            ("ÄB*", "äbc", true),
        ] {
            assert_eq!(Glob::new(pattern).unwrap().fits(text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn a_hostile_text_costs_bounded_work() {
        let glob = Glob::new(&"*a".repeat(GLOB_CHARS_MAX / 2)).unwrap();
        assert!(!glob.fits(&"b".repeat(10_000_000)));
        assert!(Glob::new("").is_err() && Glob::new(&"x".repeat(GLOB_CHARS_MAX + 1)).is_err());
    }
}
