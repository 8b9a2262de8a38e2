//! Texts in HTML.

use std::fmt::{self, Display, Formatter};

/// A text from outside, as the content of an element or of a quoted attribute. Control characters, and characters that
/// turn the order of letters or are not seen, are replaced: a name can't change how the text around it reads.
pub(super) struct Escaped<'a>(pub &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => {
                    f.write_str("\u{fffd}")?;
                }
                '\u{feff}' | '\u{e0000}'..='\u{e0fff}' => f.write_str("\u{fffd}")?,
                _ if character.is_control() => f.write_str("\u{fffd}")?,
                _ => write!(f, "{character}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Escaped;

    #[test]
    fn no_name_leaves_its_element() {
        let hostile = "<script>alert('1')</script>\"&\u{202e}\u{1b}[31m\u{0}x\u{200b}\u{e0041}";
        let text = Escaped(hostile).to_string();
        assert_eq!(
            text,
            "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot;&amp;\u{fffd}\u{fffd}[31m\u{fffd}x\u{fffd}\u{fffd}"
        );
    }
}
