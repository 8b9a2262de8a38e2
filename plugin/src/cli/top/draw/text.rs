//! Texts of a width, and the style of a locality.

use ratatui::style::{Color, Modifier, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// A text in exactly this many columns, cut at its end if it is longer.
pub(super) fn fit(text: &str, width: usize, is_right: bool) -> String {
    let cut = cut(text, width);
    let space = " ".repeat(width.saturating_sub(cut.width()));
    if is_right { space + &cut } else { cut + &space }
}

/// A text in at most this many columns.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut cut = String::new();
    for character in text.chars() {
        if cut.width() + character.width().unwrap_or_default() + 1 > width {
            break;
        }
        cut.push(character);
    }
    if width > 0 {
        cut.push('…');
    }
    cut
}

/// Traffic that crosses is coloured, the rest is the terminal's own, and what stays in its zone is dim.
pub(super) fn style_of(locality: &str) -> Style {
    match locality {
        "cross-region" => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        "cross-zone" => Style::new().fg(Color::Magenta),
        "same-zone" => Style::new().add_modifier(Modifier::DIM),
        _ => Style::new(),
    }
}
