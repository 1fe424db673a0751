//! Who may sign in, and the cookie that says somebody did.
//!
//! Accounts are settings. A session is a signed cookie, `<HSA-id>.<end>.<signature>`, keyed by the account's
//! password: it holds on every replica and over restarts, and ends when the password changes.

use std::str::FromStr;
use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use jiff::Timestamp;
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};

/// A session ends after a working day.
pub const SESSION: Duration = Duration::from_secs(10 * 3600);

/// Who somebody is in Swedish health care: `SE`, an organisation number of ten digits, `-`, and up to 20 letters
/// and digits, as in `SE2321000016-1003`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HsaId(String);

impl HsaId {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HsaId {
    type Err = AccountsError;

    fn from_str(text: &str) -> Result<Self, AccountsError> {
        let rest = text.strip_prefix("SE").and_then(|rest| rest.split_once('-'));
        match rest {
            Some((organisation, unit))
                if organisation.len() == 10
                    && organisation.bytes().all(|byte| byte.is_ascii_digit())
                    && (1..=20).contains(&unit.len())
                    && unit.bytes().all(|byte| byte.is_ascii_alphanumeric()) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(AccountsError::NotAnHsaId),
        }
    }
}

/// The accounts cannot be read. Says nothing of what was written there: it may be a password.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    #[error("an account is not of the form user:password")]
    Form,
    #[error("a user is not an HSA-id, as in SE2321000016-1003")]
    NotAnHsaId,
    #[error("a password is empty")]
    EmptyPassword,
}

/// All accounts.
#[derive(Clone, Default)]
pub struct Accounts(Vec<Account>);

#[derive(Clone)]
struct Account {
    user: HsaId,
    password: SecretString,
}

/// Whether anybody can sign in at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignIn {
    Possible,
    /// There is no account.
    Closed,
}

impl Accounts {
    /// Reads `user:password`, separated by lines or commas.
    pub fn parse(text: &SecretString) -> Result<Self, AccountsError> {
        let entries =
            text.expose_secret().split(['\n', ',']).map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(parse_account).collect::<Result<_, _>>().map(Self)
    }

    /// Whether anybody can sign in at all.
    pub fn sign_in(&self) -> SignIn {
        if self.0.is_empty() { SignIn::Closed } else { SignIn::Possible }
    }

    /// Who has this name and password.
    pub fn check(&self, user: &str, password: &str) -> Option<HsaId> {
        let account = self.find(user)?;
        // Compares digests, which takes as long whatever the password is.
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"valv-journal password");
        let expected = hmac::sign(&key, account.password.expose_secret().as_bytes());
        hmac::verify(&key, password.as_bytes(), expected.as_ref()).is_ok().then(|| account.user.clone())
    }

    /// The cookie of a session of `user` that begins at `now`.
    pub fn begin_session(&self, user: &HsaId, now: Timestamp) -> Option<String> {
        let account = self.find(user.as_str())?;
        let end = now.as_second() + SESSION.as_secs().cast_signed();
        let claim = format!("{}.{end}", user.as_str());
        let signature = BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&account.session_key(), claim.as_bytes()));
        Some(format!("{claim}.{signature}"))
    }

    /// Whose session a cookie is, if it is good at `now`.
    pub fn resume_session(&self, cookie: &str, now: Timestamp) -> Option<HsaId> {
        let (claim, signature) = cookie.rsplit_once('.')?;
        let (user, end) = claim.rsplit_once('.')?;
        let account = self.find(user)?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        hmac::verify(&account.session_key(), claim.as_bytes(), &signature).ok()?;
        (now.as_second() < end.parse().ok()?).then(|| account.user.clone())
    }

    fn find(&self, user: &str) -> Option<&Account> {
        self.0.iter().find(|account| account.user.as_str() == user)
    }
}

impl Account {
    fn session_key(&self) -> hmac::Key {
        let text = format!("valv-journal session\0{}", self.password.expose_secret());
        hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes())
    }
}

fn parse_account(entry: &str) -> Result<Account, AccountsError> {
    let (user, password) = entry.split_once(':').ok_or(AccountsError::Form)?;
    if password.is_empty() {
        return Err(AccountsError::EmptyPassword);
    }
    Ok(Account { user: user.parse()?, password: password.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANNA: &str = "SE2321000016-1003";

    fn accounts(text: &str) -> Accounts {
        Accounts::parse(&text.into()).unwrap()
    }

    fn noon() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn accounts_are_separated_by_lines_or_commas() {
        let accounts = accounts("SE2321000016-1003:a:b,SE2321000016-1004:c\nSE2321000016-1005:d\n");

        assert!(accounts.check(ANNA, "a:b").is_some());
        assert!(accounts.check("SE2321000016-1005", "d").is_some());
        assert!(accounts.check(ANNA, "c").is_none());
    }

    #[test]
    fn without_an_account_sign_in_is_closed() {
        assert_eq!(accounts(" \n").sign_in(), SignIn::Closed);
    }

    #[test]
    fn a_user_that_is_no_hsa_id_is_refused() {
        for user in ["anna", "SE232100-1003", "SE2321000016", "SE2321000016-", "SE2321000016-ö"] {
            assert!(Accounts::parse(&format!("{user}:hemligt").into()).is_err(), "{user}");
        }
    }

    #[test]
    fn a_session_holds_until_its_end() {
        let accounts = accounts("SE2321000016-1003:hemligt");
        let cookie = accounts.begin_session(&ANNA.parse().unwrap(), noon()).unwrap();

        assert!(accounts.resume_session(&cookie, noon()).is_some());
        assert!(accounts.resume_session(&cookie, noon() + SESSION).is_none());
    }

    #[test]
    fn a_session_ends_when_the_password_changes() {
        let before = accounts("SE2321000016-1003:hemligt");
        let cookie = before.begin_session(&ANNA.parse().unwrap(), noon()).unwrap();

        assert!(accounts("SE2321000016-1003:annat").resume_session(&cookie, noon()).is_none());
    }

    #[test]
    fn a_changed_cookie_is_refused() {
        let accounts = accounts("SE2321000016-1003:hemligt,SE2321000016-1004:hemligt");
        let cookie = accounts.begin_session(&ANNA.parse().unwrap(), noon()).unwrap();

        assert!(accounts.resume_session(&cookie.replace("1003", "1004"), noon()).is_none());
    }
}
