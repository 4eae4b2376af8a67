//! The rows of the table, in groups that share what they measure.

pub(crate) mod commits;
pub(crate) mod directories;
pub(crate) mod loads;
pub(crate) mod reads;
pub(crate) mod redb_bench;
pub(crate) mod space;
pub(crate) mod tail;

use crate::engines::{Kind, Result};
use crate::row::Row;
use crate::trial::{Bench, say};
use std::collections::BTreeSet;

/// Measures the rows of a group that are wanted.
type Measure = fn(&Bench, &BTreeSet<u32>) -> Result<Vec<Row>>;

/// A group of rows that are measured together.
struct Group {
    /// Their numbers.
    rows: &'static [u32],
    run: Measure,
    /// Whether they are of Quipu, with others beside it at most.
    of_quipu: bool,
}

const fn shared(rows: &'static [u32], run: Measure) -> Group {
    Group { rows, run, of_quipu: false }
}

const fn of_quipu(rows: &'static [u32], run: Measure) -> Group {
    Group { rows, run, of_quipu: true }
}

const GROUPS: [Group; 13] = [
    shared(&[1, 2, 3], commits::durable),
    of_quipu(&[4], commits::one_client),
    shared(&[5], commits::buffered),
    shared(&[6], loads::bulk),
    shared(&[7], commits::ycsb_a),
    shared(&[8, 10], reads::cached),
    shared(&[9], reads::cold),
    of_quipu(&[11, 13], tail::latency),
    of_quipu(&[12], tail::slowest_second),
    shared(&[14], space::amplification),
    of_quipu(&[15], space::growth),
    of_quipu(&[16], directories::many),
    shared(&[17], redb_bench::phases),
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
        if group.of_quipu && !bench.has(Kind::Quipu) {
            say(&format!("row {names} is left out: it is of Quipu, which does not take part"));
            continue;
        }
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
