//! Takes out of other programs' words what must not stand in a condition, an event or a log.
//!
//! Input: their text, the secrets that are known. Output: the text with `…` in their place. Pure. What no rule
//! knows stays: a journal that logs its patients' names is told so by its own log.

use std::{cmp::Reverse, iter};

use k8s_openapi::ByteString;
use serde_json::json;

use crate::percent;

/// Shorter values are in every text by chance.
const SHORTEST: usize = 8;

/// What stands where something was taken out.
const HIDDEN: &str = "…";

/// `text` without any of `secrets`, without passwords in URLs, and without numbers that may be somebody's.
pub fn redact<'a>(text: &str, secrets: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut forms: Vec<_> = secrets.into_iter().flat_map(forms).collect();
    // The longest first: a URL before the password in it.
    forms.sort_by_key(|form| Reverse(form.len()));
    let known = forms.iter().fold(text.to_owned(), |text, form| text.replace(form.as_str(), HIDDEN));
    without_numbers(&without_passwords(&known))
}

/// How a secret may be written: as it is, line by line, in base64, percent-encoded.
fn forms(secret: &[u8]) -> Vec<String> {
    let base64 = json!(ByteString(secret.to_vec())).as_str().unwrap_or_default().to_owned();
    let unpadded = base64.trim_end_matches('=').to_owned();
    let for_urls = unpadded.replace('+', "-").replace('/', "_");
    let text = String::from_utf8_lossy(secret);
    let lines = text.lines().map(|line| line.trim().to_owned());
    let all = [base64, unpadded, for_urls, percent::encode(secret), text.trim().to_owned()];
    all.into_iter().chain(lines).filter(|form| form.len() >= SHORTEST).collect()
}

/// `postgres://user:…@host`, whatever the password has in it.
fn without_passwords(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        clean.push_str(before);
        clean.push_str("://");
        let is_end = |letter: char| letter.is_whitespace() || "\"'`<>".contains(letter);
        let (url, others) = after.split_at(after.find(is_end).unwrap_or(after.len()));
        let credentials = url.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?, host)));
        match credentials {
            Some(((user, _), host)) => clean.extend([user, ":", HIDDEN, "@", host]),
            None => clean.push_str(url),
        }
        rest = others;
    }
    clean + rest
}

/// No personnummer, samordningsnummer or sole trader's organisation number: 6 to 8 digits, perhaps `-` or `+`,
/// 4 digits. Longer rows of digits go too.
fn without_numbers(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|letter: char| letter.is_ascii_digit()) {
        let (before, number) = rest.split_at(start);
        clean.push_str(before);
        let digits = digits(number);
        let after = &number[digits..];
        let has_sign = after.starts_with(['-', '+']);
        let last = if has_sign { self::digits(&after[1..]) } else { 0 };
        let length = match (digits, last) {
            (6.., 4..) => digits + 1 + last,
            (10.., _) => digits,
            (_, _) => {
                clean.push_str(&number[..digits]);
                rest = after;
                continue;
            }
        };
        clean.push_str(HIDDEN);
        rest = &number[length..];
    }
    clean + rest
}

/// How many digits `text` begins with.
fn digits(text: &str) -> usize {
    iter::zip(text.bytes(), 1..).take_while(|(byte, _)| byte.is_ascii_digit()).last().map_or(0, |(_, n)| n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_secret_goes_however_it_is_written() {
        let secrets =
            [b"p@ss/word1".as_slice(), b"-----BEGIN KEY-----\nMIGHAgEAMBMGByqG\n-----END KEY-----\n"];
        let said = |text: &str| redact(text, secrets);

        assert_eq!(said("with p@ss/word1!"), "with …!");
        assert_eq!(said("with p%40ss%2Fword1!"), "with …!");
        assert_eq!(said("with cEBzcy93b3JkMQ==!"), "with …!");
        assert_eq!(said("key MIGHAgEAMBMGByqG"), "key …");
    }

    #[test]
    fn a_short_value_is_left_where_it_stands() {
        assert_eq!(redact("a journal", [b"a".as_slice(), b"journal"]), "a journal");
    }

    #[test]
    fn the_password_in_a_url_goes_though_nobody_knows_it() {
        let said = |text: &str| redact(text, []);

        assert_eq!(
            said("at \"postgres://ada:p@ss/w@db:5432/j\" now"),
            "at \"postgres://ada:…@db:5432/j\" now"
        );
        assert_eq!(
            said("https://a.example, https://u:v@b.example"),
            "https://a.example, https://u:…@b.example"
        );
    }

    #[test]
    fn a_number_that_may_be_somebodys_goes() {
        let said = |text: &str| redact(text, []);

        assert_eq!(said("Key (pnr)=(19121212-1212) exists"), "Key (pnr)=(…) exists");
        assert_eq!(said("121212+1212, 121212-1212 and 191212121212"), "…, … and …");
        assert_eq!(
            said("migration 0003 at 2026-03-01 12:00:05.123456"),
            "migration 0003 at 2026-03-01 12:00:05.123456"
        );
        assert_eq!(said("å 1"), "å 1");
    }
}
