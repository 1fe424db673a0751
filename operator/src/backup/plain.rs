//! Text of others, made fit to stand in a status. Pure.

/// The most characters of one word.
pub const WORD: usize = 64;

/// The most characters of a sentence.
pub const SENTENCE: usize = 512;

/// `text` on one line, without control characters, and of at most `most` characters.
pub fn plain(text: &str, most: usize) -> String {
    let is_strange = |letter: char| letter.is_control() || is_direction(letter);
    let spaced: String =
        text.chars().take(4 * most).map(|letter| if is_strange(letter) { ' ' } else { letter }).collect();
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let line = words.join(" ");
    if line.chars().count() <= most {
        return line;
    }
    line.chars().take(most - 1).chain(['…']).collect()
}

/// Characters that turn the text after them round.
fn is_direction(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_line_of_bounded_length() {
        assert_eq!(plain("a\n\tb \u{7}c\u{202e}d", 20), "a b c d");
        assert_eq!(plain("abcdef", 4), "abc…");
    }
}
