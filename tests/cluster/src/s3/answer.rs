//! What a server answers.

use std::fmt;
use std::io::{BufRead, Read};

use anyhow::{Context, Result, bail};

use crate::s3::Method;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    content: Vec<u8>,
}

impl Answer {
    /// Reads the answer to a request of this method.
    pub fn read(mut from: impl BufRead, method: Method) -> Result<Self> {
        let first = line(&mut from)?;
        let status = first.split_whitespace().nth(1).and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("not an HTTP answer: {first:?}"))?;
        let mut headers = Vec::new();
        loop {
            let line = line(&mut from)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').with_context(|| format!("not a header: {line:?}"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Self { status, headers, content: Vec::new() };
        if method != Method::Head {
            answer.content = answer.read_content(from)?;
        }
        Ok(answer)
    }

    fn read_content(&self, mut from: impl Read) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        match self.header("content-length") {
            Some(length) => {
                content.resize(length.parse()?, 0);
                from.read_exact(&mut content)?;
            }
            None if self.status == 204 => {}
            None => bail!("an answer with status {} does not say how long it is", self.status),
        }
        Ok(content)
    }

    /// Its number: 200, 403 ….
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether it is one of the 200s.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// What follows the headers.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// The same as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.content).into_owned()
    }

    /// What stands in the first element of this name: `Code` of an error, `Status` of the versioning …. For
    /// elements without attributes, whose text has nothing to be decoded.
    pub fn element(&self, name: &str) -> Option<String> {
        let text = self.text();
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0.to_owned())
    }

    /// The reason of a refusal, e.g. `AccessDenied`. The answer to a HEAD has none.
    pub fn code(&self) -> Option<String> {
        self.element("Code")
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.status)?;
        match (self.code(), self.element("Message")) {
            (Some(code), Some(message)) => write!(formatter, " {code}: {message}"),
            (Some(code), None) => write!(formatter, " {code}"),
            (None, _) => Ok(()),
        }
    }
}

fn line(from: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        bail!("the answer ends too early");
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_a_reason() {
        let error = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
        let text = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{error}", error.len());

        let answer = Answer::read(text.as_bytes(), Method::Get).unwrap();

        assert_eq!(answer.code().as_deref(), Some("AccessDenied"));
        assert_eq!(answer.to_string(), "403 AccessDenied: Access Denied");
    }

    #[test]
    fn an_answer_that_breaks_off_is_none() {
        assert!(Answer::read(&b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"[..], Method::Get).is_err());
        assert!(Answer::read(&b"HTTP/1.1 200 OK\r\nContent-Le"[..], Method::Get).is_err());
    }

    #[test]
    fn the_answer_to_a_head_has_the_length_of_what_it_does_not_send() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 68\r\nx-amz-version-id: 7\r\n\r\n";

        let answer = Answer::read(text.as_bytes(), Method::Head).unwrap();

        assert!(answer.is_success());
        assert_eq!(answer.header("x-amz-version-id"), Some("7"));
    }

    #[test]
    fn what_is_not_http_is_no_answer() {
        assert!(Answer::read(&b"hello\n"[..], Method::Get).is_err());
        assert!(Answer::read(&b""[..], Method::Get).is_err());
    }
}
