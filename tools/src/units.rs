//! Numbers with units: read from the command line, and written for people.

use std::time::Duration;

/// The longest duration that an option takes. Beyond it, arithmetic on instants could overflow.
const DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Reads "100", "64KiB", "1.5 MiB", "2GB" as bytes.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return Err(format!("unknown unit {unit:?}; use B, KiB, MiB, GiB, TiB, KB, MB or GB")),
    };
    let bytes = number * scale as f64;
    // 2^53: beyond it a double does not hold every whole number.
    if bytes > (1u64 << 53) as f64 {
        return Err("too many bytes".to_string());
    }
    Ok(bytes.round() as u64)
}

/// Reads "10000", "10_000", "10k" or "1.5M" as a whole number from 1 on.
pub(crate) fn parse_count(text: &str) -> Result<u32, String> {
    let (number, unit) = split(text)?;
    let scale = match unit {
        "" => 1.0,
        "k" | "K" => 1e3,
        "m" | "M" => 1e6,
        _ => return Err(format!("unknown unit {unit:?}; use k or M")),
    };
    match (number * scale).round() {
        count if (1.0..=f64::from(u32::MAX)).contains(&count) => Ok(count as u32),
        _ => Err(format!("must be 1 to {}", u32::MAX)),
    }
}

/// Reads "2", "0.5s", "200ms", "1min" as a duration; seconds where no unit is given.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text)?;
    let seconds = match unit.to_ascii_lowercase().as_str() {
        "" | "s" => number,
        "ns" => number / 1e9,
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("unknown unit {unit:?}; use ns, us, ms, s, min or h")),
    };
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration <= DURATION_MAX => Ok(duration),
        _ => Err(format!("must be at most {} days", DURATION_MAX.as_secs() / (24 * 3600))),
    }
}

/// Like [`parse_duration`], and more than nothing.
pub(crate) fn parse_duration_positive(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("must be more than 0".to_string()),
        duration => Ok(duration),
    }
}

/// "1 shard", "2,000 shards".
pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", thousands(count), if count == 1 { one } else { many })
}

/// The number and the unit behind it.
fn split(text: &str) -> Result<(f64, &str), String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let number =
        text[..end].replace('_', "").parse::<f64>().map_err(|_| format!("{text:?} is not a number"))?;
    Ok((number, text[end..].trim()))
}

/// 1234567 as "1,234,567".
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate, whole, with separators: "612,331/s".
pub(crate) fn rate(per_second: f64) -> String {
    format!("{}/s", thousands(per_second.round() as u64))
}

/// Nanoseconds with a unit that leaves three or so digits: "850 ns", "12.3 us", "1.42 ms", "2.10 s".
pub(crate) fn latency(nanoseconds: u64) -> String {
    let ns = nanoseconds as f64;
    let scaled = |value: f64, unit: &str| match value {
        value if value < 10.0 => format!("{value:.2} {unit}"),
        value if value < 100.0 => format!("{value:.1} {unit}"),
        value => format!("{value:.0} {unit}"),
    };
    match nanoseconds {
        0..1_000 => format!("{nanoseconds} ns"),
        1_000..1_000_000 => scaled(ns / 1e3, "us"),
        1_000_000..1_000_000_000 => scaled(ns / 1e6, "ms"),
        _ => scaled(ns / 1e9, "s"),
    }
}

/// A duration like [`latency`].
pub(crate) fn duration(duration: Duration) -> String {
    latency(duration.as_nanos().min(u128::from(u64::MAX)) as u64)
}

/// Bytes with a binary unit: "12.3 MiB".
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_with_units() {
        for (text, bytes) in
            [("100", 100), ("64KiB", 64 << 10), ("1.5 MiB", 3 << 19), ("2GB", 2_000_000_000), ("1_000", 1000)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "x", "-1", "10 apples", "1..2", "99999999TiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn counts_are_read_with_units() {
        for (text, count) in [("1", 1), ("10_000", 10_000), ("10k", 10_000), ("1.5M", 1_500_000)] {
            assert_eq!(parse_count(text), Ok(count), "{text}");
        }
        for text in ["", "0", "-1", "5000M", "3 apples", "0.2"] {
            assert!(parse_count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_with_units() {
        let ms = Duration::from_millis;
        for (text, duration) in [("2", ms(2000)), ("0.2s", ms(200)), ("200ms", ms(200)), ("1min", ms(60_000))]
        {
            assert_eq!(parse_duration(text), Ok(duration), "{text}");
        }
        for text in ["", "nan", "inf", "-1s", "1 parsec", "1000000h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!(parse_duration_positive("0ms").is_err());
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(latency(850), "850 ns");
        assert_eq!(latency(12_345), "12.3 us");
        assert_eq!(latency(1_420_000), "1.42 ms");
        assert_eq!(latency(2_100_000_000), "2.10 s");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(3 << 19), "1.5 MiB");
    }
}
