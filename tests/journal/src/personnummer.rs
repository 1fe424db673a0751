//! Personnummer, and which of them this journal takes: test numbers only.
//!
//! Skatteverket publishes test numbers as open data (<https://www.dataportal.se/>, "Testpersonnummer"). The
//! list was not at hand here, but a copy of it that a public program keeps: `AllPins.fs` of the GitHub
//! repository `ActiveLogin/ActiveLogin.Identity`, generated from Skatteverket's files. What was seen there:
//!
//! - For the births of 1890–1899 it has one number a day, with the birth numbers 980 and 981 in turn from
//!   1890-01-01 on. Read line by line: 1890-01-01 to 1891-05-20 and 1899-08-08 to 1899-12-31. Between the two,
//!   the count of lines is that of the days. (One number is beside the rule: 1890-12-21 has a second one.)
//!   [`published`] makes these 3,652 numbers.
//! - `191212121212` (Tolvan Tolvansson) is in "Testpersonnummer från skatteverket" of `KentorIT/PU-Adapter`.
//!
//! That is too few for a large journal, so [`same_series`] adds the rest of the same series: the same days, the
//! birth numbers 980–989. Skatteverket did **not** publish those; nobody who lives was born on those days.
//! Nothing else is accepted.

use std::fmt;

use jiff::ToSpan;
use jiff::civil::{Date, date};

/// The first day of birth of the series.
const FIRST_DAY: Date = date(1890, 1, 1);
/// Days in 1890–1899: 3,650 and the leap days of 1892 and 1896.
const DAYS: i32 = 3652;
/// The birth numbers of the series.
const BIRTH_NUMBERS: std::ops::Range<i32> = 980..990;
/// Published on its own.
const TOLVAN: &str = "191212121212";

/// A test personnummer: twelve digits, checked. Never in a log line.
#[derive(Clone, PartialEq, Eq)]
pub struct Personnummer(String);

/// Why a personnummer is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PersonnummerError {
    #[error("a personnummer has twelve digits, as in 18900101-9802")]
    Form,
    #[error("the personnummer has no day of birth, or its last digit is wrong")]
    Check,
    #[error("only test personnummer are taken: births of 1890 to 1899 with birth numbers 980 to 989")]
    NotATestNumber,
}

/// Whose number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sex {
    /// Even birth numbers.
    Woman,
    /// Odd birth numbers.
    Man,
}

impl Personnummer {
    /// Takes `YYYYMMDDNNNN` or `YYYYMMDD-NNNN` (or `+`), if it is a test number.
    pub fn parse(text: &str) -> Result<Self, PersonnummerError> {
        let digits = without_separator(text.trim()).ok_or(PersonnummerError::Form)?;
        let birth = birth(&digits).ok_or(PersonnummerError::Check)?;
        if luhn(&digits[2..11]) != digits[11] {
            return Err(PersonnummerError::Check);
        }
        let text: String = digits.iter().map(ToString::to_string).collect();
        let in_series = birth.since(FIRST_DAY).is_ok_and(|age| (0..DAYS).contains(&age.get_days()))
            && BIRTH_NUMBERS.contains(&birth_number(&digits));
        if in_series || text == TOLVAN { Ok(Self(text)) } else { Err(PersonnummerError::NotATestNumber) }
    }

    /// The number of the person born `day` days after the first, with `birth_number`.
    fn of_series(day: i32, birth_number: i32) -> Self {
        let born = FIRST_DAY.saturating_add(day.days());
        let text = format!("{}{birth_number}", born.strftime("%Y%m%d"));
        let digits: Vec<u8> = text.bytes().map(|digit| digit - b'0').collect();
        Self(format!("{text}{}", luhn(&digits[2..])))
    }

    /// Twelve digits.
    pub fn digits(&self) -> &str {
        &self.0
    }

    /// Whose number it is.
    pub fn sex(&self) -> Sex {
        if self.0.as_bytes()[10].is_multiple_of(2) { Sex::Woman } else { Sex::Man }
    }
}

/// Prints no digit.
impl fmt::Debug for Personnummer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Personnummer(…)")
    }
}

/// Published numbers, oldest first: one for each day of 1890–1899.
pub fn published() -> impl Iterator<Item = Personnummer> {
    (0..DAYS).map(|day| Personnummer::of_series(day, published_birth_number(day)))
}

/// The other numbers of the same days and series, which are not published.
pub fn same_series() -> impl Iterator<Item = Personnummer> {
    (0..DAYS).flat_map(|day| {
        BIRTH_NUMBERS
            .filter(move |number| *number != published_birth_number(day))
            .map(move |number| Personnummer::of_series(day, number))
    })
}

fn published_birth_number(day: i32) -> i32 {
    BIRTH_NUMBERS.start + day % 2
}

fn without_separator(text: &str) -> Option<[u8; 12]> {
    let bytes = text.as_bytes();
    let joined = match bytes {
        [day @ .., b'-' | b'+', _, _, _, _] => [day, &bytes[day.len() + 1..]].concat(),
        _ => bytes.to_vec(),
    };
    let digits: [u8; 12] = joined.try_into().ok()?;
    digits.iter().all(u8::is_ascii_digit).then(|| digits.map(|digit| digit - b'0'))
}

fn birth(digits: &[u8; 12]) -> Option<Date> {
    let number = |range: std::ops::Range<usize>| digits[range].iter().fold(0, |n, d| n * 10 + i16::from(*d));
    Date::new(number(0..4), number(4..6).try_into().ok()?, number(6..8).try_into().ok()?).ok()
}

fn birth_number(digits: &[u8; 12]) -> i32 {
    digits[8..11].iter().fold(0, |number, digit| number * 10 + i32::from(*digit))
}

/// The digit that makes `digits` and itself pass the Luhn check.
fn luhn(digits: &[u8]) -> u8 {
    let sum: u8 = (digits.iter().rev().enumerate())
        .map(|(place, digit)| if place % 2 == 0 { digit * 2 / 10 + digit * 2 % 10 } else { *digit })
        .sum();
    (10 - sum % 10) % 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_numbers_are_the_ones_in_public_copies_of_the_list() {
        let published: Vec<_> = published().map(|number| number.digits().to_owned()).collect();

        assert_eq!(published[..4], ["189001019802", "189001029819", "189001039800", "189001049817"]);
        for seen in ["189104159810", "189008199805", "189012299807", "189912309805", "189912319812"] {
            assert!(published.iter().any(|number| number == seen), "{seen}");
        }
        assert_eq!(published.len(), 3652);
    }

    #[test]
    fn every_number_that_fill_can_draw_is_accepted() {
        for number in published().chain(same_series()) {
            assert_eq!(Personnummer::parse(number.digits()), Ok(number));
        }
    }

    #[test]
    fn the_two_parts_of_the_series_have_no_number_in_common() {
        let all: std::collections::HashSet<_> =
            published().chain(same_series()).map(|number| number.digits().to_owned()).collect();

        assert_eq!(all.len(), 36_520);
    }

    #[test]
    fn a_separator_is_optional() {
        let with = Personnummer::parse(" 18900101-9802 ");

        assert_eq!(with, Personnummer::parse("189001019802"));
        assert!(with.is_ok());
    }

    #[test]
    fn a_number_outside_the_series_is_refused() {
        for number in ["19640823-3234", "20000229-2399", "19000101-9801"] {
            assert_eq!(Personnummer::parse(number), Err(PersonnummerError::NotATestNumber), "{number}");
        }
    }

    #[test]
    fn a_wrong_last_digit_or_day_is_refused() {
        assert_eq!(Personnummer::parse("18900101-9803"), Err(PersonnummerError::Check));
        assert_eq!(Personnummer::parse("18900231-9802"), Err(PersonnummerError::Check));
    }

    #[test]
    fn what_is_not_twelve_digits_is_refused() {
        for text in
            ["", "900101-9802", "18900101-980", "1890-01019802", "Tolvan Tolvan", "１８９００１０１９８０２"]
        {
            assert_eq!(Personnummer::parse(text), Err(PersonnummerError::Form), "{text}");
        }
    }

    #[test]
    fn debug_prints_no_digit() {
        assert_eq!(format!("{:?}", Personnummer::parse(TOLVAN).unwrap()), "Personnummer(…)");
    }
}
