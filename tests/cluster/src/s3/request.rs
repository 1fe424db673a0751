//! A request, before it is signed.

use std::fmt::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Read.
    Get,
    /// Read only what is said about it.
    Head,
    /// Write.
    Put,
    /// Whatever the query says.
    Post,
    /// Delete.
    Delete,
    /// What administrators of versitygw do.
    Patch,
}

impl Method {
    /// As it is sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Delete => "DELETE",
            Self::Patch => "PATCH",
        }
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    content: Vec<u8>,
}

impl Request {
    /// To `path`, e.g. `/bucket/key`, as it is before anything is encoded.
    pub fn new(method: Method, path: &str) -> Self {
        let path = path.to_owned();
        Self { method, path, query: Vec::new(), headers: Vec::new(), content: Vec::new() }
    }

    /// With a parameter; one that is only named has an empty value.
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a header, whose name is in lower case.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With this content.
    pub fn body(self, content: impl Into<Vec<u8>>) -> Self {
        Self { content: content.into(), ..self }
    }

    /// With a checksum of the content, which S3 requires of what sets locks or deletes in bulk.
    pub fn checked(self) -> Self {
        let checksum = STANDARD.encode(Sha256::digest(&self.content));
        self.header("x-amz-checksum-sha256", &checksum)
    }

    /// What is to be done.
    pub fn method(&self) -> Method {
        self.method
    }

    /// What is sent after the head.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// Its own headers.
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The path, encoded as S3 does it: once, and not its slashes.
    pub fn encoded_path(&self) -> String {
        self.path.split('/').map(encoded).collect::<Vec<_>>().join("/")
    }

    /// The query, encoded and sorted: as it is sent and as it is signed.
    pub fn encoded_query(&self) -> String {
        let mut pairs: Vec<String> =
            self.query.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        pairs.sort();
        pairs.join("&")
    }

    /// All that is sent before the content: with its own headers and those of the signature.
    pub fn head(&self, host: &str, signature: &[(String, String)]) -> String {
        let (path, query) = (self.encoded_path(), self.encoded_query());
        let query = if query.is_empty() { query } else { format!("?{query}") };
        let length = self.content.len().to_string();
        let own = [("host", host), ("content-length", &length), ("connection", "close")];
        let others =
            self.headers.iter().chain(signature).map(|(name, value)| (name.as_str(), value.as_str()));
        let headers = own.into_iter().chain(others).map(|(name, value)| format!("{name}: {value}\r\n"));
        format!("{} {path}{query} HTTP/1.1\r\n{}\r\n", self.method.as_str(), headers.collect::<String>())
    }
}

impl fmt::Display for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.method.as_str(), self.path)?;
        match self.encoded_query() {
            query if query.is_empty() => Ok(()),
            query => write!(formatter, "?{query}"),
        }
    }
}

/// Percent-encoded: all but letters, digits and `-._~`.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_part_a_path_and_are_encoded_in_a_query() {
        let request = Request::new(Method::Get, "/b/a b/å").query("prefix", "a/b").query("delete", "");

        assert_eq!(request.encoded_path(), "/b/a%20b/%C3%A5");
        assert_eq!(request.encoded_query(), "delete=&prefix=a%2Fb");
    }

    #[test]
    fn the_checksum_is_of_the_content() {
        let request = Request::new(Method::Put, "/b/k").body("abc").checked();

        let checksum = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=".to_owned();
        assert_eq!(request.headers(), [("x-amz-checksum-sha256".to_owned(), checksum)]);
    }

    #[test]
    fn the_head_ends_with_an_empty_line() {
        let request = Request::new(Method::Put, "/b/k").header("x-amz-meta-a", "1").body("four");

        let head = request.head("store.example", &[("authorization".to_owned(), "signed".to_owned())]);

        assert_eq!(
            head,
            "PUT /b/k HTTP/1.1\r\nhost: store.example\r\ncontent-length: 4\r\nconnection: close\r\n\
             x-amz-meta-a: 1\r\nauthorization: signed\r\n\r\n"
        );
    }
}
