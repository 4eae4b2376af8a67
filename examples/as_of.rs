//! Reads of the past: snapshots, and any commit that the retention keeps, also after a restart.
//!
//! `cargo run --example as_of [FOLDER]`

use quipu::{Error, Options, Result, Retention};
use std::path::Path;

/// Runs the example in a folder.
pub fn run(path: &Path) -> Result<()> {
    // The last hundred commits of each shard can be read exactly; what is older may go.
    let options = Options::new().shards(1).retention(Retention::Last(100));
    let engine = options.open(path)?;
    let prices = engine.directory("shop/prices")?;

    prices.put("tea", "3.20").wait()?;
    let before = prices.put("coffee", "4.00").wait()?;

    // A snapshot lasts while its handle lives, whatever the retention.
    let snapshot = engine.snapshot(&prices).wait()?;
    prices.put("tea", "3.50").wait()?;
    prices.delete("coffee").wait()?;
    println!("tea was {:?}, is {:?}", snapshot.get(&prices, "tea").wait()?, prices.get("tea").wait()?);
    drop((snapshot, prices));
    engine.close()?;

    // The number of a commit is good for later, too.
    let engine = options.open(path)?;
    let prices = engine.directory("shop/prices")?;
    let then = engine.as_of(&prices, before.number).wait()?;
    for entry in then.iter(&prices)?.blocking() {
        let (name, price) = entry?;
        println!("as of commit {}: {name:?} {price:?}", then.commit());
    }
    drop(then);

    for round in 0..200 {
        prices.put("tea", format!("{round}")).wait()?;
    }
    // Now it is too long ago. The error names the nearest commit that can be read.
    match engine.as_of(&prices, before.number).wait() {
        Err(Error::NotRetained { asked, nearest: Some(nearest), .. }) => {
            println!("commit {asked} is gone; the nearest is {nearest}");
            let price = engine.as_of(&prices, nearest).wait()?.get(&prices, "tea").wait()?;
            println!("there, tea was {price:?}");
        }
        other => println!("unexpected: {other:?}"),
    }
    let retained = engine.retained(&prices).wait()?;
    println!("kept: {:?}, back to commit {}", retained.retention(), retained.oldest());
    drop(prices);
    engine.close()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = tempfile::tempdir()?;
    let given = std::env::args().nth(1);
    run(given.as_deref().map_or(temporary.path(), Path::new))?;
    Ok(())
}
