//! Use from plain threads: `wait` for an answer, `blocking` for a scan, and commits that need not wait.
//!
//! `cargo run --example blocking_use [FOLDER]`

use quipu::{Batch, Durability, Options, Result};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// Counts what four threads measure.
pub fn run(path: &Path) -> Result<()> {
    // What belongs to the data (the shards) is fixed when the engine is created; the rest is chosen each time.
    let engine = Options::new().shards(2).cache_bytes(64 << 20).open(path)?;

    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let engine = engine.clone();
            thread::spawn(move || -> Result<()> {
                // A root of its own: roots spread over the shards.
                let samples = engine.directory(format!("worker{worker}/samples"))?;
                let mut batch = Batch::new();
                for sample in 0u32..1000 {
                    batch.put(&samples, sample.to_be_bytes(), format!("{}", sample * worker));
                    if batch.len() == 100 {
                        // Acknowledged at once, and durable within 50 ms.
                        let soon = Durability::Buffered { within: Duration::from_millis(50) };
                        engine.commit_with(std::mem::take(&mut batch), soon).wait()?;
                    }
                }
                Ok(())
            })
        })
        .collect();
    for worker in workers {
        match worker.join() {
            Ok(result) => result?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    // From here on, all of them are durable.
    engine.barrier().wait()?;

    for worker in 0..4 {
        let samples = engine.directory(format!("worker{worker}/samples"))?;
        let mut scan = samples.range(..=500u32.to_be_bytes()).blocking();
        // Scans have two ends.
        let (first, last) = (scan.next().transpose()?, scan.next_back().transpose()?);
        println!("worker {worker} on shard {}: {first:?} to {last:?}", samples.shard());
    }
    let stats = engine.stats().wait()?;
    println!(
        "{} commits in {} log writes",
        stats.total(|shard| shard.commits),
        stats.total(|shard| shard.log_groups)
    );
    engine.close()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = tempfile::tempdir()?;
    let given = std::env::args().nth(1);
    run(given.as_deref().map_or(temporary.path(), Path::new))?;
    Ok(())
}
