//! Lengths of time and sizes, as people read them. Pure.

/// A length of time in one unit, rounded down: `41m`, `23h`, `3d`. Of two units the finer one, as kubectl does, so that
/// nothing is less exact than to a half.
pub fn time(seconds: i64) -> String {
    const UNITS: [(i64, &str); 3] = [(86_400, "d"), (3600, "h"), (60, "m")];
    let magnitude = seconds.max(0);
    for (length, letter) in UNITS {
        if magnitude >= 2 * length {
            return format!("{}{letter}", magnitude / length);
        }
    }
    format!("{magnitude}s")
}

/// A size with one decimal: `1.2 GiB`.
pub fn size(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let bytes = bytes.max(0);
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths of the unit, in whole numbers: a size is never rounded up to what it is not.
    let mut tenths = i128::from(bytes) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_told_in_the_finest_unit_that_is_short() {
        let told: Vec<_> = [-5, 0, 119, 120, 7199, 7200, 172_799, 172_800].map(time).into();

        assert_eq!(told, ["0s", "0s", "119s", "2m", "119m", "2h", "47h", "2d"]);
    }

    #[test]
    fn a_size_is_told_with_one_decimal_and_never_rounded_up() {
        let told: Vec<_> = [0, 1023, 1024, 1536, 1024 * 1024 - 1, 1 << 30, i64::MAX].map(size).into();

        assert_eq!(told, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1023.9 KiB", "1.0 GiB", "8191.9 PiB"]);
    }
}
