//! Text from outside on a terminal. Names are chosen by tenants, and a terminal obeys control characters in them: it changes
//! its title, clears its screen, or shows a forged line.

use std::fmt::Write;

/// Whether a terminal does something else with it than show it, or shows the rest in another order.
fn is_obeyed(character: char) -> bool {
    let is_order = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_break = matches!(character, '\u{2028}' | '\u{2029}');
    character.is_control() || is_order || is_break
}

fn shown(text: &str, stays: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if !is_obeyed(character) || stays(character) {
            shown.push(character);
        } else {
            // Writing to a string can't fail.
            let _ = write!(shown, "{}", character.escape_default());
        }
    }
    shown
}

/// A text from outside in one line: control characters are written as `\u{1b}`.
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
        assert!(is_harmless(&text) && text.starts_with("cart\\u{1b}]0;owned\\u{7}"), "{text}");
        assert!(!text.contains('\n'));
        let lines = plain_lines("a\u{1b}\n\tb\r\n");
        assert_eq!(lines, "a\\u{1b}\n\tb\\r\n");
        let fine = "größe-中文-🙂 {}\\'\"";
        assert_eq!(plain(fine), fine);
    }
}
