//! The rows of the table, in groups that share what they measure.

pub(crate) mod commits;
pub(crate) mod directories;
pub(crate) mod loads;
pub(crate) mod reads;
pub(crate) mod redb_bench;
pub(crate) mod space;
pub(crate) mod tail;

use crate::engines::Result;
use crate::row::Row;
use crate::trial::{Bench, say};
use std::collections::BTreeSet;

/// A group of rows that are measured together.
struct Group {
    /// Their numbers.
    rows: &'static [u32],
    run: fn(&Bench, &BTreeSet<u32>) -> Result<Vec<Row>>,
}

const GROUPS: [Group; 13] = [
    Group { rows: &[1, 2, 3], run: commits::durable },
    Group { rows: &[4], run: commits::one_client },
    Group { rows: &[5], run: commits::buffered },
    Group { rows: &[6], run: loads::bulk },
    Group { rows: &[7], run: commits::ycsb_a },
    Group { rows: &[8, 10], run: reads::cached },
    Group { rows: &[9], run: reads::cold },
    Group { rows: &[11, 13], run: tail::latency },
    Group { rows: &[12], run: tail::slowest_second },
    Group { rows: &[14], run: space::amplification },
    Group { rows: &[15], run: space::growth },
    Group { rows: &[16], run: directories::many },
    Group { rows: &[17], run: redb_bench::phases },
];

/// The numbers of all rows.
pub(crate) fn numbers() -> BTreeSet<u32> {
    GROUPS.iter().flat_map(|group| group.rows).copied().collect()
}

/// Runs the rows that are wanted. What failed is told, and the others go on; what was measured is returned.
pub(crate) fn run(
    bench: &Bench,
    wanted: &BTreeSet<u32>,
    mut each: impl FnMut(&[Row]),
) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    for group in &GROUPS {
        let these: BTreeSet<u32> = group.rows.iter().copied().filter(|row| wanted.contains(row)).collect();
        if these.is_empty() || crate::measure::interrupted() {
            continue;
        }
        let names: Vec<String> = these.iter().map(u32::to_string).collect();
        let names = names.join(", ");
        say(&format!("row {names}"));
        match (group.run)(bench, &these) {
            Ok(measured) => rows.extend(measured.into_iter().filter(|row| these.contains(&row.number))),
            Err(error) => {
                say(&format!("row {names} failed: {error}"));
                failures.push(format!("row {names}: {error}"));
            }
        }
        rows.sort_by_key(|row| row.number);
        each(&rows);
    }
    (rows, failures)
}
