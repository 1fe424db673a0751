//! Canonical JSON (RFC 8785): the one way to write a document, so that its digest means the document.
//!
//! Sorted keys, no space, UTF-8, one line. Integers are exact up to 2^53 only: what may be larger, as
//! PostgreSQL's system identifier, is a string.

use serde::Serialize;

/// A document could not be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write canonical JSON")]
pub struct Error(#[source] serde_json::Error);

/// `document` in canonical form.
pub fn to_vec(document: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json_canonicalizer::to_vec(document).map_err(Error)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_sorted_by_utf_16_and_nothing_is_superfluous() {
        // RFC 8785, section 3.2.3: the order of UTF-16 code units, which is not that of UTF-8.
        let document = json!({"\u{fb33}": 1, "\u{1f600}": 2, "ö": 3, "b": [true, null], "a": "\n/\"\u{7f}"});

        let text = String::from_utf8(to_vec(&document).unwrap()).unwrap();

        assert_eq!(
            text,
            "{\"a\":\"\\n/\\\"\u{7f}\",\"b\":[true,null],\"ö\":3,\"\u{1f600}\":2,\"\u{fb33}\":1}"
        );
    }

    #[test]
    fn integers_stay_integers() {
        let document = json!({"bytes": 9_007_199_254_740_991_u64, "files": 0});

        assert_eq!(to_vec(&document).unwrap(), br#"{"bytes":9007199254740991,"files":0}"#);
    }
}
