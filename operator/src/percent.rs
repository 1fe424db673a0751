//! Percent-encoding for any place in a URL.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// All but what is reserved nowhere.
///
/// # Source
/// RFC 3986, section 2.3: <https://www.rfc-editor.org/rfc/rfc3986#section-2.3>
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `bytes` as they may stand anywhere in a URL.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    percent_encode(bytes.as_ref(), RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_in_a_url_is_encoded_and_nothing_else() {
        assert_eq!(encode("p@ss/w:å%"), "p%40ss%2Fw%3A%C3%A5%25");
        assert_eq!(encode("generated-0.9_A~"), "generated-0.9_A~");
    }
}
