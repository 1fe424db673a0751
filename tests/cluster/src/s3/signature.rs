//! The signature of a request.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>

use anyhow::Result;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use sha2::Sha256;

use crate::digest::Digest;
use crate::s3::{AccessKey, Request};

/// Who signs, for where, and when.
#[derive(Debug)]
pub struct Signer<'a> {
    /// The region, as the server calls itself.
    pub region: &'a str,
    /// Whose key.
    pub key: &'a AccessKey,
    /// The server refuses what is a quarter of an hour old.
    pub at: Timestamp,
}

impl Signer<'_> {
    /// The headers that `request` to `host` needs beside its own. All its own are signed.
    pub fn headers(&self, host: &str, request: &Request) -> Result<Vec<(String, String)>> {
        let content = digest(request.content())?;
        let moment = self.at.strftime("%Y%m%dT%H%M%SZ").to_string();
        let added = [("x-amz-content-sha256".to_owned(), content.clone()), ("x-amz-date".to_owned(), moment)];
        let mut signed = request.headers().to_vec();
        signed.extend(added.clone());
        signed.push(("host".to_owned(), host.to_owned()));
        signed.sort();
        let names = signed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";");
        let lines: String = signed.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        let canonical = [
            request.method().as_str(),
            &request.encoded_path(),
            &request.encoded_query(),
            &lines,
            &names,
            &content,
        ]
        .join("\n");
        let signature = self.signature(&canonical)?;
        let credential = format!("{}/{}", self.key.id, self.scope());
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={credential},SignedHeaders={names},Signature={signature}");
        Ok(added.into_iter().chain([("authorization".to_owned(), authorization)]).collect())
    }

    fn day(&self) -> String {
        self.at.strftime("%Y%m%d").to_string()
    }

    fn scope(&self) -> String {
        format!("{}/{}/s3/aws4_request", self.day(), self.region)
    }

    fn signature(&self, canonical: &str) -> Result<String> {
        let moment = self.at.strftime("%Y%m%dT%H%M%SZ");
        let text = format!("AWS4-HMAC-SHA256\n{moment}\n{}\n{}", self.scope(), digest(canonical.as_bytes())?);
        let mut key = format!("AWS4{}", self.key.secret.expose_secret()).into_bytes();
        for piece in [&self.day(), self.region, "s3", "aws4_request"] {
            key = keyed(&key, piece)?;
        }
        Ok(keyed(&key, &text)?.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

fn digest(bytes: &[u8]) -> Result<String> {
    Ok(Digest::of_reader(bytes)?.as_str().to_owned())
}

fn keyed(key: &[u8], text: &str) -> Result<Vec<u8>> {
    let mut hmac = Hmac::<Sha256>::new_from_slice(key)?;
    hmac.update(text.as_bytes());
    Ok(hmac.finalize().into_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::Method;

    /// The signature in the examples of the page named above.
    fn signature_of(request: &Request) -> String {
        let key = AccessKey {
            id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
        };
        let at = "2013-05-24T00:00:00Z".parse().unwrap();
        let signer = Signer { region: "us-east-1", key: &key, at };
        let headers = signer.headers("examplebucket.s3.amazonaws.com", request).unwrap();
        headers.last().unwrap().1.rsplit_once('=').unwrap().1.to_owned()
    }

    #[test]
    fn a_listing_is_signed_like_amazons_example() {
        let list = Request::new(Method::Get, "/").query("prefix", "J").query("max-keys", "2");

        assert_eq!(signature_of(&list), "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
    }

    #[test]
    fn a_put_is_signed_like_amazons_example() {
        let put = Request::new(Method::Put, "/test$file.text")
            .header("date", "Fri, 24 May 2013 00:00:00 GMT")
            .header("x-amz-storage-class", "REDUCED_REDUNDANCY")
            .body("Welcome to Amazon S3.");

        assert_eq!(signature_of(&put), "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
    }

    #[test]
    fn a_secret_is_not_shown() {
        let key = AccessKey { id: "reader".to_owned(), secret: "hidden".into() };

        assert!(!format!("{key:?}").contains("hidden"));
    }
}
