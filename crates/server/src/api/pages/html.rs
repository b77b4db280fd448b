//! Writing HTML. What is not written in this program's source goes through [`Html::text`] or
//! [`Html::attribute`], which escape; the other ways take constants only. Hosts and messages on our
//! pages are chosen by whoever can send us an event.

use std::fmt::{Display, Write};

/// A page, or a piece of one, as it grows.
#[derive(Debug, Default)]
pub struct Html(String);

impl Html {
    /// Markup from the source.
    pub fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Any text, between tags.
    pub fn text(&mut self, text: impl Display) -> &mut Self {
        escape_into(&mut self.0, &text.to_string());
        self
    }

    /// ` name="value"`, inside a tag.
    pub fn attribute(&mut self, name: &'static str, value: impl Display) -> &mut Self {
        self.0.push(' ');
        self.0.push_str(name);
        self.0.push_str("=\"");
        escape_into(&mut self.0, &value.to_string());
        self.0.push('"');
        self
    }

    /// `<name>text</name>`, with a class if one is given.
    pub fn element(&mut self, name: &'static str, class: &'static str, text: impl Display) -> &mut Self {
        self.raw("<").raw(name);
        if !class.is_empty() {
            self.attribute("class", class);
        }
        self.raw(">").text(text).raw("</").raw(name).raw(">")
    }

    /// Another piece.
    pub fn piece(&mut self, piece: &Self) -> &mut Self {
        self.0.push_str(&piece.0);
        self
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

fn escape_into(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push('\u{fffd}'),
            // They turn the direction of what follows, so that a text can look like another one.
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                let _ = write!(out, "[U+{:04X}]", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

/// A text as one value in the query of a link, or as one segment of a path.
pub fn in_url(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            byte => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_markup() {
        for (text, expected) in [
            ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
            ("\" onload='x' a=\"", "&quot; onload=&#39;x&#39; a=&quot;"),
            ("a & b &amp; c", "a &amp; b &amp;amp; c"),
            ("zero\0bell\u{7}\u{9b}", "zero\u{fffd}bell\u{fffd}\u{fffd}"),
            ("invoice\u{202e}fdp.exe", "invoice[U+202E]fdp.exe"),
            ("Jürgen\n漢字\t✓", "Jürgen\n漢字\t✓"),
        ] {
            let mut html = Html::default();
            html.text(text);
            assert_eq!(html.into_string(), expected);
        }
        let mut html = Html::default();
        html.raw("<a").attribute("href", "\"><b>").raw(">");
        assert_eq!(html.into_string(), "<a href=\"&quot;&gt;&lt;b&gt;\">");
    }

    #[test]
    fn a_value_stays_one_value_in_a_link() {
        assert_eq!(in_url("a&b=c d/ü#"), "a%26b%3Dc%20d%2F%C3%BC%23");
    }
}
