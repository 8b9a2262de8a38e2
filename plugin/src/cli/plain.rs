//! Text from outside on a terminal. Names are chosen by tenants, and a terminal obeys control characters in them: it changes
//! its title, clears its screen, or shows a forged line.

use std::fmt::Write;
use unicode_width::UnicodeWidthChar;

/// Whether a terminal does something else with it than show it in its place: it obeys it, shows nothing, or shows the
/// rest in another order. Letters that are written from right to left turn the numbers beside them, so they count, too;
/// names of Kubernetes have none.
fn is_obeyed(character: char) -> bool {
    let is_order = matches!(
        character,
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{590}'..='\u{8ff}'
            | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}' | '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}'
    );
    let is_break = matches!(character, '\u{2028}' | '\u{2029}');
    let is_invisible = character.width().is_none_or(|width| width == 0);
    // Nothing is left of a soft hyphen, a filler or a tag.
    let is_blank = matches!(
        character,
        '\u{ad}' | '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}'
    );
    character.is_control() || is_order || is_break || is_invisible || is_blank
}

fn shown(text: &str, stays: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if !is_obeyed(character) || stays(character) {
            shown.push(character);
        } else {
            // As JSON writes it, so that an answer in JSON stays JSON. Writing to a string can't fail.
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        }
    }
    shown
}

/// A text from outside in one line: control characters are written as `\u001b`.
pub(super) fn plain(text: &str) -> String {
    shown(text, |_| false)
}

/// Lines of ours, each of which may hold text from outside.
pub(super) fn plain_lines(text: &str) -> String {
    shown(text, |character| matches!(character, '\n' | '\t'))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A name that changes the title, clears the screen, turns the order of letters, and forges a line.
    pub(in super::super) const HOSTILE: &str =
        "cart\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}2J\u{202e}\r\n10.0.0.1  Pod kube-system/dns\u{2028}\u{7f}";

    /// Whether a terminal would obey a text, line breaks apart, or a line of it is forged.
    pub(in super::super) fn is_harmless(text: &str) -> bool {
        !text.chars().any(|character| character != '\n' && is_obeyed(character))
            && text.lines().all(|line| !line.starts_with("10.0.0.1  Pod kube-system"))
    }

    #[test]
    fn nothing_is_left_that_a_terminal_obeys_and_all_else_is_as_it_was() {
        let text = plain(HOSTILE);
        assert!(is_harmless(&text) && text.starts_with("cart\\u001b]0;owned\\u0007"), "{text}");
        assert!(!text.contains('\n'));
        let lines = plain_lines("a\u{1b}\n\tb\r\n");
        assert_eq!(lines, "a\\u001b\n\tb\\u000d\n");
        let object = format!("{{\"a\": \"{}\"}}", "\u{9b}\u{e0041}\u{202e}\u{7f}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&plain_lines(&object)).unwrap(),
            serde_json::from_str::<serde_json::Value>(&object).unwrap()
        );
        for zero_width in ['\u{200b}', '\u{200d}', '\u{2060}', '\u{feff}', '\u{ad}', '\u{301}', '\u{fe0f}', '\u{e0041}']
        {
            let text = plain(&format!("a{zero_width}b"));
            assert!(is_harmless(&text) && text.starts_with("a\\u") && text.ends_with('b'), "{text}");
        }
        assert_eq!(plain("\u{5d0}\u{627}"), "\\u05d0\\u0627");
        let fine = "größe-中文-🙂 {}\\'\"";
        assert_eq!(plain(fine), fine);
    }
}
