//! The pages' HTML: Swedish, without JavaScript, for keyboards and screen readers too.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use maud::{DOCTYPE, Markup, html};

use super::acts::Chart;
use crate::access::{AccessEntry, PatientId};
use crate::accounts::{HsaId, SignIn};
use crate::attachments::{Attachment, NAME_MAX};
use crate::notes::{Note, Signature, TEXT_MAX};
use crate::patients::{PAGE, Patient};
use crate::release::{Release, Signing};

/// The page to sign in on, with what was wrong with the last attempt.
pub fn sign_in(sign_in: SignIn, wrong: Option<&str>) -> Markup {
    let content = html! {
        h1 { "Logga in" }
        @if let Some(wrong) = wrong { p.warning role="alert" { (wrong) } }
        @match sign_in {
            SignIn::Closed => p.warning { "Det finns inget konto, så ingen kan logga in." },
            SignIn::Possible => form method="post" action="/sign-in" {
                (field("user", "HSA-id", "text", "username"))
                (field("password", "Lösenord", "password", "current-password"))
                button type="submit" { "Logga in" }
            },
        }
    };
    frame("Logga in", None, &content)
}

/// The patients on one page of the list, and the ways to others.
pub fn patients(who: &HsaId, patients: &[Patient], release: &Release) -> Markup {
    let full = i64::try_from(patients.len()).is_ok_and(|count| count == PAGE);
    let content = html! {
        h1 { "Patienter" }
        section.side-by-side aria-label="Hitta eller lägg till" {
            form method="post" action="/find" {
                h2 { "Hitta patient" }
                (personnummer_field("find-personnummer"))
                button type="submit" { "Hitta" }
            }
            form method="post" action="/patients" {
                h2 { "Ny patient" }
                (personnummer_field("new-personnummer"))
                (field("name", "Namn", "text", "off"))
                button type="submit" { "Lägg till" }
            }
        }
        h2 { "Alla patienter" }
        @if patients.is_empty() { p { "Här finns inga patienter." } } @else { (patient_table(patients)) }
        @if let Some(last) = patients.last().filter(|_| full) {
            p { a href={ "/?after=" (last.id) } { "Nästa " (PAGE) " patienter" } }
        }
    };
    frame("Patienter", Some((who, release)), &content)
}

fn patient_table(patients: &[Patient]) -> Markup {
    html! {
        div.wide role="region" aria-label="Patienter" tabindex="0" {
            table {
                thead { tr { th scope="col" { "Namn" } th scope="col" { "Personnummer" } th scope="col" { "Upplagd" } } }
                tbody {
                    @for patient in patients {
                        tr {
                            td { a href={ "/patients/" (patient.id) } { (patient.name) } }
                            td { (patient.personnummer_for_people()) }
                            td { (moment(patient.created_at)) }
                        }
                    }
                }
            }
        }
    }
}

/// All of one patient.
pub fn chart(who: &HsaId, chart: &Chart, release: &Release) -> Markup {
    let Chart { patient, notes, attachments } = chart;
    let content = html! {
        h1 { (patient.name) }
        p { "Personnummer " strong { (patient.personnummer_for_people()) } }
        p { a href={ "/access-log?patient=" (patient.id) } { "Vem har läst den här journalen?" } }
        h2 { "Ny anteckning" }
        form method="post" action={ "/patients/" (patient.id) "/notes" } {
            label for="text" { "Anteckning" }
            textarea #text name="text" rows="5" required maxlength=(TEXT_MAX) {}
            button type="submit" { "Spara anteckning" }
        }
        h2 { "Anteckningar" }
        @if notes.is_empty() { p { "Här finns inga anteckningar." } }
        @for note in notes { (note_article(note, release.signing())) }
        h2 { "Bilagor" }
        @if attachments.is_empty() { p { "Här finns inga bilagor." } } @else { (attachment_table(attachments)) }
        h3 { "Ny bilaga" }
        form method="post" action={ "/patients/" (patient.id) "/attachments" } enctype="multipart/form-data" {
            label for="file" { "Fil, med ett namn på högst " (NAME_MAX) " tecken" }
            input #file name="file" type="file" required;
            button type="submit" { "Spara bilaga" }
        }
    };
    // The title lands in the browser's history, so it names nobody.
    frame("Patientjournal", Some((who, release)), &content)
}

fn note_article(note: &Note, signing: Signing) -> Markup {
    html! {
        article {
            h3 { (moment(note.written_at)) ", " (note.written_by) }
            p.note { (note.text) }
            @if let (Signing::Offered, Some(signature)) = (signing, &note.signature) {
                (signature_line(note, signature))
            }
        }
    }
}

fn signature_line(note: &Note, signature: &Signature) -> Markup {
    html! {
        @match (&signature.signed_by, signature.signed_at) {
            (Some(by), Some(at)) => p { "Signerad " (moment(at)) " av " (by) },
            _ => form.in-line method="post" action={ "/notes/" (note.id) "/signature" } {
                span { "Osignerad" }
                button type="submit" aria-label={ "Signera anteckning " (note.id) } { "Signera" }
            },
        }
    }
}

fn attachment_table(attachments: &[Attachment]) -> Markup {
    html! {
        div.wide role="region" aria-label="Bilagor" tabindex="0" {
            table {
                thead {
                    tr {
                        th scope="col" { "Fil" }
                        th scope="col" { "Byte" }
                        th scope="col" { "Tillagd" }
                        th scope="col" { "SHA-256" }
                    }
                }
                tbody {
                    @for attachment in attachments {
                        tr {
                            td { a href={ "/attachments/" (attachment.id) } { (attachment.name) } }
                            td { (attachment.size_bytes) }
                            td { (moment(attachment.attached_at)) ", " (attachment.attached_by) }
                            td { code { (attachment.sha256) } }
                        }
                    }
                }
            }
        }
    }
}

/// Who did what, to one patient or to all.
pub fn access_log(
    who: &HsaId,
    patient: Option<PatientId>,
    entries: &[AccessEntry],
    release: &Release,
) -> Markup {
    let content = html! {
        h1 { "Åtkomstlogg" }
        @match patient {
            Some(id) => p { "För " a href={ "/patients/" (id) } { "patient " (id) } "." },
            None => p { "För alla patienter, det senaste först." },
        }
        div.wide role="region" aria-label="Åtkomster" tabindex="0" {
            table {
                thead {
                    tr {
                        th scope="col" { "När" }
                        th scope="col" { "Vem" }
                        th scope="col" { "Vad" }
                        th scope="col" { "Patient" }
                    }
                }
                tbody {
                    @for entry in entries {
                        tr {
                            td { (moment(entry.at)) }
                            td { (entry.who) }
                            td { (action_in_swedish(&entry.action)) }
                            td {
                                @match entry.patient_id {
                                    Some(id) => a href={ "/patients/" (id) } { (id) },
                                    None => "alla",
                                }
                            }
                        }
                    }
                }
            }
        }
    };
    frame("Åtkomstlogg", Some((who, release)), &content)
}

/// What went wrong, and the way back.
pub fn failure(sentence: &str) -> Markup {
    let content = html! {
        h1 { "Det gick inte" }
        p.warning role="alert" { (sentence) }
        p { a href="/" { "Till patienterna" } }
    };
    frame("Det gick inte", None, &content)
}

/// What every page has around its content.
fn frame(title: &str, signed_in: Option<(&HsaId, &Release)>, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="sv" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " – Testjournalen" }
                link rel="stylesheet" href="/style.css";
            }
            body {
                a.skip href="#content" { "Till innehållet" }
                header {
                    p.brand { "Testjournalen" }
                    @if let Some((who, _)) = signed_in {
                        nav aria-label="Sidor" {
                            a href="/" { "Patienter" }
                            a href="/access-log" { "Åtkomstlogg" }
                        }
                        form.in-line method="post" action="/sign-out" {
                            span { (who.as_str()) }
                            button type="submit" { "Logga ut" }
                        }
                    }
                }
                main #content tabindex="-1" { (content) }
                footer {
                    p {
                        "Bara testpersonnummer."
                        @if let Some((_, release)) = signed_in { " Version " (release.version) "." }
                    }
                }
            }
        }
    }
}

fn field(name: &str, label: &str, kind: &str, autocomplete: &str) -> Markup {
    html! {
        label for=(name) { (label) }
        input id=(name) name=(name) type=(kind) autocomplete=(autocomplete) required maxlength="200";
    }
}

fn personnummer_field(id: &str) -> Markup {
    let hint = format!("{id}-hint");
    html! {
        label for=(id) { "Personnummer" }
        input id=(id) name="personnummer" type="text" inputmode="numeric" autocomplete="off" required
            maxlength="20" aria-describedby=(hint);
        p.hint id=(hint) { "Tolv siffror, som 18900101-9802" }
    }
}

/// In Swedish time, to the minute; the exact moment for programs.
fn moment(at: Timestamp) -> Markup {
    let zone = TimeZone::get("Europe/Stockholm").unwrap_or(TimeZone::UTC);
    html! { time datetime=(at) { (at.to_zoned(zone).strftime("%Y-%m-%d %H:%M")) } }
}

fn action_in_swedish(code: &str) -> &str {
    match code {
        "list_patients" => "Såg i patientlistan",
        "find_patient" => "Sökte fram patienten",
        "create_patient" => "Lade upp patienten",
        "read_patient" => "Öppnade journalen",
        "read_notes" => "Läste anteckningar",
        "write_note" => "Skrev en anteckning",
        "sign_note" => "Signerade en anteckning",
        "list_attachments" => "Såg listan över bilagor",
        "write_attachment" => "Sparade en bilaga",
        "read_attachment" => "Öppnade en bilaga",
        "read_access_log" => "Läste åtkomstloggen",
        other => other,
    }
}
