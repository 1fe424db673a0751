//! Decides which keys are to be proven, and what an answer is worth. Pure.

use jiff::Timestamp;
use valv_crds::{BackupPolicy, JournalTenant, Slot, protection::KeyRole};

use super::{
    CHALLENGE_PREFIX,
    proof::{self, Nonce},
};
use crate::overview::key_fingerprint;

/// A key is asked for this long before its proof is overdue: holders are people, with holidays.
const ASKED_BEFORE_DAYS: i64 = 30;

/// Seconds of a day.
const DAY: i64 = 86_400;

/// A key of a tenant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Asked {
    /// Whose.
    pub role: KeyRole,
    /// The recipient.
    pub recipient: String,
    /// Its short name.
    pub fingerprint: String,
    /// When it was last proven.
    pub proven: Option<Timestamp>,
    /// Whether it is to be proven now or soon.
    pub is_due: bool,
}

impl Asked {
    /// Name of its challenge.
    pub fn object(&self) -> String {
        format!("{CHALLENGE_PREFIX}{}", self.fingerprint)
    }
}

/// A challenge that stands in the cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Standing {
    /// Of which backup.
    pub slot: Slot,
    /// What was answered.
    pub answer: Option<String>,
}

/// What is done about one key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// The answer is right.
    Proven,
    /// The answer is wrong.
    Refuse,
    /// A challenge with the header of this backup is put there.
    Offer(Slot),
    /// The challenge is taken away.
    Withdraw,
}

/// The keys of `tenant`, as `policy` asks for their proofs at `now`.
pub fn asked(tenant: &JournalTenant, policy: Option<&BackupPolicy>, now: Timestamp) -> Vec<Asked> {
    let (Some(protection), Some(policy)) = (&tenant.spec.backup, policy) else { return vec![] };
    let recipients = &protection.recipients;
    let all = [
        (KeyRole::Tenant, Some(&recipients.tenant)),
        (KeyRole::Escrow, Some(&recipients.escrow)),
        (KeyRole::Drill, recipients.drill.as_ref()),
    ];
    let known = tenant.status.as_ref().and_then(|status| status.backup.as_ref());
    let known = known.map(|status| status.keys.as_slice()).unwrap_or_default();
    let every = i64::from(policy.spec.keys.prove_every.count());
    all.into_iter()
        .filter_map(|(role, recipient)| {
            let recipient = recipient?.clone();
            let fingerprint = key_fingerprint(&recipient);
            let proven = known.iter().find(|key| key.role == role && key.fingerprint == fingerprint);
            let proven = proven.and_then(|key| key.proven.as_ref()).map(|proven| proven.0);
            // Half of a short time, so that a key which was just proven is not asked for at once.
            let wait = every
                .saturating_sub(ASKED_BEFORE_DAYS)
                .saturating_mul(DAY)
                .max(every.saturating_mul(DAY) / 2);
            let is_due =
                proven.is_none_or(|proven| now.as_second() >= proven.as_second().saturating_add(wait));
            Some(Asked { role, recipient, fingerprint, proven, is_due })
        })
        .collect()
}

/// What is done about `asked`, when `newest` is the slot of the newest complete backup. `expected` says the right answer
/// for a slot.
///
/// # Guarantees
/// Nothing in the cluster but the answer itself is believed: the right one is computed anew from the operator's own key.
/// It is bound to the last proof, so the same answer proves nothing a second time.
pub fn decide(
    asked: &Asked,
    standing: Option<&Standing>,
    newest: Option<Slot>,
    expected: impl Fn(Slot) -> Result<Nonce, proof::Error>,
) -> Result<Step, proof::Error> {
    // Also when it was answered: the proof was dated, and the same answer is no news.
    if !asked.is_due {
        return Ok(if standing.is_some() { Step::Withdraw } else { Step::Nothing });
    }
    if let Some(Standing { slot, answer: Some(answer) }) = standing {
        let right = expected(*slot)?;
        return Ok(if right.is(answer) { Step::Proven } else { Step::Refuse });
    }
    Ok(match (standing, newest) {
        (_, None) => Step::Nothing,
        (Some(standing), Some(newest)) if standing.slot == newest => Step::Nothing,
        (_, Some(newest)) => Step::Offer(newest),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        archive::envelope::SigningKey,
        overview::tests::{ESCROW_KEY, TENANT_KEY, World, noon},
    };

    fn slot() -> Slot {
        "20261123T010000Z".parse().unwrap()
    }

    fn signing() -> SigningKey {
        SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap()
    }

    fn key(is_proven: Option<&str>) -> Asked {
        Asked {
            role: KeyRole::Escrow,
            recipient: ESCROW_KEY.to_owned(),
            fingerprint: key_fingerprint(ESCROW_KEY),
            proven: is_proven.map(|text| text.parse().unwrap()),
            is_due: true,
        }
    }

    fn right(signing: &SigningKey, asked: &Asked, slot: Slot) -> Result<Nonce, proof::Error> {
        proof::nonce(signing, "ada", slot, &asked.recipient, asked.proven)
    }

    fn answered(answer: &str) -> Standing {
        Standing { slot: slot(), answer: Some(answer.to_owned()) }
    }

    #[test]
    fn a_key_is_asked_for_from_a_month_before_its_proof_is_overdue() {
        // Proven on the 1st of November, to be proven every 180 days.
        let world = World::well();
        let typed = world.typed();
        let snapshot = typed.snapshot();
        let due = |now: &str| {
            let now = now.parse().unwrap();
            asked(snapshot.tenants[0], Some(snapshot.policies[0]), now)[0].is_due
        };

        assert!(!due("2027-03-30T00:00:00Z"));
        assert!(due("2027-03-31T00:00:00Z"));
    }

    #[test]
    fn a_new_key_is_asked_for_at_once_and_a_rotated_one_too() {
        let mut world = World::well();
        world.tenant["spec"]["backup"]["recipients"]["tenant"] = json!(TENANT_KEY.replace("qqqq", "zzzz"));
        let typed = world.typed();
        let snapshot = typed.snapshot();

        let asked = asked(snapshot.tenants[0], Some(snapshot.policies[0]), noon());

        let due: Vec<_> = asked.iter().map(|asked| (asked.role, asked.is_due)).collect();
        assert_eq!(due, [(KeyRole::Tenant, true), (KeyRole::Escrow, false)]);
    }

    #[test]
    fn the_right_answer_proves_a_key_and_another_does_not() {
        let signing = signing();
        let asked = key(None);
        let expected = |slot| right(&signing, &asked, slot);
        let answer = right(&signing, &asked, slot()).unwrap().to_string();

        assert_eq!(decide(&asked, Some(&answered(&answer)), Some(slot()), expected).unwrap(), Step::Proven);
        let wrong = answered(&answer.replace(['0', '1', '2'], "f"));
        assert_eq!(decide(&asked, Some(&wrong), Some(slot()), expected).unwrap(), Step::Refuse);
        assert_eq!(decide(&asked, Some(&answered("")), Some(slot()), expected).unwrap(), Step::Refuse);
    }

    #[test]
    fn an_answer_proves_nothing_a_second_time_nor_for_another_key_or_by_another_operator() {
        let signing = signing();
        let answer = right(&signing, &key(None), slot()).unwrap().to_string();
        let later = key(Some("2026-11-23T12:00:00Z"));
        let other = Asked { recipient: TENANT_KEY.to_owned(), ..key(None) };
        let stranger = self::signing();

        for (asked, signing) in [(&later, &signing), (&other, &signing), (&key(None), &stranger)] {
            let expected = |slot| right(signing, asked, slot);
            let step = decide(asked, Some(&answered(&answer)), Some(slot()), expected).unwrap();
            assert_eq!(step, Step::Refuse);
        }
    }

    #[test]
    fn a_challenge_is_offered_renewed_with_the_newest_backup_and_withdrawn_when_nothing_is_due() {
        let signing = signing();
        let asked = key(None);
        let rested = Asked { is_due: false, ..key(None) };
        let expected = |slot| right(&signing, &asked, slot);
        let standing = Standing { slot: slot(), answer: None };
        let newer: Slot = "20261124T010000Z".parse().unwrap();

        let step = |asked: &Asked, standing: Option<&Standing>, newest| {
            decide(asked, standing, newest, expected).unwrap()
        };
        assert_eq!(step(&asked, None, Some(slot())), Step::Offer(slot()));
        assert_eq!(step(&asked, Some(&standing), Some(slot())), Step::Nothing);
        assert_eq!(step(&asked, Some(&standing), Some(newer)), Step::Offer(newer));
        assert_eq!(step(&asked, None, None), Step::Nothing);
        assert_eq!(step(&rested, Some(&standing), Some(slot())), Step::Withdraw);
        assert_eq!(step(&rested, Some(&answered("taken already")), Some(slot())), Step::Withdraw);
        assert_eq!(step(&rested, None, Some(slot())), Step::Nothing);
    }
}
