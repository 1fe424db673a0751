//! What is invented of a patient: Swedish-looking, and about nobody.

use jiff::{Timestamp, ToSpan};

use super::random::Random;
use crate::personnummer::Sex;

const WOMEN: [&str; 16] = [
    "Anna", "Märta", "Elsa", "Ingrid", "Greta", "Sigrid", "Åsa", "Karin", "Astrid", "Birgit", "Märit",
    "Ebba", "Tyra", "Ellen", "Hedvig", "Örjana",
];
const MEN: [&str; 16] = [
    "Karl", "Erik", "Gösta", "Nils", "Åke", "Sven", "Harald", "Torsten", "Einar", "Östen", "Björn", "Göran",
    "Axel", "Håkan", "Ragnar", "Sixten",
];
const FAMILIES: [&str; 20] = [
    "Andersson",
    "Öberg",
    "Lindström",
    "Åkesson",
    "Bergström",
    "Sjögren",
    "Nyström",
    "Hägg",
    "Löfgren",
    "Wallin",
    "Söderberg",
    "Ekström",
    "Högberg",
    "Mårtensson",
    "Björklund",
    "Norén",
    "Dahlöf",
    "Sandström",
    "Hellström",
    "Ström",
];
const COMPLAINTS: [&str; 12] = [
    "hosta och lätt feber sedan tre dagar",
    "yrsel vid snabb uppresning",
    "ont i höger knä efter ett fall på isen",
    "trötthet och nedsatt aptit",
    "halsont och svårt att svälja",
    "återkommande huvudvärk på morgonen",
    "svullna fötter mot kvällen",
    "klåda och utslag på underarmarna",
    "ryggvärk som strålar ned i vänster ben",
    "hjärtklappning nattetid",
    "sömnsvårigheter sedan en månad",
    "ett sår på hälen som inte läker",
];
const FINDINGS: [&str; 12] = [
    "Gott allmäntillstånd, opåverkad.",
    "Hjärta: regelbunden rytm, inga biljud.",
    "Lungor: rena andningsljud bilateralt.",
    "Buk: mjuk och oöm.",
    "Blodtryck 135/80 i vila.",
    "Saturation 97 % på luft.",
    "Temp 37,8.",
    "Lätt rodnad i svalget, inga beläggningar.",
    "Full rörlighet i leden, ingen hydrops.",
    "Perifera pulsar palperas ua.",
    "Neurologiskt status utan anmärkning.",
    "Vikt 72 kg, oförändrad.",
];
const PLANS: [&str; 12] = [
    "Ordineras vila och rikligt med dryck.",
    "Remiss till röntgen.",
    "Återbesök om två veckor.",
    "Blodprover tas i dag: Hb, CRP, kreatinin.",
    "Sätter in Alvedon 500 mg vid behov.",
    "Egenvårdsråd ges.",
    "Kontakt med distriktssköterska för omläggning.",
    "Uppföljning per telefon på fredag.",
    "Remiss till fysioterapeut.",
    "Läkemedelslistan genomgången, inga ändringar.",
    "Patienten är införstådd med planeringen.",
    "Åter vid försämring, annars ingen ny tid.",
];
const ATTACHMENTS: [&str; 6] = ["röntgen", "ekg", "remissvar", "sårfoto", "spirometri", "ögonbottenfoto"];
const FORMATS: [&str; 4] = ["dcm", "pdf", "jpg", "bin"];
const WRITERS: [&str; 5] =
    ["SE2321000016-1001", "SE2321000016-1002", "SE2321000016-1003", "SE2321000016-1A7K", "SE2321000016-2B3C"];
/// Stories begin on this day, whenever they are written.
const FIRST_DAY: i64 = 1_735_714_800; // 2025-01-01 07:00 UTC
/// Within a year, in working hours.
const DAYS: usize = 365;
const WORKING_MINUTES: usize = 600;

/// A patient's story.
pub struct Story {
    pub name: String,
    pub created_at: Timestamp,
    /// Oldest first.
    pub notes: Vec<Entry>,
    pub attachment_name: String,
}

/// A note.
pub struct Entry {
    pub text: String,
    pub written_by: String,
    pub written_at: Timestamp,
}

impl Story {
    /// Invents one.
    pub fn invent(random: &mut Random, sex: Sex, notes: usize) -> Self {
        let firsts = match sex {
            Sex::Woman => &WOMEN,
            Sex::Man => &MEN,
        };
        let name = format!("{} {}", random.choose(firsts), random.choose(&FAMILIES));
        let created_at = moment(random);
        let attachment_name = format!(
            "{}-{:04}.{}",
            random.choose(&ATTACHMENTS),
            random.below(10_000),
            random.choose(&FORMATS)
        );
        let mut notes: Vec<_> = (0..notes).map(|_| Entry::invent(random)).collect();
        notes.sort_by_key(|note| note.written_at);
        Self { name, created_at, notes, attachment_name }
    }
}

impl Entry {
    fn invent(random: &mut Random) -> Self {
        let mut text = format!("Kontaktorsak: {}.\n", random.choose(&COMPLAINTS));
        text.push_str("Status: ");
        text.push_str(&sentences(random, &FINDINGS));
        text.push_str("\nBedömning och åtgärd: ");
        text.push_str(&sentences(random, &PLANS));
        let written_by = random.choose(&WRITERS).to_owned();
        Self { text, written_by, written_at: moment(random) }
    }
}

/// Two to four sentences.
fn sentences(random: &mut Random, choices: &[&str]) -> String {
    let count = 2 + random.below(3);
    (0..count).map(|_| random.choose(choices)).collect::<Vec<_>>().join(" ")
}

fn moment(random: &mut Random) -> Timestamp {
    let minutes = random.below(DAYS) * 24 * 60 + random.below(WORKING_MINUTES);
    let since = (minutes as i64).minutes();
    Timestamp::from_second(FIRST_DAY)
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .saturating_add(since)
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_numbers_tell_the_same_story() {
        let tell = |seed| {
            let story = Story::invent(&mut Random::of(seed, "189001019802"), Sex::Woman, 3);
            (story.name, story.notes.into_iter().map(|note| (note.text, note.written_at)).collect::<Vec<_>>())
        };

        assert_eq!(tell(1), tell(1));
        assert_ne!(tell(1), tell(2));
    }
}
