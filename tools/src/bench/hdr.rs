//! Histograms as the HdrHistogram tools read them.
//!
//! - `PHASE-OPERATION.hgrm`: the percentile distribution, for the HdrHistogram plotter
//!   (`outputPercentileDistribution` of the Java library, five steps to each halving of the distance to 100 %), values in
//!   milliseconds. In an open loop there is one of the service times too.
//! - `PHASE.hlog`: a histogram a second and operation (interval log, V2 deflated, tagged with the operation), for
//!   HistogramLogAnalyzer and HistogramLogProcessor; values in nanoseconds, the maximum column in milliseconds.

use super::op::OpKind;
use super::report::{PhaseReport, Report};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// Steps to each halving of the distance to 100 %: what HdrHistogram's own tools use.
const TICKS: u32 = 5;

/// Nanoseconds in the unit of `.hgrm` files, a millisecond.
const UNIT_NS: f64 = 1e6;

/// Writes all histograms of a report into a folder.
pub(crate) fn write_all(folder: &Path, report: &Report) -> io::Result<()> {
    for phase in report.measured() {
        // "commits 80%" makes no good file name.
        let name: String =
            phase.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let name = name.trim_end_matches('-');
        for kind in OpKind::ALL {
            let of = |histogram: Option<&Histogram<u64>>, suffix: &str| match histogram {
                Some(histogram) => {
                    fs::write(folder.join(format!("{name}-{}{suffix}.hgrm", kind.name())), hgrm(histogram))
                }
                None => Ok(()),
            };
            of(phase.histograms.of(kind), "")?;
            of(phase.histograms.service[kind as usize].as_ref(), "-service")?;
        }
        if phase.packed.is_some() {
            fs::write(folder.join(format!("{name}.hlog")), hlog(phase)?)?;
        }
    }
    Ok(())
}

/// The percentile distribution of a histogram.
pub(crate) fn hgrm(histogram: &Histogram<u64>) -> String {
    let mut text =
        format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut total = 0;
    // Writing to a string cannot fail.
    for step in histogram.iter_quantiles(TICKS) {
        total += step.count_since_last_iteration();
        let (value, quantile) = (step.value_iterated_to() as f64 / UNIT_NS, step.quantile_iterated_to());
        let _ = write!(text, "{value:12.6} {quantile:2.12} {total:10}");
        let _ = match quantile < 1.0 {
            true => writeln!(text, " {:14.2}", 1.0 / (1.0 - quantile)),
            false => writeln!(text),
        };
    }
    let (mean, deviation) = (histogram.mean() / UNIT_NS, histogram.stdev() / UNIT_NS);
    let _ = writeln!(text, "#[Mean    = {mean:12.6}, StdDeviation   = {deviation:12.6}]");
    let (max, count) = (histogram.max() as f64 / UNIT_NS, histogram.len());
    let _ = writeln!(text, "#[Max     = {max:12.6}, Total count    = {count:12}]");
    let (buckets, sub_buckets) = (histogram.buckets(), 2 * 10u32.pow(histogram.sigfig().into()));
    let _ =
        writeln!(text, "#[Buckets = {buckets:12}, SubBuckets     = {:12}]", sub_buckets.next_power_of_two());
    text
}

/// The histograms of each second of a phase.
fn hlog(phase: &PhaseReport) -> io::Result<Vec<u8>> {
    let mut log = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let start = UNIX_EPOCH + Duration::from_secs_f64(phase.started_unix.max(0.0));
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment("[Histogram log format version 1.3]")
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(UNIT_NS);
    builder.add_comment(
        "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"",
    );
    let mut writer = builder.begin_log_with(&mut log, &mut serializer)?;
    let mut packed: Vec<_> = phase.packed.iter().flatten().collect();
    packed.sort_by_key(|packed| (packed.second, packed.kind));
    // Several threads' parts of one second and kind are one histogram.
    for part in packed.chunk_by(|one, next| (one.second, one.kind) == (next.second, next.kind)) {
        let mut merged = super::record::histogram();
        for packed in part {
            let histogram =
                Deserializer::new().deserialize(&mut &packed.bytes[..]).map_err(io::Error::other)?;
            merged += &histogram;
        }
        let (second, kind) = (part[0].second, part[0].kind);
        let (start, length) = (Duration::from_secs(second), Duration::from_secs(1));
        writer.write_histogram(&merged, start, length, Tag::new(kind.name())).map_err(io::Error::other)?;
    }
    Ok(log)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::bench::draw::mix64;

    /// Read back, the distribution gives the percentiles of the histogram.
    #[test]
    fn a_distribution_reads_back() {
        let mut histogram = crate::bench::record::histogram();
        for sample in 0..100_000u64 {
            histogram.record(1_000 + mix64(sample) % 50_000_000).unwrap();
        }
        let text = hgrm(&histogram);
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .take_while(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|cell| cell.parse().unwrap()).collect())
            .collect();
        assert!(rows.len() > 50);
        assert!(rows.is_sorted_by(|one, next| one[0] <= next[0] && one[1] <= next[1] && one[2] <= next[2]));
        for row in &rows {
            let (value, quantile, count) = (row[0] * UNIT_NS, row[1], row[2]);
            let expected = histogram.value_at_quantile(quantile) as f64;
            assert!((value - expected).abs() <= expected * 0.002, "{quantile}: {value} {expected}");
            assert!(count >= quantile * 100_000.0 - 1.0);
            if row.len() == 4 {
                assert!((row[3] * (1.0 - quantile) - 1.0).abs() < 0.01, "{row:?}");
            }
        }
        let last = rows.last().unwrap();
        assert_eq!((last[1], last[2], last.len()), (1.0, 100_000.0, 3));
        assert!(text.contains("#[Mean") && text.contains("Total count    =       100000]"), "{text}");
    }
}
